"""The modules of the neurons: constants, their aliases, state, and what is refused, by its text."""

from __future__ import annotations

import copy
import dataclasses
import math
import re

import pytest
import torch

from backends import LifRule, Surrogate, portable
from neuro.errors import UsageError
from neuro.neurons import (
    ALIF,
    GIF,
    IF,
    LIF,
    PLIF,
    AdEx,
    Izhikevich,
    Parallel,
    SlidingParallel,
    Synaptic,
    integrate_and_fire,
    lif,
)
from neuro.state import LifState


def refused(what: str, do: str, call, *args, **options) -> None:
    with pytest.raises(UsageError) as caught:
        call(*args, **options)
    assert re.search(what, caught.value.what) and re.search(do, caught.value.do), str(caught.value)
    assert len(str(caught.value).split("\n")) == 2


def test_a_time_constant_is_a_decay_and_beta_is_its_alias():
    assert LIF(2, 20.0, dt_ms=0.5).decay == 1 - 0.5 / 20
    assert LIF(2, beta=0.9).decay == 0.9 and LIF(2, beta=0.9).tau_mem_ms == pytest.approx(10.0)
    assert LIF(2, 1.0).decay == 0.0 and LIF(2, beta=1.0).tau_mem_ms == math.inf
    assert LIF(2, [10.0, 20.0]).decay.tolist() == pytest.approx([0.9, 0.95])
    assert LIF(2, torch.tensor([10.0, 20.0], dtype=torch.float64)).decay.dtype == torch.float64
    assert Synaptic(2, 5.0, 20.0).alpha == 0.8 and ALIF(2, 20.0, 100.0).rho == 0.99
    assert PLIF(2, 20.0).decay.tolist() == pytest.approx([0.95, 0.95])
    assert PLIF(2, [10.0, 20.0]).decay.tolist() == pytest.approx([0.9, 0.95])


def test_what_is_learned_is_a_parameter_and_the_rest_is_not():
    def names(neuron: torch.nn.Module) -> dict[str, list[int]]:
        return {name: list(p.shape) for name, p in neuron.named_parameters()}

    assert names(LIF(3, 20.0)) == {} and names(LIF(3, 20.0, learn_threshold=True)) == {"threshold": [1]}
    assert names(PLIF(3, 20.0)) == {"w": [1]} and names(PLIF(3, [5.0, 6.0, 7.0])) == {"w": [3]}
    assert names(SlidingParallel(3, 4)) == {"weights": [1, 4]} and names(Parallel(3, 20.0)) == {"w": [1]}
    assert list(LIF(3, [5.0, 6.0, 7.0]).state_dict()) == ["decay"]


def test_a_layer_is_copied_and_loaded_whole():
    x = torch.rand(20, 2, 3)
    one, other = (
        PLIF(3, [5.0, 6.0, 7.0], threshold=[0.5, 1.0, 1.5]),
        PLIF(3, [9.0, 9.0, 9.0], threshold=[1.0, 2.0, 3.0]),
    )
    other.load_state_dict(one.state_dict())
    for twin in (other, copy.deepcopy(one)):
        assert torch.equal(twin.scan(x, twin.init_state(2))[0], one.scan(x, one.init_state(2))[0])


def test_resting_states():
    assert LIF(3, 20.0).init_state(2, dtype=torch.float64).v.dtype == torch.float64
    rest = Izhikevich(3).init_state(2)
    assert rest.v.unique().tolist() == [-65.0] and rest.w.unique().tolist() == [-13.0]
    assert AdEx(3).init_state(2).v.unique().tolist() == pytest.approx([-70.6])
    assert SlidingParallel(3, 4).init_state(2).recent.shape == (2, 3, 3)


@pytest.mark.parametrize("neuron", [Izhikevich(3), AdEx(3), LIF(3, 20.0), ALIF(3, 20.0), SlidingParallel(3)])
def test_nothing_fires_at_rest(neuron):
    spikes, _ = neuron.scan(torch.zeros(200, 1, 3), neuron.init_state(1))
    assert not spikes.any()


@pytest.mark.parametrize("current", [0.0, 0.125, 0.25, 0.75, 1.0])
def test_integrate_and_fire_counts(current):
    """Powers of two: no rounding."""
    neuron = IF(1)
    spikes, _ = neuron.scan(torch.full((64, 1, 1), current), neuron.init_state(1))
    assert int(spikes.sum()) == math.floor(64 * current)


