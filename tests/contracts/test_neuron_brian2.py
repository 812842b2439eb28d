"""The neurons beside Brian2, which integrates the equations we print: spike for spike in float64."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from backends import LifRule
from neuro.errors import UsageError
from neuro.neurons import ALIF, GIF, IF, LIF, PLIF, AdEx, Izhikevich, Neuron, Parallel, SlidingParallel, Synaptic
from neuro.neurons.equations import brian2_equations

MANY = torch.linspace(5.0, 30.0, 20, dtype=torch.float64)
EQUATIONS: dict[str, tuple[Callable[[], Neuron], float, float]] = {
    "IF": (lambda: IF(20, learn_threshold=True), 0.2, 0.1),
    "LIF": (lambda: LIF(20, 20.0), 0.3, 0.02),
    "LIF hard": (lambda: LIF(20, MANY, threshold=1 + MANY / 100, rule=LifRule("hard", v_reset=-0.1)), 0.3, 0.02),
    "LIF without reset": (lambda: LIF(20, 5.0, rule=LifRule("none")), 0.3, 0.02),
    "LIF soft, one step late": (lambda: LIF(20, 20.0, rule=LifRule("soft", delayed=True, strict=True)), 0.3, 0.02),
    "LIF hard, one step late": (
        lambda: LIF(20, MANY, rule=LifRule("hard", delayed=True, v_reset=-0.2), decay_input=True),
        6.0,
        0.5,
    ),
    "PLIF": (lambda: PLIF(20, 20.0), 0.3, 0.02),
    "Synaptic": (lambda: Synaptic(20, 5.0, 20.0), 0.1, 0.0),
    "Synaptic, decayed input": (lambda: Synaptic(20, MANY / 2, 20.0, decay_input=True), 1.5, 0.1),
    "ALIF": (lambda: ALIF(20, 20.0, 100.0), 0.3, 0.1),
    "GIF": (lambda: GIF(20, 10.0, levels=3), 0.6, 0.0),
    "GIF strict": (lambda: GIF(20, 10.0, levels=3, rule=LifRule(strict=True)), 0.6, 0.0),
    "Izhikevich": (lambda: Izhikevich(20), 5.0, 20.0),
    "AdEx": (lambda: AdEx(20), 300.0, 1500.0),
    "Parallel": (lambda: Parallel(20, 5.0), 0.3, 0.05),
}


@pytest.fixture(scope="module")
def brian2() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # while it is imported
        found = pytest.importorskip("brian2")
    found.prefs.codegen.target = "numpy"
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Brian2 2.9 through sympy and pyparsing
@pytest.mark.parametrize("name", EQUATIONS)
def test_brian2_runs_our_equations_spike_for_spike(name, brian2, measured):
    make, scale, offset = EQUATIONS[name]
    neuron = make().double()
    steps = 400
    x = torch.randn(steps, 1, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * scale + offset
    with torch.no_grad():
        start = neuron.init_state(1, dtype=torch.float64)
        expected, _ = neuron.scan(x, start)
    dt = neuron.dt_ms * brian2.ms
    equations = brian2_equations(neuron)
    group = brian2.NeuronGroup(
        20,
        equations.model,
        threshold=equations.threshold,
        reset=equations.reset,
        method=equations.method,
        dt=dt,
        namespace={"current": brian2.TimedArray(x[:, 0].numpy(), dt=dt)},
    )
    for constant, values in equations.values.items():
        setattr(group, constant, values)
    for variable, value in start._asdict().items():
        setattr(group, {"i": "g", "h": "v"}.get(variable, variable), value[0].numpy())
    counted = isinstance(neuron, GIF)
    monitor = brian2.SpikeMonitor(group, variables=["n"] if counted else None)
    brian2.Network(group, monitor).run(steps * dt)
    found = torch.zeros(steps, 20, dtype=torch.float64)
    when = torch.from_numpy(np.round(np.asarray(monitor.t / dt)).astype(np.int64))
    found[when, torch.from_numpy(np.asarray(monitor.i)).long()] = (
        torch.from_numpy(np.asarray(monitor.n)) if counted else torch.ones(len(when), dtype=torch.float64)
    )
    assert 0.005 <= float((expected > 0).double().mean()) <= 0.25
    flips = int((found != expected[:, 0]).sum())
    assert flips == 0
    measured("flips of 8,000", flips)


def test_a_window_has_no_differential_equation():
    said = "^brian2_equations: got SlidingParallel, expected a neuron with a state of one step.*\n.*convolution"
    with pytest.raises(UsageError, match=said):
        brian2_equations(SlidingParallel(2))


def test_equations_need_no_brian2_and_name_their_constants():
    found = brian2_equations(LIF(2, [10.0, 20.0]), current="drive")
    assert found.model == "I = drive : 1\ndecay : 1 (constant)\ntheta = 1.0 : 1\ndv/dt = (decay*v + I - v)/dt : 1"
    assert found[1:4] == ("v >= theta", "v -= theta", "euler")
    assert found.values == {"decay": pytest.approx([0.9, 0.95])}
