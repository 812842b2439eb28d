"""The van Rossum distance against its closed form, and a spike train that is learned."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

import backends
from neuro.errors import FormatError, UsageError
from neuro.train import spike_regression
from neuro.train.spike_regression import RegressionConfig, van_rossum

CPU = backends.select("cpu")


def train(*times: int, steps: int = 4000) -> torch.Tensor:
    spikes = torch.zeros(steps, 1, 1, dtype=torch.float64)
    spikes[list(times)] = 1
    return spikes


def test_the_distance_is_that_of_the_closed_form():
    # Two lone spikes d apart: 1 - exp(-d / tau) (van Rossum 2001, eq. 3), one against none 1 / 2; in steps of dt -> 0.
    for apart in (1, 40, 200, 3000):
        got = van_rossum(train(10), train(10 + apart), 20.0, 0.1, CPU.ops).item()
        assert got == pytest.approx(1 - math.exp(-apart * 0.1 / 20.0), abs=0.01)
    assert van_rossum(train(10), train(), 20.0, 0.1, CPU.ops).item() == pytest.approx(0.5, abs=0.01)
    assert van_rossum(train(10, 30), train(10, 30), 20.0, 0.1, CPU.ops).item() == 0.0


def test_the_distance_sums_over_neurons_and_averages_over_the_batch():
    a, b = torch.zeros(50, 2, 3), torch.zeros(50, 2, 3)
    a[5, 0, 1] = a[9, 0, 2] = 1
    each = [van_rossum(a[:, :1, n : n + 1], b[:, :1, n : n + 1], 5.0, 1.0, CPU.ops).item() for n in (1, 2)]
    assert van_rossum(a, b, 5.0, 1.0, CPU.ops).item() == pytest.approx(sum(each) / 2)


def test_an_answer_is_learned_and_kept(tmp_path):
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(60, 1, 20, generator=generator) < 0.1).float()
    target = (torch.rand(60, 1, 4, generator=generator) < 0.15).float()
    config = RegressionConfig(hidden=40, steps=150, learning_rate=1e-2)
    told: list[float] = []
    model = spike_regression.fit(x, target, config, CPU, lambda record: told.append(record["distance"]))
    with torch.no_grad():
        out, hidden = model(x)
    last = van_rossum(out, target, 10.0, 1.0, CPU.ops).item()
    assert last < 0.5 * told[0] and last < 0.5 * van_rossum(0 * out, target, 10.0, 1.0, CPU.ops).item()
    assert hidden.shape == (60, 1, 40) and set(out.unique().tolist()) == {0.0, 1.0}
    path = tmp_path / "map.safetensors"
    spike_regression.save(path, model, config)
    loaded, again = spike_regression.load(path, CPU)
    assert again == config and torch.equal(loaded(x)[0], out)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(FormatError, match="not a whole safetensors file"):
        spike_regression.load(path, CPU)


def test_every_setting_changes_what_is_learned():
    x, target = train(3, 20, 40, steps=60).float(), train(5, 22, 41, steps=60).float()
    base = RegressionConfig(hidden=6, steps=4, slope=2.0)

    def learned(**options) -> dict[str, torch.Tensor]:
        return spike_regression.fit(x, target, dataclasses.replace(base, **options), CPU).state_dict()

    first = learned()
    changes = [{"tau_mem_ms": 5.0}, {"tau_distance_ms": 3.0}, {"dt_ms": 2.0}, {"slope": 9.0}, {"steps": 5}]
    for options in [*changes, {"learning_rate": 1e-2}, {"seed": 1}, {"hidden": 7}]:
        found = learned(**options)
        assert any(not torch.equal(a, b) for a, b in zip(first.values(), found.values(), strict=True)), options


def test_trains_that_cannot_be_compared_are_named():
    with pytest.raises(UsageError, match=r"got \[5, 1, 1\] and \[6, 1, 1\] with tau 10.0 ms .*\nBin both trains alike"):
        van_rossum(torch.zeros(5, 1, 1), torch.zeros(6, 1, 1), 10.0, 1.0, CPU.ops)
    with pytest.raises(UsageError, match="expected equal shapes and a tau of at least a step"):
        van_rossum(torch.zeros(5, 1, 1), torch.zeros(5, 1, 1), 0.5, 1.0, CPU.ops)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"hidden": 0}, "0 hidden neurons and -?[0-9]+ steps"),
        ({"steps": -1}, "256 hidden neurons and -1 steps"),
        ({"learning_rate": 0.0}, "learning_rate 0.0"),
        ({"slope": -1.0}, "slope -1.0"),
        ({"dt_ms": 0.0}, "dt_ms 0.0"),
        ({"dt_ms": -1.0}, "dt_ms -1.0"),
        ({"tau_mem_ms": -2.0}, "tau_mem_ms -2.0 with a step of 1.0 ms"),
        ({"tau_mem_ms": 0.5}, "tau_mem_ms 0.5 with a step of 1.0 ms"),
        ({"tau_distance_ms": 0.5}, "tau_distance_ms 0.5 with a step of 1.0 ms"),
    ],
)
def test_settings_that_cannot_be_are_named(options, what):
    with pytest.raises(UsageError, match=f"oxford: got {what}"):
        RegressionConfig(**options)