def test_one_level_is_a_binary_neuron():
    x = torch.rand(50, 2, 4)
    multi, binary = GIF(4, 10.0, levels=1), LIF(4, 10.0)
    assert torch.equal(multi.scan(x, multi.init_state(2))[0], binary.scan(x, binary.init_state(2))[0])


def test_counts_carry_a_strong_current_that_bits_cannot():
    x = torch.full((40, 1, 1), 2.5)
    multi, binary = GIF(1, beta=1.0, levels=3), IF(1)
    assert multi.scan(x, multi.init_state(1))[0].sum() == 100 and binary.scan(x, binary.init_state(1))[0].sum() == 40


def test_adaptation_slows_down():
    neuron = ALIF(1, 20.0, 200.0, strength=0.5)
    when = neuron.scan(torch.full((400, 1, 1), 0.15), neuron.init_state(1))[0].flatten().nonzero().flatten()
    gaps = when.diff()
    assert len(gaps) >= 3 and gaps[-1] > 2 * gaps[0]


def test_izhikevich_fires_as_in_his_figure():
    """Regular spiking slows down, fast spiking does not and is faster (10 pA from the start, one second)."""

    def intervals(**constants: float) -> torch.Tensor:
        neuron = Izhikevich(1, **constants)
        spikes, _ = neuron.scan(torch.full((2000, 1, 1), 10.0), neuron.init_state(1))
        return spikes.flatten().nonzero().flatten().diff() * neuron.dt_ms

    regular, fast = intervals(), intervals(a=0.1, d=2.0)
    assert regular[-1] > 1.2 * regular[0] and fast[-1] < 0.7 * regular[-1]


def test_adex_adapts_with_the_constants_of_the_paper():
    neuron = AdEx(1)
    spikes, state = neuron.scan(torch.full((5000, 1, 1), 1000.0), neuron.init_state(1))
    gaps = spikes.flatten().nonzero().flatten().diff()
    assert len(gaps) >= 3 and gaps[-1] > gaps[0] and float(state.w) > 80.5


def test_the_operators_that_were_given_run():
    ran = []

    def watched(*args):
        ran.append(1)
        return portable.lif_scan(*args)

    ops = dataclasses.replace(portable.OPS, lif_scan=watched)
    neuron = LIF(2, 20.0, ops=ops)
    neuron.step(torch.rand(1, 2), neuron.init_state(1))
    assert ran == [1]


def test_the_functions_are_the_modules():
    x, state = torch.rand(9, 2, 3), LifState(torch.zeros(2, 3))
    assert torch.equal(lif.scan(x, state, 0.95)[0], LIF(3, 20.0).scan(x, state)[0])
    assert torch.equal(lif.step(x[0], state, 0.95)[0], LIF(3, 20.0).step(x[0], state)[0])
    assert torch.equal(integrate_and_fire.step(x[0], state)[1].v, IF(3).step(x[0], state)[1].v)


@pytest.mark.skipif(torch.__version__ < "2.6", reason="an older torch cannot trace it")
def test_a_graph_is_captured_whole():
    """torch.export meets no question about data on the way."""
    neuron = ALIF(3, 20.0)

    class Step(torch.nn.Module):
        def forward(self, x, v, a):
            spikes, state = neuron.step(x, type(neuron.init_state(1))(v, a))
            return spikes, *state

    given = (torch.rand(2, 3), torch.zeros(2, 3), torch.zeros(2, 3))
    captured = torch.export.export(Step(), given).module()
    assert all(torch.equal(a, b) for a, b in zip(captured(*given), Step()(*given), strict=True))


