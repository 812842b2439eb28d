"""The neurons beside snntorch, norse and spikingjelly: spike for spike, and what cannot be said.

A flip (a spike of one that the other does not have) may come from rounding, in at most 1 of 10^5 updates. Traces of norse and
spikingjelly are stored (benchmarks/make_neuron_fixtures.py); where norse itself is here it is also asked.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import re
import sys
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from backends import LifRule, Surrogate
from neuro.errors import UsageError
from neuro.extras import installed
from neuro.neurons import (
    ALIF,
    GIF,
    IF,
    LIF,
    PLIF,
    Neuron,
    SlidingParallel,
    Synaptic,
    interop,
)

ROOT = Path(__file__).resolve().parents[2]


def imported(package: str) -> Any:
    """An optional package, which may warn while it is imported; the test is skipped without it."""
    if not installed(package.split(".")[0]):
        pytest.skip(f"the package {package.split('.')[0]} is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(package)


def flips(a: Tensor, b: Tensor) -> int:
    assert a.shape == b.shape
    return int((a != b).sum())


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().nan_to_num(nan=torch.inf).max() / b.detach().abs().max())


# snntorch

T, B, N = 250, 8, 64
ARC = Surrogate("arctan", 2.0)


@pytest.fixture(scope="module")
def snn() -> Any:
    return imported("snntorch")


# name -> (snntorch -> its neuron, what it is here, the scale of its stimulus)
SAYABLE: dict[str, tuple[Callable[[Any], Any], type, LifRule, float]] = {
    "Leaky": (lambda s: s.Leaky(0.9), LIF, LifRule("soft", True, True, surrogate=ARC), 0.4),
    "Leaky zero": (
        lambda s: s.Leaky(0.9, reset_mechanism="zero", spike_grad=s.surrogate.fast_sigmoid(10)),
        LIF,
        LifRule("hard", False, True, surrogate=Surrogate(slope=10.0)),
        0.4,
    ),
    "Leaky zero at once": (
        lambda s: s.Leaky(0.9, reset_mechanism="zero", reset_delay=False),
        LIF,
        LifRule("hard", False, True, detach_reset=False, surrogate=ARC),
        0.4,
    ),
    "Leaky none": (
        lambda s: s.Leaky(0.8, reset_mechanism="none", spike_grad=s.surrogate.straight_through_estimator()),
        LIF,
        LifRule("none", False, True, surrogate=Surrogate("straight_through", 0.0)),
        0.4,
    ),
    "Leaky of many": (
        lambda s: s.Leaky(torch.linspace(0.2, 1.0, N), threshold=torch.linspace(0.5, 1.5, N), learn_threshold=True),
        LIF,
        LifRule("soft", True, True, surrogate=ARC),
        0.5,
    ),
    "Leaky learned": (
        lambda s: s.Leaky(torch.tensor(0.9), learn_beta=True),
        PLIF,
        LifRule("soft", True, True, surrogate=ARC),
        0.4,
    ),
    "Lapicque": (lambda s: s.Lapicque(beta=0.9), LIF, LifRule("soft", True, True, surrogate=ARC), 3.5),
    "Lapicque zero": (
        lambda s: s.Lapicque(R=1.0, C=10.0, reset_mechanism="zero"),
        LIF,
        LifRule("hard", True, True, surrogate=ARC),
        3.5,
    ),
    "Synaptic": (lambda s: s.Synaptic(0.8, 0.9), Synaptic, LifRule("soft", True, True, surrogate=ARC), 0.12),
    "Synaptic zero": (
        lambda s: s.Synaptic(0.8, 0.9, reset_mechanism="zero"),
        Synaptic,
        LifRule("hard", True, True, surrogate=ARC),
        0.12,
    ),
    "Synaptic zero at once": (
        lambda s: s.Synaptic(0.8, 0.9, reset_mechanism="zero", reset_delay=False),
        Synaptic,
        LifRule("hard", False, True, detach_reset=False, surrogate=ARC),
        0.12,
    ),
    "Synaptic none": (
        lambda s: s.Synaptic(0.5, 0.9, reset_mechanism="none"),
        Synaptic,
        LifRule("none", False, True, surrogate=ARC),
        0.1,
    ),
}


def drive(neuron: Any, x: Tensor) -> Tensor:
    """snntorch's loop over [T,B,N], from rest: without a state it would go on from its last call."""
    state, spikes = [torch.zeros_like(x[0])] * (1 + hasattr(neuron, "syn")), []
    for x_t in x.unbind(0):
        s, *state = neuron(x_t, *state)
        spikes.append(s)
    return torch.stack(spikes)


