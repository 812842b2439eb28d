"""NIR graphs as networks to be placed: neurons become groups, and what lies between two of them one projection.

A group with channels, (C,H,W) or (C,L) in NIR, is numbered channel last: shape (H,W,C) or (L,1,C). A convolution straight from
group to group keeps its shared kernel; a Linear without zeros is dense; everything else, pools and Scales on the way included,
becomes the synapses that are left, one by one, where two windows that bring a neuron the same spike share one. A Threshold
and the integrator before it are one group, and its reset no synapse. A product at the end of the graph adds up in a group
of its own. Delays are left out: a chip has them in its synapses.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from neuro import nir_graph as nir
from neuro.errors import UsageError
from neuro.nir_graph import INTEGRATORS, PRODUCTS, Graph, Node, Shape
from sims.mapping.network import Conv2d, Dense, Group, Network, Projection, Sparse
from sims.nir import run
from sims.nir.fan import Fan

Pairs = tuple[np.ndarray, np.ndarray]  # (from, to): numbers in NIR's order, one row a synapse
WEIGHT_BITS = 8


def to_network(
    graph: Graph,
    rates: Mapping[str, float | np.ndarray] | None = None,
    name: str = "NIR graph",
    weight_bits: int = WEIGHT_BITS,
) -> Network:
    """A network of a graph's neurons; the Input is a group from outside.

    Args:
        graph: whose products see spikes or the Input.
        rates: spikes per step of groups by name, one number or in the node's shape (see `rates_of`); 0 where not given.
        name: of the network.
        weight_bits: of every synapse.

    Raises:
        UsageError: a product that sees potentials or sums, rates of no group, or a loop without a neuron.
    """
    fan = Fan(graph, "binary")
    ends = {row.membrane: row.name for row in fan.emitters}
    rows = [(graph.input, False), *((row.name, True) for row in fan.emitters)]
    rows += [(product, True) for product in _readouts(fan)]
    ends |= {product: product for product, _ in rows[1 + len(fan.emitters) :]}
    _check(fan, ends)
    unknown = sorted(set(rates or {}) - {row for row, _ in rows})
    if unknown:
        raise UsageError(
            f"to_network: got a rate of '{unknown[0]}', expected one of {', '.join(row for row, _ in rows)}.",
            "Name a node that gives spikes.",
        )
    groups = [_group(graph, row, placed, (rates or {}).get(row, 0.0)) for row, placed in rows]
    shapes = {group.name: group.shape for group in groups}
    projections: list[Projection] = []
    for source in fan.sources:
        for path in _paths(fan, source, ends):
            target = ends[path[-1]]
            projections.append(_projection(graph, path, target, shapes, weight_bits))
    return Network(name, tuple(groups), tuple(projections))


def rates_of(graph: Graph, inputs: np.ndarray, dt: float | None = None) -> dict[str, np.ndarray]:
    """Spikes per step of the Input and of every spiking node, in its shape, measured on one sample [T, *shape]; values other
    than 0 in the Input count as one. Errors as `sims.nir.simulate.steps`."""
    went = run(graph, inputs, dt)
    return {name: (went[name] != 0).mean(0) for name in Fan(graph, "binary").sources}


def _readouts(fan: Fan) -> list[str]:
    """Products whose sums leave the graph without reaching a neuron."""

    def leaves(name: str) -> bool:
        after = fan.after(name)
        return any(isinstance(fan.graph.nodes[b], nir.Output) or (fan.wires(b) and leaves(b)) for b in after)

    return [name for name in fan.graph.order if type(fan.graph.nodes[name]) in PRODUCTS and leaves(name)]


def _check(fan: Fan, ends: Mapping[str, str]) -> None:
    fused = {membrane for membrane, name in ends.items() if membrane != name}
    for name in fan.graph.order:
        kind = type(fan.graph.nodes[name])
        if kind not in PRODUCTS and kind not in INTEGRATORS:
            continue
        for target in fan.after(name):
            reached = [target]
            for at in reached:
                if fan.wires(at):
                    reached += fan.after(at)
            bad = [at for at in reached if type(fan.graph.nodes[at]) in PRODUCTS]
            if kind in INTEGRATORS and name not in fused:
                bad += [at for at in reached if at in ends]
            if bad:
                what = "sums" if kind in PRODUCTS else "potentials"
                raise UsageError(
                    f"to_network: got '{name}', whose {what} enter '{bad[0]}', expected spikes.",
                    "Put neurons that fire between them, or map the part behind.",
                )


def _paths(fan: Fan, source: str, ends: Mapping[str, str]) -> Iterator[list[str]]:
    """Every way from a group to the next: the source, wiring and at most one product, the node where it ends."""

    def follow(path: list[str]) -> Iterator[list[str]]:
        for target in fan.after(path[-1]):
            node, way = fan.graph.nodes[target], [*path, target]
            if target in ends:  # a membrane, or a product that is a group of its own
                yield way
            if type(node) in PRODUCTS or fan.wires(target):
                yield from follow(way)

    return follow([source])


def _group(graph: Graph, name: str, placed: bool, rate: float | np.ndarray) -> Group:
    shape = graph.shapes[name][1]
    size = int(np.prod(shape))
    if np.ndim(rate):
        given = np.asarray(rate, np.float64)
        if given.shape != shape:
            raise UsageError(
                f"to_network: got rates {list(given.shape)} of '{name}', expected {list(shape)}.",
                "Give one per neuron, in the node's shape.",
            )
        rate = given.ravel()[_order(shape)]
    return Group(name, size, rate, placed, _channels_last(shape))


def _channels_last(shape: Shape) -> tuple[int, int, int] | None:
    if len(shape) == 3:
        return shape[1], shape[2], shape[0]
    return (shape[1], 1, shape[0]) if len(shape) == 2 else None


def _order(shape: Shape) -> np.ndarray:
    """NIR's number of each neuron of a group."""
    return np.moveaxis(np.arange(int(np.prod(shape))).reshape(shape), 0, -1).ravel()


