"""Who reaches whom: the targets of every neuron, one source after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Synapses:
    """Targets of neuron n: ``targets[offsets[n]:offsets[n + 1]]``, ascending. The first ``excitatory`` neurons excite.

    Args:
        offsets: int64 [neurons + 1].
        targets: uint16 [synapses] (uint32 above 65,536 neurons).
    """

    offsets: Array
    targets: Array
    excitatory: int

    @property
    def neurons(self) -> int:
        return len(self.offsets) - 1

    def sources(self) -> Array:
        """The source of every synapse, int64 [synapses]."""
        return np.repeat(np.arange(self.neurons), np.diff(self.offsets))

    def of(self, sources: Array) -> Array:
        """The targets of several neurons, one after the other."""
        first, counts = self.offsets[sources], np.diff(self.offsets)[sources]
        before = np.cumsum(counts) - counts
        return self.targets[np.repeat(first - before, counts) + np.arange(counts.sum())]


def index_type(neurons: int) -> type[np.unsignedinteger[Any]]:
    """The narrowest type of a neuron's number that the library takes."""
    return np.uint16 if neurons <= 1 << 16 else np.uint32


def independent(neurons: int, excitatory: int, probability: float, rng: np.random.Generator) -> Synapses:
    """Each ordered pair, a neuron and itself among them, is joined with the same probability on its own.

    The gaps between joined pairs are geometric: the work is that of the synapses, not of the pairs.
    """
    pairs, found, last = neurons * neurons, [], -1
    while last < pairs:
        expected = (pairs - last) * probability
        gaps = rng.geometric(probability, int(expected + 4 * np.sqrt(expected) + 16))
        found.append(last + np.cumsum(gaps))
        last = int(found[-1][-1])
    joined = np.concatenate(found)
    joined = joined[joined < pairs]
    counts = np.bincount(joined // neurons, minlength=neurons)
    return _joined(counts, joined % neurons, excitatory)


def fixed_in_degree(
    neurons: int, excitatory: int, from_excitatory: int, from_inhibitory: int, rng: np.random.Generator
) -> Synapses:
    """Each neuron is reached by given numbers of different neurons of both kinds, never by itself."""
    sources = np.empty((neurons, from_excitatory + from_inhibitory), index_type(neurons))
    for target in range(neurons):
        for first, stop, count, place in (
            (0, excitatory, from_excitatory, slice(None, from_excitatory)),
            (excitatory, neurons, from_inhibitory, slice(from_excitatory, None)),
        ):
            own = first <= target < stop
            chosen = first + rng.choice(stop - first - own, count, replace=False, shuffle=False)
            sources[target, place] = chosen + (own & (chosen >= target))
    order = np.argsort(sources.reshape(-1), kind="stable")
    counts = np.bincount(sources.reshape(-1), minlength=neurons)
    return _joined(counts, order // sources.shape[1], excitatory)


def _joined(counts: Array, targets: Array, excitatory: int) -> Synapses:
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Synapses(offsets, targets.astype(index_type(len(counts))), excitatory)
