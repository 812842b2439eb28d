"""Parts of the simulated networks: synapses, external spikes, statistics, the library, and neurons with known answers."""

from __future__ import annotations

import dataclasses
import importlib.machinery
import math

import numpy as np
import pytest

from neuro.errors import UsageError
from sims.networks import brunel, coba, cuba, native, poisson, simulate, statistics
from sims.networks.circuit import Circuit
from sims.networks.simulate import Spikes
from sims.networks.synapses import Synapses, fixed_in_degree, independent

NAME = f"_network{importlib.machinery.EXTENSION_SUFFIXES[0]}"


def rows(synapses: Synapses) -> list[np.ndarray]:
    return np.split(synapses.targets, synapses.offsets[1:-1])


def test_independent_synapses_join_each_pair_alike():
    synapses = independent(500, 400, 0.1, np.random.default_rng(0))
    joined = np.zeros((500, 500), int)
    for source, targets in enumerate(rows(synapses)):
        assert (np.diff(targets.astype(int)) > 0).all()
        joined[source, targets] = 1
    deviation = math.sqrt(0.1 * 0.9)
    assert abs(joined.mean() - 0.1) < 4 * deviation / 500
    for axis in (0, 1):  # no source and no target is favoured: 500 means of 500, the largest within 4.5 deviations
        assert np.abs(joined.mean(axis) - 0.1).max() < 4.5 * deviation / math.sqrt(500)
    assert joined.trace() > 0


def test_all_pairs_are_joined_at_probability_one():
    synapses = independent(12, 10, 1.0, np.random.default_rng(0))
    assert all(targets.tolist() == list(range(12)) for targets in rows(synapses))


def test_a_fixed_in_degree_is_that_of_every_neuron():
    synapses = fixed_in_degree(60, 48, 5, 2, np.random.default_rng(0))
    sources, targets = synapses.sources(), synapses.targets.astype(int)
    assert (sources != targets).all() and len(set(zip(sources, targets, strict=True))) == len(targets)
    assert (np.bincount(targets[sources < 48]) == 5).all() and (np.bincount(targets[sources >= 48]) == 2).all()
    assert all((np.diff(row.astype(int)) > 0).all() for row in rows(synapses))