def _projection(
    graph: Graph, path: list[str], target: str, shapes: Mapping[str, Shape | None], bits: int
) -> Projection:
    source, between = path[0], [name for name in path[1:] if type(graph.nodes[name]) in (*nir.WIRING, *PRODUCTS)]
    kinds = [type(graph.nodes[name]) for name in between]
    acting = [name for name in between if type(graph.nodes[name]) not in (nir.Delay, nir.Flatten)]
    if len(acting) == 1:
        node = graph.nodes[acting[0]]
        if isinstance(node, nir.Linear) and (node.weight != 0).all():
            return Dense(source, target, bits)
        straight = nir.Flatten not in kinds and shapes[source] is not None and shapes[target] is not None
        if isinstance(node, nir.Conv) and straight:
            even = all(before == after for before, after in node.pads)
            if even and set(node.dilation) == {1}:
                pads = [before for before, _ in node.pads]
                kernel, stride, padding = _two(node.kernel, 1), _two(node.stride, 1), _two(pads, 0)
                return Conv2d(source, target, kernel, stride, padding, node.groups, bits)
    begin, end = graph.shapes[source][1], graph.shapes[target][1]
    every = np.arange(int(np.prod(begin)))
    pairs = (every, every)
    for name in between:
        pairs = _join(pairs, _pairs(graph.nodes[name], *graph.shapes[name]))
    place = [np.argsort(_order(shape)) for shape in (begin, end)]
    key = np.unique(place[0][pairs[0]] * len(place[1]) + place[1][pairs[1]])
    rows, targets = key // len(place[1]), key % len(place[1])
    offsets = np.searchsorted(rows, np.arange(len(place[0]) + 1)).astype(np.int64)
    return Sparse(source, target, offsets, targets.astype(np.int64), bits)


def _two(values: Sequence[int], default: int) -> tuple[int, int]:
    return values[0], values[1] if len(values) > 1 else default


def _join(first: Pairs, then: Pairs) -> Pairs:
    """a -> b and b -> c as a -> c."""
    by = np.argsort(then[0], kind="stable")
    middle, end = then[0][by], then[1][by]
    start = np.searchsorted(middle, first[1])
    count = np.searchsorted(middle, first[1], side="right") - start
    within = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
    return np.repeat(first[0], count), end[np.repeat(start, count) + within]


def _pairs(node: Node, shape: Shape, out: Shape) -> Pairs:
    """Every connection of a node whose weight is not 0; duplicates may occur."""
    every = np.arange(int(np.prod(shape)))
    if isinstance(node, nir.Linear):
        to, source = np.nonzero(node.weight)
        return source, to
    if isinstance(node, nir.Scale):
        there = every[node.scale.ravel() != 0]
        return there, there
    if not isinstance(node, nir.Window):
        return every, every
    sources, targets = [], []
    numbers, ends = every.reshape(shape), np.arange(int(np.prod(out))).reshape(out)
    for at in itertools.product(*map(range, node.kernel)):
        low, high = [], []  # the positions whose input at this place of the kernel is no padding
        for k, s, d, (pad, _), n, positions in zip(at, *node.steps, node.pads, shape[1:], out[1:], strict=True):
            low.append(max(0, -(-(pad - k * d) // s)))
            high.append(max(low[-1], min(positions, (n - 1 + pad - k * d) // s + 1)))
        to = ends[(slice(None), *(slice(a, b) for a, b in zip(low, high, strict=True)))]
        places = [
            np.arange(a, b) * s + k * d - pad
            for a, b, k, s, d, (pad, _) in zip(low, high, at, *node.steps, node.pads, strict=True)
        ]
        source = numbers[(slice(None), *np.ix_(*places))]
        if not isinstance(node, nir.Conv):
            sources.append(source.ravel())
            targets.append(to.ravel())
            continue
        outs, ins = node.weight.shape[0] // node.groups, node.weight.shape[1]
        for o, c in np.argwhere(np.moveaxis(node.weight, (0, 1), (-2, -1))[at] != 0):
            sources.append(source[o // outs * ins + c].ravel())
            targets.append(to[o].ravel())
    return np.concatenate([every[:0], *sources]), np.concatenate([every[:0], *targets])
