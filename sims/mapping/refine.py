"""Fewer packets between cores: the graph of who reaches whom, handed to the refinement.

The refinement itself is `refine.cpp`, or `plain.py` where that was not built: the same result, hundreds of times slower.
Weights are whole numbers, so that both add up alike.
"""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sims.mapping import native, plain, reach
from sims.mapping.limits import Limits
from sims.mapping.network import Conv2d, Dense, Ints, Network, Sparse

SYNAPSES = 1 << 25  # more are not listed one by one: such a network stays in layer order
PLAIN_SYNAPSES = 50_000  # without the library, whose work takes hundreds of times longer in plain Python
_SCALE = 1 << 20
_BUDGET = 500_000_000  # places looked at in all: some seconds
_PER_SYNAPSE, _SPARED = 200, 200_000_000  # fewer of them for each synapse, at most: all else takes longer then
_FROM_ONE = 100  # for each synapse, about, to refine one start; at least a quarter of all and at most half
_ROUNDS = 20  # of the refinement of the only start
_FIRST_ROUNDS = 2  # of one start of several
_STARTS = 12  # in other orders than the given one
_KEPT = 8  # of the best, for crossing
_CROSSINGS = 100
_FRUITLESS = 30  # crossings one after the other that were in vain
_ORDER = 30  # places looked at for each synapse, about, to find an order

Found = tuple[float, int, Ints, reach.Axons]  # its cost, which try it was, the core of each neuron, its axons


@dataclasses.dataclass(frozen=True)
class Graph:
    """Neurons that may move, and the nets of those that send to them.

    Args:
        vertex: number among those placed, of each neuron [neurons]; -1 for one from outside.
        pins_at, pins: targets of each net, each once.
        source: vertex of each net, -1 from outside.
        weight: of each net; packets in 2^-20 of the highest rate.
        table, rows: memory of so many synapses of one net on one core, by the width of its weights.
        size: 1 for a vertex that takes the place of a neuron.
        frozen: vertices that stay, because a convolution's kernel is shared by their core.
    """

    vertex: Ints
    pins_at: Ints
    pins: NDArray[np.int32]
    source: NDArray[np.int32]
    weight: Ints
    table: NDArray[np.int32]
    rows: Ints
    size: NDArray[np.int32]
    frozen: NDArray[np.int8]