@pytest.mark.parametrize(
    ("what", "do", "make"),
    [
        (r"LIF: got 0 neurons, expected a whole number of at least 1", "width", lambda: LIF(0, 20.0)),
        (r"LIF dt_ms: got -1.0, expected more than 0", "milliseconds", lambda: LIF(1, 20.0, dt_ms=-1.0)),
        (r"LIF tau_mem_ms and beta: got neither, expected one of them", "1 - dt_ms / tau", lambda: LIF(1)),
        (r"LIF tau_mem_ms and beta: got both, expected one of them", "beta is", lambda: LIF(1, 20.0, beta=0.9)),
        (r"Synaptic tau_syn_ms and alpha: got neither", "alpha is", lambda: Synaptic(1, None, 20.0)),
        (r"LIF tau_mem_ms: got -5, expected more than 0", "in milliseconds", lambda: LIF(1, -5.0)),
        (r"PLIF tau_mem_ms: got -5, expected more than 0", "in milliseconds", lambda: PLIF(2, [-5.0, 3.0])),
        (r"LIF tau_mem_ms: got 0.5 with a step of 1 ms, expected a step no", "smaller dt_ms", lambda: LIF(1, 0.5)),
        (r"ALIF tau_adapt_ms: got 0.5 with a step of 1 ms", "overshoot", lambda: ALIF(1, 20.0, 0.5)),
        (r"LIF beta: got 1.5, expected 0 to 1", "a step leaves", lambda: LIF(1, beta=1.5)),
        (
            r"LIF tau_mem_ms: got shape \[3\], expected one number or \[2\]",
            "per neuron",
            lambda: LIF(2, [1.0, 2.0, 3.0]),
        ),
        (r"LIF tau_mem_ms: got nan, expected a finite", "Correct", lambda: LIF(1, math.nan)),
        (
            r"LIF threshold: got \[1.0, inf\], expected finite",
            "Correct",
            lambda: LIF(2, 9.0, threshold=[1.0, math.inf]),
        ),
        (r"PLIF: got a decay of \[0.0\], expected more than 0", "above dt_ms", lambda: PLIF(1, 1.0)),
        (r"ALIF rule: got a delayed reset", "Leave delayed out", lambda: ALIF(1, 9.0, rule=LifRule(delayed=True))),
        (r"GIF levels: got 0, expected at least 1", "binary", lambda: GIF(1, 9.0, levels=0)),
        (r"GIF rule: got a hard reset, expected a soft", "takes off", lambda: GIF(1, 9.0, rule=LifRule("hard"))),
        (r"GIF rule: got a delayed soft reset", "takes off", lambda: GIF(1, 9.0, rule=LifRule(delayed=True))),
        (r"AdEx: got 'tau_ms', expected one of capacitance_pf, ", "Correct the name", lambda: AdEx(1, tau_ms=3.0)),
        (r"AdEx tau_w_ms: got 0.05, expected at least dt_ms, 0.1", "Correct", lambda: AdEx(1, tau_w_ms=0.05)),
        (r"AdEx slope_mv: got -2, expected more than 0", "Correct", lambda: AdEx(1, slope_mv=-2.0)),
        (r"SlidingParallel taps: got 0, expected at least 1", "this step", lambda: SlidingParallel(1, 0)),
        (r"LIF: got 2.5 neurons, expected a whole number of at least 1", "width", lambda: LIF(2.5, 20.0)),
        (r"LIF tau_mem_ms: got '20', expected numbers", "Give a number", lambda: LIF(1, "20")),
        (r"LIF rule: got 'hard', expected a LifRule", r'LifRule\("hard"\)', lambda: LIF(1, 9.0, rule="hard")),
        (r"IF rule: got 'soft', expected a LifRule", "backends", lambda: IF(1, rule="soft")),
        (r"Synaptic rule: got None, expected a LifRule", "backends", lambda: Synaptic(1, 5.0, 9.0, rule=None)),
        (r"ALIF rule: got 'soft', expected a LifRule", "backends", lambda: ALIF(1, 9.0, rule="soft")),
        (r"GIF rule: got 'soft', expected a LifRule", "backends", lambda: GIF(1, 9.0, rule="soft")),
        (r"Izhikevich dt_ms: got 5 ms, expected at most 1", "fires at every step", lambda: Izhikevich(1, dt_ms=5.0)),
    ],
)
def test_constants_that_cannot_be_are_refused(what, do, make):
    refused(what, do, make)


def test_a_layer_that_is_called_says_what_to_call():
    for call in (lambda: LIF(3, 20.0)(torch.rand(5, 2, 3)), lambda: Parallel(3, 9.0)(torch.rand(5, 2, 3), None)):
        refused(
            "got a call, expected scan or step, which take the state and give it back",
            r"spikes, state = layer.scan\(current, layer.init_state\(batch\)\)",
            call,
        )


