"""One network, one spike train: numpy and C++ agree spike for spike, with each other and with Brian2 (float64)."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest

from neuro.extras import installed
from sims.networks import native, simulate, statistics
from sims.networks.circuit import Circuit
from sims.networks.simulate import Spikes

CIRCUITS = ("vogels-abbott", "coba", "brunel")
built = pytest.mark.skipif(native.library() is None, reason="the C++ library is not here")
brian2 = pytest.mark.skipif(not installed("brian2"), reason="brian2 is not installed (extra sims)")


def circuit(name: str, neurons: int = 400, dt_ms: float = 0.1, seed: int = 1) -> Circuit:
    return simulate.named(name, neurons, dt_ms, seed)


def train(spikes: Spikes) -> list[tuple[int, int]]:
    return list(zip(spikes.steps.tolist(), spikes.neurons.tolist(), strict=True))


@built
@pytest.mark.parametrize("dt_ms", [0.1, 0.7])
@pytest.mark.parametrize("name", CIRCUITS)
def test_numpy_and_the_library_fire_alike(name, dt_ms):
    given = circuit(name, dt_ms=dt_ms)
    before = given.state.copy()
    one, other = (simulate.run(given, 0.1, "float64", in_numpy) for in_numpy in (True, False))
    assert len(one.steps) > 30 and train(one) == train(other)
    assert np.array_equal(given.state, before)


@built
@pytest.mark.parametrize("precision", simulate.PRECISIONS)
@pytest.mark.parametrize("name", CIRCUITS)
def test_every_width_of_vectors_gives_the_same_spikes_and_state(name, precision):
    """2,000 neurons are no multiple of a strip; the narrowest is what every machine has."""
    given, found = circuit(name, 2000), []
    history = max(given.refractory, given.delay)
    for width in (16, 32, 64):
        loop = native.Loop(given, precision, width)
        ends, spikes = np.zeros(history + 301, np.int64), np.empty(2000 * 20, given.synapses.targets.dtype)
        loop.advance(0, ends, spikes)
        found.append((ends.tolist(), spikes[: ends[-1]].tolist(), loop.state()))
    assert found[0][0][-1] > 100
    for ends, spikes, state in found[1:]:
        assert (ends, spikes) == found[0][:2] and np.array_equal(state, found[0][2], equal_nan=True)


@built
@pytest.mark.parametrize("precision", simulate.PRECISIONS)
@pytest.mark.parametrize("name", CIRCUITS)
def test_wide_and_narrow_numbers_of_neurons_give_the_same_spikes(name, precision):
    given = circuit(name)
    wide = dataclasses.replace(given.synapses, targets=given.synapses.targets.astype(np.uint32))
    one, other = (simulate.run(c, 0.1, precision) for c in (given, dataclasses.replace(given, synapses=wide)))
    assert train(one) == train(other)


def step_by_step(given: Circuit, num_steps: int) -> list[tuple[int, int]]:
    """What the library does in float32 with a current-based network, with every neuron asked at every step."""
    c, one = given.constants, np.float32
    a, b, rest = c[1] / (c[3] - c[4]), c[2] / (c[3] - c[5]), c[0] / (1 - c[3])
    v, e, i = given.state.astype(one)
    x = (v.astype(float) - rest + a * e + b * i).astype(one)
    scale, found, lists = np.ones(3), [], []
    for step in range(num_steps):
        back = lists[step - given.refractory] if step >= given.refractory else []
        to_e, to_i = one(-a * scale[1] / scale[0]), one(-b * scale[2] / scale[0])
        x[back] = one((given.reset - rest) / scale[0]) - (to_e * e[back] + to_i * i[back])
        scale *= c[3:6]
        if scale.min() < 2.0**-20:
            for row, factor in zip((x, e, i), scale, strict=True):
                row *= one(factor)
            scale[:] = 1.0
        to_e, to_i = one(-a * scale[1] / scale[0]), one(-b * scale[2] / scale[0])
        fired = np.flatnonzero(x + (to_e * e + to_i * i) > one((given.threshold - rest) / scale[0]))
        x[fired] = np.nan
        lists.append(fired)
        found += [(step, neuron) for neuron in fired.tolist()]
        for source in lists[step - given.delay] if step >= given.delay else []:
            weight, row, factor = (given.excite, e, a) if source < given.synapses.excitatory else (given.inhibit, i, b)
            targets = given.synapses.of(np.array([source]))
            row[targets] += one(weight / scale[1 if row is e else 2])
            x[targets] += one(factor * weight / scale[0])
    return found


@built
@pytest.mark.parametrize(
    "change", [{}, {"delay": 3}, {"excite": 9.0, "delay": 1}, {"refractory": 5}, {"inhibit": 0.0, "excite": 4.0}]
)
def test_looking_ahead_misses_no_spike(change):
    """Sparse and dense firing: with inhibition gone, more spikes arrive in a step than are allowed for."""
    given = dataclasses.replace(circuit("vogels-abbott", 800), **change)
    one = train(simulate.run(given, 0.15, "float32"))
    assert one == step_by_step(given, 1500) and len(one) > 100


@built
@pytest.mark.parametrize("row", [1, 2])
def test_where_looking_ahead_would_not_hold_nobody_does(row):
    """Excitation below 0 or inhibition above 0 to begin with: a membrane may then rise faster than the bound says."""
    given = circuit("vogels-abbott", 800)
    given.state[row] = -0.2 if row == 1 else 5.0
    exact, quick = (simulate.run(given, 0.01, precision) for precision in ("float64", "float32"))
    assert train(exact) == train(quick) and len(train(exact)) > 20


@pytest.mark.parametrize("in_numpy", [True, False])
@pytest.mark.parametrize("name", CIRCUITS)
def test_a_run_in_pieces_is_the_run(name, in_numpy, monkeypatch):
    """Spikes on their way and refractory neurons cross from one piece to the next."""
    given = circuit(name)
    whole = simulate.run(given, 0.06, "float64", in_numpy)
    monkeypatch.setattr(simulate, "_ROOM", 1)
    assert train(simulate.run(given, 0.06, "float64", in_numpy)) == train(whole) != []


@pytest.mark.parametrize("precision", simulate.PRECISIONS)
@pytest.mark.parametrize("name", CIRCUITS)
def test_the_seed_decides_every_spike(name, precision):
    one, same, other = (train(simulate.run(circuit(name, seed=seed), 0.05, precision)) for seed in (1, 1, 2))
    assert one == same != other


@pytest.mark.parametrize("name", CIRCUITS)
def test_spikes_are_in_order_and_nobody_fires_while_refractory(name):
    given = circuit(name, 2000)
    spikes = simulate.run(given, 0.3)
    assert train(spikes) == sorted(train(spikes))
    order = np.argsort(spikes.neurons, kind="stable")
    same = np.diff(spikes.neurons[order].astype(int)) == 0
    gaps = np.diff(spikes.steps[order])[same]
    assert len(gaps) > 30 and gaps.min() >= given.refractory


@pytest.mark.parametrize("name", CIRCUITS)
def test_float32_begins_as_float64_and_keeps_its_statistics(name):
    given = circuit(name, 2000)
    exact, quick = (simulate.run(given, 0.5, precision) for precision in ("float64", "float32"))
    first = round(5 / given.dt_ms)
    assert train(exact.part(0, first)) == train(quick.part(0, first)) != []
    assert len(quick.steps) == pytest.approx(len(exact.steps), rel=0.05)
    one, other = (statistics.summary(spikes) for spikes in (exact, quick))
    assert other.cv == pytest.approx(one.cv, abs=0.08)


def in_brian2(given: Circuit, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Brian2 2.9 uses what newer packages call deprecated
        from sims.circuits import reference

        return reference.in_numpy(given, seconds)


@brian2
@pytest.mark.parametrize(
    ("name", "neurons", "dt_ms"),
    [("vogels-abbott", 400, 0.1), ("coba", 400, 0.1), ("brunel", 400, 0.1), ("vogels-abbott", 200, 0.25)],
)
def test_brian2_fires_the_same_spikes(name, neurons, dt_ms):
    given = circuit(name, neurons, dt_ms)
    steps, fired = in_brian2(given, 0.1)
    ours = simulate.run(given, 0.1, "float64")
    assert len(steps) > 30
    assert steps.tolist() == ours.steps.tolist() and fired.tolist() == ours.neurons.tolist()


@brian2
@pytest.mark.parametrize("change", [{"excite": 1.7}, {"inhibit": -8.0}, {"reset": -59.0}, {"threshold": -50.5}])
def test_brian2_does_not_fire_the_same_spikes_after_a_change(change):
    """The comparison sees what it compares."""
    given = circuit("vogels-abbott")
    steps, fired = in_brian2(given, 0.1)
    ours = simulate.run(dataclasses.replace(given, **change), 0.1, "float64")
    assert (steps.tolist(), fired.tolist()) != (ours.steps.tolist(), ours.neurons.tolist())


@brian2
@pytest.mark.parametrize("name", CIRCUITS)
def test_the_statistics_are_those_of_brian2_from_another_start(name):
    """The same synapses; another initial state and other external spikes: every spike differs after the first few."""
    given, other = circuit(name, 2000, seed=5), circuit(name, 2000, seed=102)
    again = dataclasses.replace(given, state=other.state, drive=other.drive)
    steps, fired = in_brian2(again, 0.4)
    ours = simulate.run(given, 0.4)
    theirs = dataclasses.replace(ours, steps=steps, neurons=fired)
    one, other = (statistics.summary(spikes.part(1000, 4000)) for spikes in (ours, theirs))
    assert one != other
    assert one.excitatory_hz == pytest.approx(other.excitatory_hz, rel=0.2)
    assert one.inhibitory_hz == pytest.approx(other.inhibitory_hz, rel=0.2)
    assert one.cv == pytest.approx(other.cv, abs=0.15)
    assert one.correlation == pytest.approx(other.correlation, abs=0.02)


def test_regimes_of_brunel_are_told_apart():
    """Figure 8: regular where excitation wins, irregular where inhibition does; the drive alone decides how fast."""

    def found(g: float, eta: float) -> statistics.Summary:
        return statistics.summary(simulate.run(simulate.named("brunel", 1000, 0.1, 0, g=g, eta=eta), 0.3))

    regular, irregular, slow = found(3.0, 2.0), found(5.0, 2.0), found(4.5, 0.9)
    assert regular.cv < 0.2 < 0.5 < irregular.cv
    assert regular.excitatory_hz > 3 * irregular.excitatory_hz > 3 * slow.excitatory_hz
