"""Runs a circuit and records every spike."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from neuro.errors import UsageError, nearest
from sims.networks import brunel, coba, cuba, native
from sims.networks.circuit import Circuit
from sims.networks.synapses import Array

CIRCUITS = {"brunel": brunel.circuit, "vogels-abbott": cuba.circuit, "cuba": cuba.circuit, "coba": coba.circuit}
PRECISIONS = ("float32", "float64")
_ROOM = 1 << 24  # spikes for which room is made at a time, if all neurons fired as often as they can


@dataclass(frozen=True)
class Spikes:
    """Every spike of a run, in order of time and, within a step, of neurons.

    Args:
        steps: int64 [spikes]: number of the step, from 0; a step ends at (number + 1) dt.
        neurons: [spikes], as wide as the circuit's targets.
        num_steps: of the run.
        num_neurons, num_excitatory: of the circuit, the excitatory ones first.
        num_targets: int64 [num_neurons]: of each neuron.
    """

    steps: Array
    neurons: Array
    num_steps: int
    dt_ms: float
    num_neurons: int
    num_excitatory: int
    num_targets: Array

    @property
    def seconds(self) -> float:
        return self.num_steps * self.dt_ms * 1e-3

    @property
    def num_events(self) -> int:
        """Synaptic events: the targets of every spike."""
        return int(self.num_targets @ np.bincount(self.neurons, minlength=self.num_neurons))

    def part(self, start: int, stop: int) -> Spikes:
        """Steps [start, stop), numbered from 0."""
        first, last = np.searchsorted(self.steps, (start, stop))
        return dataclasses.replace(
            self, steps=self.steps[first:last] - start, neurons=self.neurons[first:last], num_steps=stop - start
        )


def named(circuit: str, neurons: int, dt_ms: float, seed: int, **options: float) -> Circuit:
    """The circuit of that name.

    Raises:
        UsageError: no such circuit, an option it does not have, or what the circuit itself refuses.
    """
    if circuit not in CIRCUITS:
        raise UsageError(
            f"circuit: got '{circuit}', expected one of {', '.join(CIRCUITS)}.", nearest(circuit, list(CIRCUITS))
        )
    if options and circuit != "brunel":
        raise UsageError(
            f"{circuit}: got {' and '.join(options)}, expected none of them.", "Only brunel takes --g and --eta."
        )
    return CIRCUITS[circuit](neurons, dt_ms, seed, **options)


def run(circuit: Circuit, seconds: float, precision: str = "float32", in_numpy: bool = False) -> Spikes:
    """Simulate from the circuit's state, which is left as it is.

    In C++ where the library was built, otherwise (or with ``in_numpy``) in numpy: in float64 the same spikes.

    Raises:
        UsageError: seconds not positive and finite, or more steps than memory holds a count of; an unknown precision.
    """
    if precision not in PRECISIONS:
        raise UsageError(
            f"precision: got '{precision}', expected {' or '.join(PRECISIONS)}.", nearest(precision, PRECISIONS)
        )
    if not (math.isfinite(seconds) and seconds > 0):
        raise UsageError(f"seconds: got {seconds:g}, expected more than 0.", "Give a time such as --seconds 1.")
    asked = seconds * 1e3 / circuit.dt_ms
    try:
        num_steps = max(1, round(asked))
        counts = np.zeros(num_steps, np.int64)
    except (OverflowError, ValueError, MemoryError) as error:
        raise UsageError(
            f"seconds: got {seconds:g}, expected fewer steps than {asked:g} of {circuit.dt_ms:g} ms: memory cannot count them.",
            "Simulate less at a time.",
        ) from error
    loop: native.Loop | NumpyLoop
    loop = NumpyLoop(circuit, precision) if in_numpy or native.library() is None else native.Loop(circuit, precision)
    first, pieces = 0, []
    for fired_at, neurons in _pieces(circuit, loop, num_steps):
        counts[first : first + len(fired_at)] = fired_at
        pieces.append(neurons)
        first += len(fired_at)
    fired = np.concatenate(pieces)
    return Spikes(
        steps=np.repeat(np.arange(num_steps), counts),
        neurons=fired,
        num_steps=num_steps,
        dt_ms=circuit.dt_ms,
        num_neurons=circuit.neurons,
        num_excitatory=circuit.synapses.excitatory,
        num_targets=np.diff(circuit.synapses.offsets),
    )


def _pieces(circuit: Circuit, loop: native.Loop | NumpyLoop, num_steps: int) -> Iterator[tuple[Array, Array]]:
    """(spikes of each step, neurons) of one piece of the run after the other.

    Each piece begins with the spikes of the last `history` steps, which are still on their way or refractory.
    """
    history = max(circuit.refractory, circuit.delay)
    longest = circuit.refractory * max(1, _ROOM // circuit.neurons - 2)  # a neuron fires once in `refractory` steps
    type_of = circuit.synapses.targets.dtype
    counts, before, first = np.zeros(history, np.int64), np.empty(0, type_of), 0
    while first < num_steps:
        length = min(longest, num_steps - first)
        ends = np.zeros(history + length + 1, np.int64)
        np.cumsum(counts, out=ends[1 : history + 1])
        # One more than can fire: the library writes a neuron down before it knows whether it fires.
        spikes = np.empty(len(before) + circuit.neurons * (length // circuit.refractory + 1) + 1, type_of)
        spikes[: len(before)] = before
        loop.advance(first, ends, spikes)
        every = np.diff(ends)
        yield every[history:], spikes[len(before) : ends[-1]].copy()
        counts, before, first = every[length:], spikes[ends[length] : ends[-1]], first + length


class NumpyLoop:
    """What `native.Loop` does, in numpy: the same order of the same operations, each rounded alike in float64."""

    def __init__(self, circuit: Circuit, precision: str) -> None:
        self._circuit = circuit
        self._state = circuit.state.astype(precision)

    def state(self) -> Array:
        """[rows, neurons], a view."""
        return self._state

    def advance(self, first: int, ends: Array, spikes: Array) -> None:
        """See `native.Loop.advance`."""
        circuit, v = self._circuit, self._state[0]
        history = max(circuit.refractory, circuit.delay)
        for now in range(history, len(ends) - 1):
            v[spikes[ends[now - circuit.refractory] : ends[now - circuit.refractory + 1]]] = circuit.reset
            circuit.sweep(self._state, circuit, first + now - history)
            fired = np.flatnonzero(v > circuit.threshold)
            v[fired] = np.nan  # refractory: whatever is added to it, it is above no threshold
            ends[now + 1] = ends[now] + len(fired)
            spikes[ends[now] : ends[now + 1]] = fired
            sources = spikes[ends[now - circuit.delay] : ends[now - circuit.delay + 1]]
            excites = sources < circuit.synapses.excitatory
            to_e, to_i = circuit.rows()
            # A weight is added once for each spike that arrives, as in C++: a product would round otherwise.
            for row, kind, weight in ((to_e, excites, circuit.excite), (to_i, ~excites, circuit.inhibit)):
                np.add.at(self._state[row], circuit.synapses.of(sources[kind]), self._state.dtype.type(weight))