def test_input_that_does_not_fit_is_refused():
    neuron = LIF(3, 20.0)
    state, x = neuron.init_state(2), torch.rand(5, 2, 3)
    refused(
        r"LIF.scan: got current \[2, 5, 3\]: its first axis is the state's batch of 2, so it is batch-first; expected "
        r"time first, \[T,2,3\]",
        r"Transpose it: current.transpose\(0, 1\)",
        neuron.scan,
        x.transpose(0, 1),
        state,
    )
    refused(
        r"LIF.scan: got current \[5, 2, 3\] and a state of batch 4, expected one batch",
        r"init_state\(2\)",
        neuron.scan,
        x,
        neuron.init_state(4),
    )
    refused(
        r"LIF.scan: got current \[5, 2, 4\], expected \[T,2,3\]", "every step", neuron.scan, torch.rand(5, 2, 4), state
    )
    refused(r"LIF.scan: got current \[0, 2, 3\], expected \[T,2,3\]", "every step", neuron.scan, x[:0], state)
    refused(r"LIF.step: got current \[5, 2, 3\], expected \[2,3\]", "Use scan", neuron.step, x, state)
    refused(r"LIF.step: got current \[5, 3\] and a state of batch 2", r"init_state\(5\)", neuron.step, x[:, 0], state)
    refused(r"got current of torch.int64, expected floating point", r"\.float\(\)", neuron.scan, x.long(), state)
    refused(r"got current of list, expected floating point", r"\.float\(\)", neuron.scan, x.tolist(), state)
    refused(
        r"got current of torch.float64 on cpu and a state of torch.float32 on cpu, expected one type",
        r"init_state\(batch, current.device, current.dtype\)",
        neuron.scan,
        x.double(),
        state,
    )
    refused(
        r"LIF.scan: got a state of type AdaptiveState, expected LifState",
        r"init_state\(batch\)",
        neuron.scan,
        x,
        ALIF(3, 20.0).init_state(2),
    )
    refused(
        r"LIF.scan: got a state of v \[2, 4\], expected \[B,3\]",
        r"init_state",
        neuron.scan,
        x,
        LIF(4, 9.0).init_state(2),
    )


@pytest.mark.parametrize(
    "neuron",
    [
        IF(3),
        LIF(3, 20.0, rule=LifRule("hard", delayed=True)),
        LIF(3, 1.0),
        Synaptic(3, 5.0, 20.0),
        ALIF(3, 20.0),
        GIF(3, 20.0),
        Izhikevich(3),
        AdEx(3),
        Parallel(3, 20.0),
        SlidingParallel(3, 2),
    ],
)
def test_nan_is_found_wherever_it_came_in(neuron):
    x, state = torch.rand(9, 2, 3), neuron.init_state(2)
    x[1, 1, 2] = math.nan
    name = type(neuron).__name__
    refused(rf"{name}.scan: got NaN in the current at \[1, 1, 2\]", "division by 0", neuron.scan, x, state)
    refused(rf"{name}.step: got NaN in the current at \[1, 2\]", "division by 0", neuron.step, x[1], state)


def test_a_state_that_breaks_is_named():
    neuron = Izhikevich(1, dt_ms=1.0)
    x, state = torch.zeros(2000, 1, 1), neuron.init_state(1)._replace(v=torch.tensor([[-1e25]]))
    refused(r"Izhikevich.scan: got a state that became NaN", r"dt_ms=1 is too long", neuron.scan, x, state)
    broken = LifState(torch.full((1, 1), math.nan))
    refused(r"LIF.step: got a state that became NaN", "came in broken", LIF(1, 20.0).step, torch.zeros(1, 1), broken)


def test_surrogates_reach_the_gradient():
    grads = []
    for surrogate in (Surrogate(slope=1.0), Surrogate("arctan", 1.0), Surrogate("triangular", 0.5)):
        x = torch.full((1, 1, 1), 0.5, requires_grad=True)
        neuron = LIF(1, 20.0, rule=LifRule(surrogate=surrogate))
        neuron.scan(x, neuron.init_state(1))[0].sum().backward()
        assert x.grad.item() == pytest.approx(surrogate.derivative(torch.tensor(-0.5)).item())
        grads.append(x.grad.item())
    assert len(set(grads)) == 3