@pytest.mark.parametrize("name", SAYABLE)
def test_snntorch_is_said_spike_for_spike(name, snn, measured):
    make, kind, rule, scale = SAYABLE[name]
    peer = make(snn)
    ours = interop.from_snntorch(peer, N)
    assert type(ours) is kind and ours.rule == rule
    x = torch.randn(T, B, N, generator=torch.Generator().manual_seed(0)).mul_(scale).add_(0.05 * scale).requires_grad_()
    weighting = torch.randn(T, B, N, generator=torch.Generator().manual_seed(1))
    expected, (found, _) = drive(peer, x), ours.scan(x, ours.init_state(B))
    back = drive(interop.to_snntorch(ours), x)
    assert 0.01 <= float(expected.detach().mean()) <= 0.21
    for spikes in (found, back):
        assert flips(spikes, expected) <= 1e-5 * x.numel()
    measured("flips of 128,000", max(flips(found, expected), flips(back, expected)))
    gradients = [torch.autograd.grad((spikes * weighting).sum(), x)[0] for spikes in (expected, found, back)]
    assert max(relative(gradient, gradients[0]) for gradient in gradients[1:]) <= 1e-5
    measured("largest error of a gradient, over its largest value", relative(gradients[1], gradients[0]))


OURS: dict[str, Callable[[], Neuron]] = {
    "fires at the threshold": lambda: LIF(4, beta=0.75, rule=LifRule("hard")),
    "triangular": lambda: LIF(4, beta=0.75, rule=LifRule(delayed=True, surrogate=Surrogate("triangular", 0.5))),
    "window": lambda: LIF(4, beta=0.75, rule=LifRule("none", surrogate=Surrogate("straight_through", 2.0))),
    "IF": lambda: IF(4, rule=LifRule(delayed=True, strict=True), learn_threshold=True),
}


@pytest.mark.parametrize("name", OURS)
def test_ours_goes_to_snntorch_and_back(name, snn):
    """Stimuli of quarters, so that membranes reach the threshold exactly."""
    ours = OURS[name]()
    there = interop.to_snntorch(ours)
    here = interop.from_snntorch(there, 4)
    assert here.rule == ours.rule
    x = torch.randint(-1, 3, (60, 3, 4), generator=torch.Generator().manual_seed(0)).div(4).requires_grad_()
    expected, _ = ours.scan(x, ours.init_state(3))
    assert expected.any() and torch.equal(drive(there, x), expected)
    assert torch.equal(here.scan(x, here.init_state(3))[0], expected)
    one, two = (torch.autograd.grad(s.sum(), x)[0] for s in (expected, drive(there, x)))
    assert relative(two, one) <= 1e-6


def test_what_we_hand_out_is_not_kept_alive(snn):
    kept = len(snn.SpikingNeuron.instances)
    alive = [weakref.ref(interop.to_snntorch(LIF(2, 20.0, rule=LifRule("hard")))) for _ in range(1000)]
    gc.collect()
    assert len(snn.SpikingNeuron.instances) == kept and all(dead() is None for dead in alive)


def refused(what: str, do: str, call: Callable[..., Any], *args: Any) -> None:
    with pytest.raises(UsageError) as caught:
        call(*args)
    assert re.search(what, caught.value.what) and re.search(do, caught.value.do), str(caught.value)
    assert len(str(caught.value).split("\n")) == 2


@pytest.mark.parametrize(
    ("what", "do", "make"),
    [
        (
            r"Leaky\(init_hidden=True\), whose membranes live in the modules and are cleared through a list of every neuron",
            r"init_hidden=False: init_state makes the state",
            lambda s: s.Leaky(0.9, init_hidden=True),
        ),
        (
            r"got Sequential, whose membranes live in the modules.*expected init_hidden=False",
            "step and scan carry it",
            lambda s: nn.Sequential(nn.Linear(2, 2), s.Leaky(0.9, init_hidden=True)),
        ),
        (r"got Sequential, expected one neuron", "one by one", lambda s: nn.Sequential(nn.Linear(2, 2), s.Leaky(0.9))),
        (r"got ReLU, expected one neuron", "one by one", lambda s: nn.ReLU()),
        (r"got type, expected one neuron", "one by one", lambda s: s.Leaky),
        (r"got NoneType, expected one neuron", "one by one", lambda s: None),
        (
            r"got RLeaky, expected Leaky.*a layer of their own",
            "docs/neurons.md",
            lambda s: s.RLeaky(0.9, linear_features=4),
        ),
        (r"got Alpha, expected Leaky, .*another model", "neuro.neurons", lambda s: s.Alpha(0.9, 0.8)),
        (
            r"subtract' and reset_delay=False, which raises the threshold after a spike that leaves the membrane above it",
            r"reset_delay=True, or here LifRule",
            lambda s: s.Leaky(0.9, reset_delay=False),
        ),
        (r"with graded_spikes_factor other than 1", "Leave it out", lambda s: s.Leaky(0.9, graded_spikes_factor=2.0)),
        (r"with surrogate_disable=True", "Leave it out", lambda s: s.Leaky(0.9, surrogate_disable=True)),
        (r"with state_quant, expected none", "Leave it out", lambda s: s.Leaky(0.9, state_quant=lambda mem: mem)),
        (
            r"got the surrogate 'triangular', expected atan, fast_sigmoid or straight_through_estimator",
            "one sign on each side",
            lambda s: s.Leaky(0.9, spike_grad=s.surrogate.triangular()),
        ),
        (r"threshold of 0 or less", "Shift", lambda s: s.Leaky(0.9, threshold=-1.0, reset_mechanism="zero")),
        (r"Lapicque with R other than 1", "Scale its input by R", lambda s: s.Lapicque(R=2.0, C=10.0)),
        (
            r"Synaptic with a learned decay",
            "Leave learn_",
            lambda s: s.Synaptic(0.8, torch.tensor(0.9), learn_beta=True),
        ),
    ],
)
def test_what_snntorch_says_and_ours_cannot_is_refused(what, do, make, snn):
    refused(rf"^from_snntorch: .*{what}", do, interop.from_snntorch, make(snn), 4)


