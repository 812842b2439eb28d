"""What `count` refuses, in two lines, and what it lists when asked to."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

import sims.energy
from neuro.errors import NeuroError, UsageError
from neuro.workload import from_json
from sims.counting import count


class Spectrum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.rfft(x).abs()


def test_an_operator_without_a_rule_is_an_error_that_names_it():
    with pytest.raises(NeuroError) as error:
        count(nn.Sequential(Spectrum()), torch.ones(4))
    assert str(error.value) == (
        "count: got operator aten::_fft_r2c in '0', expected one with a counting rule.\n"
        "Count with allow_uncounted=True to have it listed, or add its rule to sims/counting/rules.py."
    )
    with pytest.raises(NeuroError, match="aten::_fft_r2c in the model itself"):
        count(Spectrum(), torch.ones(4))


def test_or_it_is_listed():
    load = count(nn.Sequential(Spectrum(), nn.Linear(3, 2)), torch.ones(1, 4), allow_uncounted=True)
    assert load.uncounted == ("aten::_fft_r2c in '0': 1",)
    assert from_json(load.to_json()) == load
    assert sum(row.count for row in load.operations if row.kind == "mac") == 6


class Neurons(nn.Module):
    """Fires in an operator that nobody knows; with a matrix of its own it may do more than that."""

    def __init__(self, matrix: bool) -> None:
        super().__init__()
        self.decay = nn.Parameter(torch.ones(4, 4) if matrix else torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return (torch.fft.fft(x).real > 0.5).float()


def test_an_unknown_operator_of_neurons_is_their_update():
    load = count(nn.Sequential(Neurons(False)), torch.ones(2, 4), signals={"0": "binary"})
    assert (load.populations[0].updates, load.operations, load.uncounted) == (8, (), ())
    with pytest.raises(NeuroError, match="aten::_fft_r2c in '0'"):
        count(nn.Sequential(Neurons(True)), torch.ones(2, 4), signals={"0": "binary"})


def test_no_module():
    with pytest.raises(UsageError) as error:
        count(torch.ones(3), torch.ones(3))
    assert str(error.value) == (
        "count: got a Tensor, expected a torch.nn.Module.\nGive the model itself, not its output or its class."
    )


def test_no_forward():
    with pytest.raises(UsageError) as error:
        count(nn.ModuleList([nn.Linear(2, 2)]), torch.ones(1, 2))
    assert str(error.value) == (
        "count: got a ModuleList without a forward, expected a module that can be called.\n"
        "Give call=lambda module, x: ..., or use sims.counting.Counting around your own call."
    )
    load = count(nn.ModuleList([nn.Linear(2, 2)]), torch.ones(1, 2), call=lambda module, x: module[0](x))
    assert sum(row.count for row in load.operations) == 4


@pytest.mark.parametrize("inputs", ["text", 3, None, [], {"x": [1.0]}])
def test_no_tensor(inputs):
    with pytest.raises(UsageError) as error:
        count(nn.Linear(2, 2), inputs)
    assert str(error.value) == (
        f"count: got inputs of {type(inputs).__name__} without a tensor, expected a tensor, a tuple or a dict.\n"
        "Give what the module is called with."
    )


def test_an_unknown_unit():
    with pytest.raises(UsageError, match="count unit: got 'word', expected one of token, sample"):
        count(nn.Linear(2, 2), torch.ones(1, 2), unit="word")


def test_a_compiled_part():
    compiled = torch.compile(nn.Linear(2, 2), backend="eager")
    with pytest.raises(UsageError) as error:
        count(compiled, torch.ones(1, 2))
    assert str(error.value) == (
        "count: got 'OptimizedModule' compiled, expected plain modules.\n"
        "Count the module before torch.compile; a compiled graph hides its operators."
    )


def test_a_mask_without_values():
    class Masked(nn.Module):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return nn.functional.scaled_dot_product_attention(x, x, x, mask)

    with pytest.raises(NeuroError) as error:
        count(Masked(), (torch.empty(1, 1, 3, 2, device="meta"), torch.empty(3, 3, device="meta")))
    assert str(error.value) == (
        "count: got an attention mask without values in the model itself, "
        "expected is_causal or none on meta tensors.\n"
        "Count on real tensors, or say is_causal=True where the mask is that."
    )


def test_what_the_module_raises_comes_through():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        count(nn.Linear(2, 2), torch.ones(1, 3))


def test_samples_and_tokens():
    linear = nn.Linear(2, 2)
    assert count(linear, torch.ones(5, 3, 2)).tokens == 5
    assert count(linear, torch.ones(5, 3, 2), samples=3).tokens == 3
    ids = torch.zeros(2, 7, dtype=torch.int64)
    load = count(nn.Embedding(4, 3), ids, unit="token")
    assert (load.tokens, load.unit, load.phases[0].name) == (14, "token", "inference")
    assert count(linear, {"input": torch.ones(4, 2)}).tokens == 4


def test_energy_counts_without_torch_until_asked():
    load = sims.energy.count(nn.Linear(2, 3), torch.ones(1, 2))
    assert sum(row.count for row in load.operations) == 6
    code = "import sys, sims.energy; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