def test_targets_of_several_sources_come_one_after_the_other():
    synapses = independent(50, 40, 0.2, np.random.default_rng(1))
    chosen = np.array([3, 49, 3, 0])
    assert synapses.of(chosen).tolist() == np.concatenate([rows(synapses)[n] for n in chosen]).tolist()
    assert len(synapses.of(np.empty(0, np.uint16))) == 0


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ([0] * 4, 0, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, 2**64 - 1, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            0x299F31D0A4093822,
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_words_its_authors_publish(counter, key, words):
    found = poisson.philox([np.array([word], np.uint64) for word in counter], key)
    assert [int(word[0]) for word in found] == words


@pytest.mark.parametrize("mean", [0.05, 2.0, 40.0])
def test_external_spikes_are_poisson(mean):
    drive = poisson.drive(mean, seed=3)
    counts = np.stack([drive.counts(1000, step) for step in range(100)])
    error = math.sqrt(mean / counts.size)
    assert abs(counts.mean() - mean) < 4 * error
    assert abs(counts.var() - mean) < 4 * math.sqrt((mean + 2 * mean**2) / counts.size)
    assert abs((counts == 0).mean() - math.exp(-mean)) < 4 * math.sqrt(math.exp(-mean) / counts.size) + 1e-9
    assert np.abs(np.corrcoef(counts[:, :20].T)[np.triu_indices(20, 1)]).max() < 0.5
    assert not np.array_equal(counts[0], poisson.drive(mean, seed=4).counts(1000, 0))


def test_without_a_drive_there_are_no_external_spikes():
    assert not poisson.drive(0.0, seed=0).counts(100, 5).any()


def spikes(steps: list[int], neurons: list[int], num_neurons: int = 4, num_steps: int = 1000) -> Spikes:
    order = np.lexsort((neurons, steps))
    return Spikes(
        np.array(steps)[order], np.array(neurons)[order], num_steps, 1.0, num_neurons, 2, np.full(num_neurons, 3)
    )


def test_rates_and_events_are_counted():
    found = statistics.summary(spikes([1, 2, 3, 900], [0, 0, 1, 3]))
    assert (found.excitatory_hz, found.inhibitory_hz, found.events) == (1.5, 0.5, 12)


def test_a_clock_has_no_variation_and_a_poisson_process_has_one():
    clock = spikes(list(range(0, 1000, 10)), [1] * 100)
    assert statistics.cvs(clock).tolist() == [0.0]
    steps = np.cumsum(np.random.default_rng(0).geometric(0.01, 20_000))
    found = statistics.cvs(spikes(steps.tolist(), [2] * len(steps), num_steps=int(steps[-1]) + 1))
    assert found == pytest.approx(math.sqrt(0.99), abs=0.03)  # of the geometric distribution


def test_two_spikes_make_one_interval_and_no_variation_is_told():
    found = statistics.summary(spikes([1, 5], [0, 0]))
    assert found.cv is None and found.correlation is None


def test_correlations_are_those_of_the_binned_counts():
    rng = np.random.default_rng(0)
    first = np.flatnonzero(rng.random(5000) < 0.1)
    other = np.flatnonzero(rng.random(5000) < 0.1)
    steps, neurons = [*first, *first, *other], [0] * len(first) + [1] * len(first) + [2] * len(other)
    found = statistics.correlations(spikes(steps, neurons, num_steps=5000))
    a, b = (np.bincount(x // 5, minlength=1000) for x in (first, other))
    assert found.tolist() == pytest.approx([1.0, np.corrcoef(a, b)[0, 1], np.corrcoef(a, b)[0, 1]])


def test_a_part_of_a_run_counts_its_own_steps():
    whole = spikes([1, 500, 501, 999], [0, 1, 2, 3])
    part = whole.part(500, 1000)
    assert (part.steps.tolist(), part.neurons.tolist(), part.seconds) == ([0, 1, 499], [1, 2, 3], 0.5)


def test_the_population_rate_keeps_every_spike():
    times, rate = statistics.population_hz(spikes([0, 1, 1, 999], [0, 1, 2, 3]))
    assert len(times) == 1000 and rate[:2].tolist() == [250.0, 500.0] and rate.sum() == 1000.0


def lonely(**changes: object) -> Circuit:
    """The first neuron of the current-based network, with nobody to reach."""
    circuit = cuba.circuit(10)
    alone = Synapses(np.zeros(2, np.int64), np.empty(0, np.uint16), 1)
    state = np.array([[cuba.RESET_MV], [0.0], [0.0]])
    return dataclasses.replace(circuit, synapses=alone, state=state, **changes)


@pytest.mark.parametrize("in_numpy", [True, False])
@pytest.mark.parametrize("rest", [-49.5, -49.0, -40.0, -10.0])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_lonely_neuron_fires_as_its_equation_says(precision, rest, in_numpy):
    """From reset to threshold in tau log((El - Vr) / (El - Vt)); the rest of a step is lost, and nobody moves for 5 ms."""
    constants = cuba.constants(0.1)
    circuit = lonely(constants=(rest - rest * constants[3], *constants[1:]))
    steps = simulate.run(circuit, 1.0, precision, in_numpy).steps
    climb = 20.0 * math.log((rest + 60) / (rest + 50)) / 0.1
    assert set(np.diff(steps)) == {50 + math.floor(climb)} and steps[0] == math.floor(climb)


def test_below_the_threshold_nobody_fires():
    constants = cuba.constants(0.1)
    circuit = lonely(constants=(-50.01 - -50.01 * constants[3], *constants[1:]))
    assert len(simulate.run(circuit, 1.0).steps) == 0


def test_a_driven_membrane_has_the_mean_and_variance_of_shot_noise():
    """Without a threshold: mean eta threshold, variance J mean / 2 (Campbell), up to the correction for a step of dt."""
    circuit = dataclasses.replace(brunel.circuit(1000, seed=1, g=0.0), threshold=1e9)
    loop = simulate.NumpyLoop(circuit, "float64")
    history, steps = max(circuit.refractory, circuit.delay), 3000
    loop.advance(0, np.zeros(history + steps + 1, np.int64), np.empty(0, np.uint16))
    keep, jump, count = circuit.constants[0], circuit.excite, circuit.drive.mean
    mean, variance = jump * count / (1 - keep), jump**2 * count / (1 - keep**2)
    assert mean == pytest.approx(2 * 20.0, rel=0.003)
    v = loop.state()[0]
    assert abs(v.mean() - mean) < 4 * math.sqrt(variance / 1000)
    assert v.var() == pytest.approx(variance, rel=4 * math.sqrt(2 / 1000))


def test_status_agrees_with_what_runs():
    here, says = native.status()
    assert says and here == (native.library() is not None)


def test_without_the_library_numpy_runs(monkeypatch):
    circuit = coba.circuit(50)
    expected = simulate.run(circuit, 0.02, in_numpy=True)
    monkeypatch.setattr(native, "library", lambda: None)
    assert simulate.run(circuit, 0.02).steps.tolist() == expected.steps.tolist() != []


@pytest.mark.parametrize(
    ("call", "what", "do"),
    [
        (
            lambda: simulate.named("cobra", 100, 0.1, 0),
            "circuit: got 'cobra', expected one of brunel, vogels-abbott, cuba, coba.",
            "Did you mean 'coba'?",
        ),
        (
            lambda: simulate.named("coba", 100, 0.1, 0, g=3.0),
            "coba: got g, expected none of them.",
            "Only brunel takes --g and --eta.",
        ),
        (
            lambda: brunel.circuit(9),
            "brunel: got 9 neurons, expected 10 to 40000.",
            "Ask for a number in between, such as --neurons 4000.",
        ),
        (
            lambda: cuba.circuit(2_000_000),
            "vogels-abbott: got 2000000 neurons, expected 10 to 1000000.",
            "Ask for a number in between, such as --neurons 4000.",
        ),
        (
            lambda: coba.circuit(100, 0.0),
            "coba: got dt = 0 ms, expected more than 0 and at most 5 ms (the excitatory time constant).",
            "Give a step such as --dt 0.1.",
        ),
        (
            lambda: cuba.circuit(100, math.nan),
            "vogels-abbott: got dt = nan ms, expected more than 0 and at most 5 ms (the excitatory time constant).",
            "Give a step such as --dt 0.1.",
        ),
        (
            lambda: brunel.circuit(100, 2.0),
            "brunel: got dt = 2 ms, expected more than 0 and at most 1.5 ms (the delay of a spike).",
            "Give a step such as --dt 0.1.",
        ),
        (
            lambda: brunel.circuit(100, eta=-1.0),
            "brunel: got eta = -1, expected 0 or more.",
            "Give a --eta such as 2.",
        ),
        (lambda: brunel.circuit(100, g=math.inf), "brunel: got g = inf, expected 0 or more.", "Give a --g such as 5."),
        (
            lambda: simulate.run(coba.circuit(20), 0.0),
            "seconds: got 0, expected more than 0.",
            "Give a time such as --seconds 1.",
        ),
        (
            lambda: simulate.run(coba.circuit(20), 0.1, "float46"),
            "precision: got 'float46', expected float32 or float64.",
            "Did you mean 'float64'?",
        ),
    ],
)
def test_mistakes_say_what_was_expected(call, what, do):
    with pytest.raises(UsageError) as error:
        call()
    assert (error.value.what, error.value.do) == (what, do)