@pytest.mark.parametrize(
    ("what", "do", "neuron"),
    [
        (r"got ALIF, expected IF, LIF, PLIF or Synaptic", "no other", ALIF(2, 20.0)),
        (r"got ReLU, expected IF, LIF, PLIF or Synaptic", "no other", nn.ReLU()),
        (r"LIF with a soft reset, at once, detached", r'LifRule\("soft", delayed=True\)', LIF(2, 20.0)),
        (r"IF with a hard reset, delayed, detached", r'LifRule\("hard"\)', IF(2, rule=LifRule("hard", delayed=True))),
        (
            r"Synaptic with a hard reset, at once, detached",
            r'LifRule\("hard", delayed=True\)',
            Synaptic(2, 5.0, 20.0, rule=LifRule("hard")),
        ),
        (r"got v_reset 0.5, expected 0", "from the reset", LIF(2, 20.0, rule=LifRule("hard", v_reset=0.5))),
        (
            r"Synaptic with decay_input",
            "Scale the input",
            Synaptic(2, 5.0, 20.0, rule=LifRule(delayed=True), decay_input=True),
        ),
        (
            r"decay_input with many, learned or no decay",
            "Scale the input",
            PLIF(2, 20.0, rule=LifRule(delayed=True), decay_input=True),
        ),
    ],
)
def test_what_ours_say_and_snntorch_cannot_is_refused(what, do, neuron, snn):
    refused(rf"^to_snntorch: .*{what}", do, interop.to_snntorch, neuron)


# norse and spikingjelly: stored traces