def graph(network: Network, limits: Limits) -> Graph | None:
    """The graph of a network, or None for one with too many synapses or without spikes."""
    listed = [p for p in network.projections if not isinstance(p, Conv2d)]
    number = sum(
        network[p.source].neurons * network[p.target].neurons if isinstance(p, Dense) else len(p.targets)
        for p in listed
    )
    rates = network.rates
    most = SYNAPSES if native.library() is not None else PLAIN_SYNAPSES
    if not 0 < number <= most or not rates.any():
        return None
    placed = np.concatenate([np.full(g.neurons, g.placed) for g in network.groups])
    vertex = np.where(placed, np.cumsum(placed) - 1, -1)
    sources, targets, bits = [], [], np.zeros(network.neurons, np.int64)
    for p in listed:
        first, base, count = network.starts[p.source], vertex[network.starts[p.target]], network[p.source].neurons
        if isinstance(p, Dense):
            width = network[p.target].neurons
            sources.append(np.repeat(np.arange(first, first + count, dtype=np.int32), width))
            targets.append(np.tile(np.arange(base, base + width, dtype=np.int32), count))
        else:
            assert isinstance(p, Sparse)
            sources.append(np.repeat(np.arange(first, first + count, dtype=np.int32), np.diff(p.offsets)))
            targets.append((base + p.targets).astype(np.int32))
        span = network.span(p.source)
        bits[span] = np.maximum(bits[span], limits.synapse_bits(p))
    source, pins = np.concatenate(sources), np.concatenate(targets)
    pairs = [(p.source, p.target) for p in listed]
    if len(set(pairs)) < len(pairs):
        key = np.unique(source.astype(np.int64) * len(vertex) + pins)
        source, pins = (key // len(vertex)).astype(np.int32), (key % len(vertex)).astype(np.int32)
    elif len(listed) > 1:
        order = np.argsort(source, kind="stable")
        source, pins = source[order], pins[order]
    counts = np.bincount(source, minlength=network.neurons)
    nets = np.flatnonzero(counts)
    widths, table = np.unique(bits[nets], return_inverse=True)
    length = np.arange(int(counts.max()) + 1)
    frozen, counted = np.zeros(network.neurons, np.int8), np.ones(network.neurons, np.int32)
    for q in network.projections:
        if isinstance(q, Conv2d):
            frozen[network.span(q.source)] = frozen[network.span(q.target)] = 1
    for name, counts_so in limits.counted(network).items():
        counted[network.span(name)] = counts_so
    return Graph(
        vertex,
        np.concatenate([[0], np.cumsum(counts[nets])]),
        pins,
        vertex[nets].astype(np.int32),
        np.rint(rates[nets] * (_SCALE / rates.max())).astype(np.int64),
        table.astype(np.int32),
        np.stack([limits.row_bits(length, length * width) for width in widths]),
        counted[placed],
        frozen[placed],
    )


def fixed(network: Network, core: Ints, cores: int, limits: Limits) -> Ints:
    """In-axons, out-axons and bits of the convolutions on each core [3, cores]."""
    convolutions = tuple(p for p in network.projections if isinstance(p, Conv2d))
    only = dataclasses.replace(network, projections=convolutions)
    held = reach.loads(only, core, limits, reach.axons(only, core, limits), cores)
    return np.stack([held.in_axons, held.out_axons, held.bits])


def between(found: reach.Axons, core: Ints, rates: Any) -> float:
    """Packets per step that leave their core."""
    return float(rates[found.source][core[found.source] != found.core].sum())


def search(
    network: Network, found: Graph, limits: Limits, start: Callable[[Ints | None], Ints | None], seed: int
) -> tuple[Ints, reach.Axons]:
    """The best of several assignments after refinement, and of the first as it is -> (core of each neuron, its axons).

    Two of the best are crossed: what is on one core in both is joined, and the better is refined from there on. What
    they agree on then stays together, and the rest moves in large pieces. In plain Python the first alone is refined, and
    so it is where an order would take half of the budget.

    Args:
        start: a legal assignment for an order (places of the vertices; None is the order as given), or None without one.
            One that takes more chips than the first is left out.
    """
    first, rates, left = start(None), network.rates, _BUDGET - min(_SPARED, _PER_SYNAPSE * len(found.pins))
    assert first is not None
    ordering, half, tries = _ORDER * len(found.pins), left // 2, 0
    alone = native.library() is None or 2 * ordering >= left
    most = max(half // 2, min(half, _FROM_ONE * len(found.pins)))
    chips = -(-int(first.max() + 1) // limits.cores)
    best: list[Found] = []  # the cheapest first

    def tried(core: Ints, rounds: int, apart: Ints) -> Found | None:
        """What becomes of an assignment; None where it is not legal or costs what another does."""
        nonlocal left, tries
        cores, given, tries = int(core.max()) + 1, min(left, most), tries + 1
        base = fixed(network, core, cores, limits)
        moved, rest = refined(found, core, cores, base, limits, seed + tries, given, rounds, apart)
        left -= given - max(0, rest)
        axons = reach.axons(network, moved, limits)
        cost, held = between(axons, moved, rates), reach.loads(network, moved, limits, axons, cores)
        over = any(map(len, held.over(limits).values()))
        return None if over or any(cost == other[0] for other in best) else (cost, tries, moved, axons)

    def keep(new: Found | None) -> None:
        best.extend([] if new is None else [new])
        best.sort(key=lambda entry: entry[:2])
        del best[_KEPT:]

    keep(tried(first, _ROUNDS if alone else _FIRST_ROUNDS, first))
    for number in range(0 if alone else _STARTS):
        if left <= max(half, 2 * ordering):
            break
        left -= ordering
        core = start(order(found, seed + number))
        if core is not None and -(-int(core.max() + 1) // limits.cores) <= chips:
            keep(tried(core, _FIRST_ROUNDS, core))
    draw, fruitless = np.random.default_rng(seed), 0
    for _ in range(0 if alone else _CROSSINGS):
        if left <= 0 or fruitless == _FRUITLESS or not best:
            break
        drawn = sorted(draw.permutation(len(best))[:3])[:2]
        better, other = best[drawn[0]], best[drawn[-1]]
        together = np.unique(better[2] * (other[2].max() + 2) + other[2], return_inverse=True)[1]
        child = tried(better[2], 1, together)
        fruitless += 1
        if child is not None and child[0] < better[0]:  # in its place, so that others than its line stay too
            del best[drawn[0]]
            keep(child)
            fruitless = 0
    kept = reach.axons(network, first, limits)
    if best and best[0][0] < between(kept, first, rates):
        return best[0][2:]
    return first, kept


def refined(
    found: Graph, core: Ints, cores: int, base: Ints, limits: Limits, seed: int, budget: int, rounds: int, apart: Ints
) -> tuple[Ints, int]:
    """Moves neurons between the cores they have so that fewer packets pass -> (core of each neuron, budget left).

    Args:
        apart: a number for each neuron [neurons]; only neurons of one core and number are joined in the first round.
    """
    inside = found.vertex >= 0
    part = np.ascontiguousarray(core[inside], dtype=np.int32)
    numbers = np.ascontiguousarray(apart[inside], dtype=np.int32)
    left = _call("refine", found, part, numbers, cores, base, limits, seed, budget, rounds)
    moved = core.copy()
    moved[inside] = part
    return moved, left


def order(found: Graph, seed: int) -> Ints:
    """Places in which neurons that reach the same are near each other [vertices]."""
    place = np.zeros(len(found.size), np.int32)
    free = Limits(1)
    loose = dataclasses.replace(found, frozen=np.zeros_like(found.frozen), size=np.ones_like(found.size))
    _call("order", loose, place, place, 1, np.zeros((3, 1), np.int64), free, seed, _BUDGET, 1)
    return place.astype(np.int64)


def _call(
    what: str,
    found: Graph,
    part: NDArray[np.int32],
    apart: NDArray[np.int32],
    cores: int,
    base: Ints,
    limits: Limits,
    seed: int,
    budget: int,
    rounds: int,
) -> int:
    numbers: dict[str, Any] = {
        "vertices": len(part),
        "nets": len(found.source),
        "cores": cores,
        "most_neurons": limits.neurons,
        "most_in": limits.in_axons,
        "most_out": limits.out_axons,
        "most_bits": limits.bits,
        "longest_row": found.rows.shape[1] - 1,
        "budget": budget,
        "rounds": rounds,
        "seed": seed,
    }
    arrays: dict[str, Any] = {
        "pins_at": found.pins_at,
        "pins": found.pins,
        "source": found.source,
        "weight": found.weight,
        "table": found.table,
        "rows": np.ascontiguousarray(found.rows),
        "fixed": np.ascontiguousarray(base, dtype=np.int64),
        "size": found.size,
        "frozen": found.frozen,
        "apart": apart,
        "part": part,
    }
    library = native.library()
    if library is None:
        part[:], left = getattr(plain, what)(**numbers, **arrays)
        return left
    run = native.Run(**numbers, **{name: array.ctypes.data for name, array in arrays.items()})
    getattr(library, f"neuro_mapping_{what}")(ctypes.byref(run))
    return int(run.budget)
