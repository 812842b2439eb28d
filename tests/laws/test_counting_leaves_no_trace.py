"""Law: counting changes nothing: not what comes out, not the module, not the random numbers; and when off it is not there."""

from __future__ import annotations

import copy
import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

import backends
from backends.kernels import cpu, cuda
from neuro import presets
from neuro.brain import Brain
from neuro.errors import NeuroError
from neuro.layers.spiking_linear import SpikingLinear
from neuro.neurons import LIF
from neuro.state import leaves
from sims.counting import Counting, count


class Kept(nn.Module):
    """Hands its module's output out, so that a test sees what happened inside a count."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.out = module, []

    def forward(self, *args: Any) -> Any:
        out = self.module(*args)
        KEPT.append(out)
        return out


KEPT: list[Any] = []


def snn() -> nn.Module:
    snntorch = pytest.importorskip("snntorch")
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), snntorch.Leaky(0.9, init_hidden=True), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5),
        snntorch.Synaptic(0.8, 0.9, init_hidden=True, output=True),
    )  # fmt: skip


MODELS = {
    "attention": (lambda: nn.TransformerEncoderLayer(16, 2, 24, batch_first=True).eval(), (2, 5, 16)),
    "dropout": (lambda: nn.TransformerEncoderLayer(16, 2, 24, batch_first=True), (2, 5, 16)),
    "recurrent": (lambda: nn.LSTM(6, 7, 2), (4, 2, 6)),
    "normalised": (lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()), (3, 2, 6, 6)),
    "spiking": (snn, (2, 1, 8, 8)),
}


def everything(module: nn.Module) -> dict[str, Any]:
    """What hangs on a module and below it, by identity."""
    found: dict[str, Any] = {}
    for path, part in module.named_modules():
        for name, value in vars(part).items():
            found[f"{path}:{name}"] = value
            if isinstance(value, dict):
                found |= {f"{path}:{name}:{key}": inner for key, inner in value.items()}
    return found


def flat(out: Any) -> list[Tensor]:
    return [out] if isinstance(out, Tensor) else [x for part in out for x in flat(part)]


@pytest.mark.parametrize("name", MODELS)
def test_outputs_are_the_same_bits_and_the_module_is_as_before(name):
    make, shape = MODELS[name]
    torch.manual_seed(1)
    module, x = Kept(make()), torch.randn(shape)
    twin = copy.deepcopy(module)
    before, values = everything(module), {k: v.clone() for k, v in module.state_dict().items()}
    state = torch.get_rng_state()
    KEPT.clear()
    count(module, x, samples=1)
    assert torch.equal(torch.get_rng_state(), state)
    after = everything(module)
    assert after.keys() == before.keys()
    assert all(after[key] is before[key] for key in before)
    assert all(torch.equal(value, values[key]) for key, value in module.state_dict().items())
    with torch.no_grad():
        twin(x)
    counted, plain = map(flat, KEPT)
    assert len(counted) == len(plain) > 0
    assert all(torch.equal(a, b) for a, b in zip(counted, plain, strict=True))


def test_a_brain_runs_the_same_bits():
    torch.manual_seed(3)
    brain = Brain(presets.tiny().brain, backends.select("cpu")).eval()
    ids = torch.randint(0, brain.config.vocab_size, (2, 12))
    with torch.no_grad():
        plain = brain.commit(brain.scan(ids, brain.init_state(2)).state)
        with Counting(brain):
            counted = brain.commit(brain.scan(ids, brain.init_state(2)).state)
    for (name, a), (_, b) in zip(leaves(plain[0]), leaves(counted[0]), strict=True):
        assert torch.equal(a, b), name


def test_our_kernels_run_while_they_are_counted():
    layer = SpikingLinear(64, LIF(32, beta=0.9))
    x = (torch.rand(5, 2, 64) < 0.1).float()
    plain = layer.scan(x, layer.init_state(2))[0]
    with Counting(layer):
        counted = layer.scan(x, layer.init_state(2))[0]
    assert torch.equal(plain, counted)


class Fails(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.ops = nn.Linear(3, 3), backends.select("cpu").ops
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.linear(x)
        raise ZeroDivisionError


def test_nothing_is_left_after_an_error():
    module = Fails()
    before, kernel, ops = everything(module), cpu.product, module.ops
    with pytest.raises(ZeroDivisionError):
        count(module, torch.ones(1, 3))
    assert everything(module).keys() == before.keys()
    assert (module.ops is ops, cpu.product is kernel) == (True, True)
    assert "forward" not in vars(module.linear)
    assert module.calls == 0
    assert torch.is_grad_enabled()
    assert (_get_current_dispatch_mode_stack(), _get_current_function_mode_stack()) == ([], [])
    assert (module.linear(torch.ones(1, 3)) ** 2).sum().requires_grad


@pytest.mark.parametrize("training", [True, False])
def test_when_off_nothing_is_in_the_way(training):
    module = nn.Sequential(nn.Linear(3, 3), nn.LSTM(3, 3)).train(training)
    before = everything(module)
    count(module, torch.ones(2, 3))
    assert everything(module) == before
    for part in module.modules():
        assert not part._forward_hooks and not part._forward_pre_hooks
        assert "forward" not in vars(part)


def test_the_counter_keeps_no_activation_alive():
    class Watched(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            alive = []
            for _ in range(20):
                x = torch.tanh(x * 2.0)
                alive.append(weakref.ref(x))
            FOUND.append(sum(ref() is not None for ref in alive))
            return x

    count(Watched(), torch.ones(4))
    gc.collect()
    assert FOUND == [1]


FOUND: list[int] = []


def test_tags_go_with_their_tensors():
    snntorch = pytest.importorskip("snntorch")

    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.leaky = nn.Linear(4, 4), snntorch.Leaky(0.9)

        def forward(self, x: Tensor) -> Tensor:
            mem = self.leaky.init_leaky()
            for _ in range(50):
                spikes, mem = self.leaky(self.linear(x), mem)
                SIZES.append(len(counting.tags))
            return spikes

    module = Steps()
    with Counting(module) as counting:
        module(torch.ones(2, 4))
    assert max(SIZES[2:]) == min(SIZES[2:]) < 12


SIZES: list[int] = []


@pytest.mark.parametrize("where", ["cpu", "cuda"])
def test_a_kernel_called_past_the_operators_is_never_lost(where, monkeypatch):
    class Past(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return backends.native.affine_scan(x, x, x[0])

    if where == "cuda":  # as if the tensors lay there
        monkeypatch.setattr(cpu, "runs", lambda *x: False)
        monkeypatch.setattr(cuda, "runs", lambda *x: True)
        monkeypatch.setattr(cuda, "affine_scan", lambda a, b, h0: b)
    elif not cpu.status()[0]:
        pytest.skip("the kernels were not built")
    with pytest.raises(NeuroError, match="by way of a module's operators"):
        count(Past(), torch.ones(3, 1, 2))
    assert backends.native.affine_scan(torch.ones(3, 1, 2), torch.ones(3, 1, 2), torch.ones(1, 2)).shape == (3, 1, 2)