@pytest.fixture(scope="module")
def traces() -> ModuleType:
    """The script that made them, for its stimulus."""
    spec = importlib.util.spec_from_file_location("traces", ROOT / "benchmarks" / "make_neuron_fixtures.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["traces"] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


SLOW = Surrogate("fast_sigmoid", 1.0)  # norse's SuperSpike ignores its alpha
SHARP = LifRule("hard", strict=True, detach_reset=False, surrogate=SLOW)
TRACES: dict[str, Callable[[], Any]] = {
    "norse.LIFBoxCell": lambda: LIF(64, 10.0, rule=SHARP, decay_input=True),
    "norse.LIFBoxCell.subtract": lambda: LIF(
        64,
        10.0,
        threshold=0.75,
        decay_input=True,
        rule=LifRule("soft", strict=True, detach_reset=False, surrogate=SLOW),
    ),
    "norse.LIFCell": lambda: Synaptic(
        64,
        5.0,
        20.0,
        decay_input=True,
        rule=LifRule("hard", strict=True, v_reset=-0.25, detach_reset=False, surrogate=SLOW),
    ),
    "norse.IAFCell": lambda: IF(
        64, rule=LifRule("hard", strict=True, detach_reset=False, surrogate=Surrogate("triangular", 1.0))
    ),
    "spikingjelly.IFNode": lambda: IF(64, rule=LifRule("hard", detach_reset=False, surrogate=ARC)),
    "spikingjelly.IFNode.soft": lambda: IF(64, rule=LifRule(surrogate=ARC)),
    "spikingjelly.LIFNode": lambda: LIF(
        64, 5.0, decay_input=True, rule=LifRule("hard", detach_reset=False, surrogate=ARC)
    ),
    "spikingjelly.LIFNode.soft": lambda: LIF(64, 10.0, rule=LifRule(detach_reset=False, surrogate=ARC)),
    "spikingjelly.ParametricLIFNode": lambda: PLIF(64, 4.0, rule=LifRule("hard", surrogate=ARC)),
    "spikingjelly.SlidingPSN": lambda: SlidingParallel(64, 4, surrogate=ARC),
}


@pytest.mark.parametrize("name", TRACES)
def test_stored_traces_are_reproduced(name, traces, measured):
    assert set(TRACES) == set(traces.CASES)
    case, neuron = traces.CASES[name], TRACES[name]()
    with np.load(ROOT / "tests" / "fixtures" / "neuron_traces.npz", allow_pickle=False) as stored:
        expected = torch.from_numpy(np.unpackbits(stored[f"{name}.spikes"])).float()
        gradient = torch.from_numpy(stored[f"{name}.grad"])
    x = traces.stimulus(case).requires_grad_()
    spikes, _ = neuron.scan(x, neuron.init_state(traces.BATCH))
    different = flips(spikes, expected.reshape(x.shape))
    assert different <= 1e-5 * x.numel()
    measured("flips of 102,400", different)
    (found,) = torch.autograd.grad((spikes * traces.weighting()).sum(), x)
    assert relative(found[:, 0, : traces.SHOWN], gradient) <= 1e-5


@pytest.mark.parametrize("name", [name for name in TRACES if name.startswith("norse")])
def test_norse_itself_goes_here_and_back(name, traces):
    imported("norse.torch")
    cell = traces.CASES[name].make()
    ours = interop.from_norse(cell, 64)
    assert ours.rule == TRACES[name]().rule and ours.dt_ms == 1.0
    back = interop.to_norse(ours)
    assert type(back) is type(cell)
    x = traces.stimulus(traces.CASES[name])
    with torch.no_grad():
        expected, again = (norse_loop(one, x) for one in (cell, back))
        found, _ = ours.scan(x, ours.init_state(traces.BATCH))
    assert flips(found, expected) <= 1e-5 * x.numel() and flips(again, expected) <= 1e-5 * x.numel()


def norse_loop(cell: Any, x: Tensor) -> Tensor:
    state, spikes = None, []
    for x_t in x.unbind(0):
        s, state = cell(x_t, state)
        spikes.append(s)
    return torch.stack(spikes)


BOX = {"decay_input": True, "rule": SHARP}


@pytest.mark.parametrize(
    ("what", "do", "make"),
    [
        (r"got LSNNCell, expected LIFBoxCell, LIFCell", "Recurrent", lambda n: n.LSNNCell()),
        (
            r"got v_leak other than 0",
            "Measure v_th",
            lambda n: n.LIFBoxCell(n.LIFBoxParameters(v_leak=torch.tensor(0.5))),
        ),
        (
            r"got method 'tanh', expected super or triangle",
            "Choose",
            lambda n: n.IAFCell(n.IAFParameters(method="tanh")),
        ),
        (
            r"got method 'triangle' with alpha 100, expected 1",
            "Set alpha",
            lambda n: n.IAFCell(n.IAFParameters(method="triangle")),
        ),
        (r"got tau_mem_inv 100.0 with dt 0.1, expected a step", "in seconds", lambda n: n.LIFBoxCell(dt=0.1)),
    ],
)
def test_what_norse_says_and_ours_cannot_is_refused(what, do, make):
    refused(rf"^from_norse: .*{what}", do, interop.from_norse, make(imported("norse.torch")), 4)


@pytest.mark.parametrize(
    ("what", "do", "neuron"),
    [
        (r"got GIF, expected IF, LIF or Synaptic", "no other", GIF(2, 20.0)),
        (r"LIF with a threshold that fires at it", "strict=True", LIF(2, 20.0, decay_input=True)),
        (r"LIF with a current that jumps by itself", "decay_input=True", LIF(2, 20.0, rule=SHARP)),
        (r"LIF with a learned threshold", "learn_threshold", LIF(2, 20.0, learn_threshold=True, **BOX)),
        (
            r"LIF with the surrogate arctan of slope 2",
            "norse has",
            LIF(2, 20.0, decay_input=True, rule=LifRule("hard", strict=True, detach_reset=False, surrogate=ARC)),
        ),
        (
            r"IF with a soft reset",
            'reset="hard"',
            IF(2, rule=LifRule("soft", strict=True, detach_reset=False, surrogate=SLOW)),
        ),
    ],
)
def test_what_ours_say_and_norse_cannot_is_refused(what, do, neuron):
    imported("norse.torch")
    refused(rf"^to_norse: .*{what}", do, interop.to_norse, neuron)
