"""Neurons onto cores under the limits: what fits no core at all, and the filling of core after core in layer order."""

from __future__ import annotations

import numpy as np

from sims.mapping import reach
from sims.mapping.limits import UNBOUNDED, Limits
from sims.mapping.network import Conv2d, Dense, Ints, Network, Projection, Sparse

_ROUNDS = 12


def fans_in(network: Network, projection: Projection) -> Ints:
    """Inputs of each target neuron."""
    source, target = network[projection.source], network[projection.target]
    if isinstance(projection, Dense):
        return np.full(target.neurons, source.neurons, np.int64)
    if isinstance(projection, Sparse):
        return np.bincount(projection.targets, minlength=target.neurons)
    assert source.shape is not None and target.shape is not None
    axes = _taps(projection, source.shape, target.shape)
    field = axes[0][:, None, None] * axes[1][None, :, None] * np.full(target.shape[2], source.shape[2])
    return (field // projection.groups).ravel()


def fans_out(network: Network, projection: Projection) -> Ints:
    """Targets of each source neuron."""
    source, target = network[projection.source], network[projection.target]
    if isinstance(projection, Dense):
        return np.full(source.neurons, target.neurons, np.int64)
    if isinstance(projection, Sparse):
        return np.diff(projection.offsets)
    assert source.shape is not None and target.shape is not None
    axes = []
    for axis in range(2):
        at = np.arange(target.shape[axis])[:, None] * projection.stride[axis] - projection.padding[axis]
        at = (at + np.arange(projection.kernel[axis])).ravel()
        axes.append(np.bincount(at[(at >= 0) & (at < source.shape[axis])], minlength=source.shape[axis]))
    field = axes[0][:, None, None] * axes[1][None, :, None] * np.full(source.shape[2], target.shape[2])
    return (field // projection.groups).ravel()


def problem(network: Network, group: str, limits: Limits) -> str:
    """Why a group fits no core, whatever else is there; empty when it does."""
    incoming = network.incoming(group)
    inputs = np.zeros(network[group].neurons, np.int64)
    bits = np.zeros_like(inputs)
    for projection in incoming:
        if projection.weight_bits > limits.weight_bits:
            return f"weights of {projection.weight_bits} bits, a synapse holds at most {limits.weight_bits}"
        fan = fans_in(network, projection)
        inputs += fan
        if isinstance(projection, Conv2d):
            bits += reach.channel_bits(network, projection)
        else:
            bits += fan * int(limits.row_bits(np.array(limits.synapse_bits(projection))))
    if (most := int(inputs.max(initial=0))) > limits.fan_in:
        return f"a neuron has {most} inputs, the chip takes {limits.fan_in}"
    if most > limits.in_axons:
        return f"a neuron has {most} inputs, a core takes {limits.in_axons}"
    if (most := int(bits.max(initial=0))) > limits.bits:
        return f"one neuron's {most} synapse bits exceed a core's {limits.bits}"
    outputs = np.zeros_like(inputs)
    for projection in network.projections:
        if projection.source == group:
            outputs += fans_out(network, projection)
    if (most := int(outputs.max(initial=0))) > limits.fan_out:
        return f"a neuron has {most} targets, the chip takes {limits.fan_out}"
    return ""


def layer_order(network: Network, limits: Limits) -> tuple[Ints, str]:
    """Fill core after core with the neurons in their order -> (core of each neuron, the group that cannot be placed).

    A core is left when the next neuron would break a limit. What a neuron takes of its core's out-axons is known only
    when its targets have cores, so that the filling is repeated until no core has too many.
    """
    out = np.zeros(network.neurons, np.int64)
    core = np.full(network.neurons, -1, np.int64)
    for _ in range(_ROUNDS):
        core, stuck = _fill(network, limits, out)
        if stuck or limits.out_axons == UNBOUNDED:
            return core, stuck
        found = reach.axons(network, core, limits)
        used = np.bincount(found.source, minlength=network.neurons)
        held = np.bincount(core[core >= 0], used[core >= 0])
        if (held <= limits.out_axons).all():
            return core, ""
        out = np.maximum(out, used)
    at = int(np.argmax(np.where(core >= 0, out, -1)))
    return core, next(g.name for g in network.groups if network.starts[g.name] <= at < network.span(g.name).stop)


def _fill(network: Network, limits: Limits, out: Ints) -> tuple[Ints, str]:
    most = np.array([limits.neurons, limits.in_axons, limits.bits, limits.out_axons])
    core = np.full(network.neurons, -1, np.int64)
    at, used = 0, np.zeros(4, np.int64)
    for group in network.groups:
        if not group.placed:
            continue
        parts = [_part(network, projection, limits) for projection in network.incoming(group.name)]
        start, first, guess = network.starts[group.name], 0, 256
        while first < group.neurons:
            length = min(guess, group.neurons - first)
            needs = np.zeros((4, length), np.int64)
            needs[0] = np.arange(1, length + 1)
            needs[3] = np.cumsum(out[start + first : start + first + length])
            for part in parts:
                needs[1:3] += part.take(first, length)
            fits = int((needs + used[:, None] <= most[:, None]).all(axis=0).sum())  # needs rise: a prefix fits
            if fits == length < group.neurons - first:
                guess *= 2
                continue
            if fits:
                core[start + first : start + first + fits] = at
                used = used + needs[:, fits - 1]
                first += fits
                for part in parts:
                    part.forget(first)
                guess = max(64, 2 * fits)
            elif not used.any():
                return core, group.name
            if first < group.neurons:
                at, used = at + 1, np.zeros(4, np.int64)
    return core, ""


class _DensePart:
    """What slices of a group need on a core for a dense projection."""

    def __init__(self, sources: int, bits: int, limits: Limits) -> None:
        self._sources, self._bits, self._limits = sources, bits, limits

    def take(self, first: int, length: int) -> Ints:
        """(in-axons, bits) of the slices [first, first + 1), [first, first + 2), ... -> [2, length]."""
        rows = self._limits.row_bits(np.arange(1, length + 1) * self._bits)
        return np.stack([np.full(length, self._sources), self._sources * rows])

    def forget(self, first: int) -> None:
        """Slices before ``first`` are placed."""


class _ConvolutionPart(_DensePart):
    """The axons are those of the box that the slice sees; the kernel counts once for each channel that is there."""

    def __init__(self, network: Network, projection: Conv2d) -> None:
        source, target = network[projection.source].shape, network[projection.target].shape
        assert source is not None and target is not None
        self._projection, self._source, self._target = projection, source, target
        self._channel = reach.channel_bits(network, projection)

    def take(self, first: int, length: int) -> Ints:
        _, rows, channels = self._target
        last = first + np.arange(length)
        x0, x1 = np.full(length, first // (rows * channels)), last // (rows * channels)
        alone = x0 == x1
        y0 = np.where(alone, first // channels % rows, 0)
        y1 = np.where(alone, last // channels % rows, rows - 1)
        sides = self._seen(0, x0, x1) * self._seen(1, y0, y1)
        held = np.minimum(np.arange(1, length + 1), channels)
        return np.stack([sides * self._source[2], held * self._channel])

    def _seen(self, axis: int, first: Ints, last: Ints) -> Ints:
        step, pad = self._projection.stride[axis], self._projection.padding[axis]
        low = np.maximum(first * step - pad, 0)
        high = np.minimum(last * step - pad + self._projection.kernel[axis], self._source[axis])
        return np.maximum(high - low, 0)


class _SparsePart(_DensePart):
    """The k-th synapse of a source within a slice makes its row longer, the first one takes an axon."""

    def __init__(self, network: Network, projection: Sparse, limits: Limits) -> None:
        sources = network[projection.source].neurons
        rows = np.repeat(np.arange(sources), np.diff(projection.offsets))
        order = np.argsort(projection.targets, kind="stable")
        self._sources = rows[order]
        self._ends = np.cumsum([0, *np.bincount(projection.targets, minlength=network[projection.target].neurons)])
        self._rank = _ranks(self._sources, sources)
        self._placed = np.zeros(sources, np.int64)
        self._first, self._bits, self._limits = 0, limits.synapse_bits(projection), limits

    def take(self, first: int, length: int) -> Ints:
        start, stop = self._ends[first], self._ends[first + length]
        sources = self._sources[start:stop]
        rank = self._rank[start:stop] - self._placed[sources]
        grows = self._limits.row_bits((rank + 1) * self._bits) - self._limits.row_bits(rank * self._bits)
        ends = self._ends[first + 1 : first + length + 1] - start
        return np.stack([np.concatenate([[0], np.cumsum(x)])[ends] for x in (rank == 0, grows)])

    def forget(self, first: int) -> None:
        seen = self._sources[self._ends[self._first] : self._ends[first]]
        self._placed += np.bincount(seen, minlength=len(self._placed))
        self._first = first


def _part(network: Network, projection: Projection, limits: Limits) -> _DensePart:
    if isinstance(projection, Dense):
        return _DensePart(network[projection.source].neurons, limits.synapse_bits(projection), limits)
    if isinstance(projection, Conv2d):
        return _ConvolutionPart(network, projection)
    return _SparsePart(network, projection, limits)


def _ranks(values: Ints, number: int) -> Ints:
    """How many equal values stand before each."""
    order = np.argsort(values, kind="stable")
    counts = np.bincount(values, minlength=number)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    ranks = np.empty(len(values), np.int64)
    ranks[order] = np.arange(len(values)) - starts
    return ranks


def _taps(projection: Conv2d, source: tuple[int, int, int], target: tuple[int, int, int]) -> list[Ints]:
    """Kernel taps that fall inside the source, for each target position on each axis."""
    taps = []
    for axis in range(2):
        low = np.arange(target[axis]) * projection.stride[axis] - projection.padding[axis]
        high = np.minimum(low + projection.kernel[axis], source[axis])
        taps.append(np.maximum(high - np.maximum(low, 0), 0))
    return taps
