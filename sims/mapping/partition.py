"""Neurons onto cores under the limits: what fits no core at all, and the filling of core after core in layer order."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from sims.mapping import reach
from sims.mapping.limits import UNBOUNDED, Limits
from sims.mapping.network import Conv2d, Dense, Group, Ints, Network, Projection, Sparse

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
    hidden = [name for name, counted in limits.counted(network).items() if counted]
    inputs = np.zeros(network[group].neurons, np.int64)
    bits, fan_in, outputs = (np.zeros_like(inputs) for _ in range(3))
    for projection in incoming:
        if projection.weight_bits > limits.weight_bits:
            return f"weights of {projection.weight_bits} bits, a synapse holds at most {limits.weight_bits}"
        fan = fans_in(network, projection)
        inputs += fan
        if not limits.roles or projection.source in hidden:
            fan_in += fan
        if isinstance(projection, Conv2d):
            bits += reach.taps(network, projection) * _row(limits, projection.weight_bits)
        else:
            bits += fan * _row(limits, limits.synapse_bits(projection))
    if (most := int(fan_in.max(initial=0))) > limits.fan_in and (not limits.roles or group in hidden):
        return f"a neuron has {most} inputs, the chip takes {limits.fan_in}"
    if (most := int(inputs.max(initial=0))) > limits.in_axons:
        return f"a neuron has {most} inputs, a core takes {limits.in_axons}"
    if (most := int(bits.max(initial=0))) > limits.bits:
        return f"one neuron's {most} synapse bits exceed a core's {limits.bits}"
    for projection in network.projections:
        if projection.source == group and (not limits.roles or projection.target in hidden):
            outputs += fans_out(network, projection)
    if (most := int(outputs.max(initial=0))) > limits.fan_out:
        return f"a neuron has {most} targets, the chip takes {limits.fan_out}"
    return _role_problem(network, group, limits) if limits.roles else ""


def _role_problem(network: Network, group: str, limits: Limits) -> str:
    """What a chip with places for inputs, hidden and output neurons cannot give a group."""
    roles = limits.counted(network)
    if not roles[group]:
        outputs = sum(network[name].neurons for name, counted in roles.items() if not counted)
        if outputs > limits.outputs:
            return f"{outputs} output neurons, the chip has {limits.outputs}"
        return ""
    inputs = [g for g in network.groups if not g.placed and any(p.source == g.name for p in network.projections)]
    if (number := sum(g.neurons for g in inputs)) > limits.inputs:
        return f"{number} inputs, the chip has {limits.inputs} input channels"
    reached = reaching = synapses = 0
    for projection in network.projections:
        outside = not network[projection.source].placed
        if projection.target == group and outside:
            reached = max(reached, int((fans_in(network, projection) > 0).sum()))
        if projection.source == group and not roles[projection.target]:
            reaching = max(reaching, int((fans_out(network, projection) > 0).sum()))
        if not outside and roles[projection.source] and roles[projection.target]:
            synapses += int(fans_in(network, projection).sum())
    for number, most, words in (
        (reached, limits.input_reach, "hidden neurons that the input reaches"),
        (reaching, limits.output_reach, "hidden neurons that reach the output"),
        (synapses, limits.synapses, "synapses between hidden neurons"),
    ):
        if number > most:
            return f"{number} {words}, the chip has {most}"
    return ""


def _row(limits: Limits, bits: int) -> int:
    """Memory of a row of one synapse."""
    return int(limits.row_bits(np.array(1), np.array(bits)))


def layer_order(network: Network, limits: Limits) -> tuple[Ints, str, str]:
    """Fill core after core with the neurons in their order -> (core of each neuron, the group that cannot be placed, why).

    A core is left when the next neuron would break a limit. What a neuron takes of its core's out-axons is known only
    when its targets have cores, so that the filling is repeated until no core has too many.
    """
    out = np.zeros(network.neurons, np.int64)
    core = np.full(network.neurons, -1, np.int64)
    parts = {g.name: [_part(network, p, limits) for p in network.incoming(g.name)] for g in network.groups if g.placed}
    for _ in range(_ROUNDS):
        core, stuck = _fill(network, limits, out, parts)
        if stuck:
            break
        if limits.out_axons == limits.targets == UNBOUNDED:
            return core, "", ""
        found = reach.axons(network, core, limits)
        used = np.where(core >= 0, np.bincount(found.source, minlength=network.neurons), 0)
        held = np.bincount(core[core >= 0], used[core >= 0])
        if (most := int(used.max(initial=0))) > limits.targets:
            what = f"a neuron's targets lie on {most} cores, the chip lets it reach {limits.targets}"
            return core, _group(network, int(used.argmax())), what
        if (held <= limits.out_axons).all():
            return core, "", ""
        out = np.maximum(out, used)
    else:
        stuck = _group(network, int(out.argmax()))
    if (most := int(out[network.span(stuck)].max(initial=0))) > limits.out_axons:
        return core, stuck, f"a neuron needs {most} out-axons, a core has {limits.out_axons}"
    return core, stuck, "a core of its own does not hold one neuron"


def ordered(network: Network, places: Ints, vertex: Ints, limits: Limits) -> Ints | None:
    """As `layer_order`, with the neurons of each group in another order; None where that cannot be placed.

    Args:
        places: of all placed neurons in that order.
        vertex: the number of each neuron among the placed ones.
    """
    order: dict[str, Ints] = {}
    groups: list[Group] = []
    for group in network.groups:
        free = group.placed and not any(
            isinstance(p, Conv2d) and group.name in (p.source, p.target) for p in network.projections
        )
        mine = places[vertex[network.span(group.name)]] if free else np.arange(group.neurons)
        order[group.name] = np.argsort(mine, kind="stable")
        groups.append(dataclasses.replace(group, rate=group.rates[order[group.name]]))
    projections: list[Projection] = []
    for p in network.projections:
        if isinstance(p, Sparse):
            counts = np.diff(p.offsets)[order[p.source]]
            offsets = np.concatenate([[0], np.cumsum(counts)])
            take = np.arange(offsets[-1]) + np.repeat(p.offsets[:-1][order[p.source]] - offsets[:-1], counts)
            targets = np.argsort(order[p.target])[p.targets[take]]
            p = dataclasses.replace(p, offsets=offsets, targets=targets)
        projections.append(p)
    core, stuck, _ = layer_order(Network(network.name, tuple(groups), tuple(projections)), limits)
    if stuck:
        return None
    back = np.empty_like(core)
    for group in network.groups:
        back[network.starts[group.name] + order[group.name]] = core[network.span(group.name)]
    return back


def _group(network: Network, neuron: int) -> str:
    return next(g.name for g in network.groups if network.starts[g.name] <= neuron < network.span(g.name).stop)


def _fill(network: Network, limits: Limits, out: Ints, all_parts: dict[str, list[_DensePart]]) -> tuple[Ints, str]:
    most = np.array([limits.neurons, limits.in_axons, limits.bits, limits.out_axons])
    core = np.full(network.neurons, -1, np.int64)
    at, used, counted = 0, np.zeros(4, np.int64), limits.counted(network)
    there = np.zeros(network.neurons, bool)  # sources with an axon on this core
    for group in network.groups:
        if not group.placed:
            continue
        parts = all_parts[group.name]
        for part in parts:
            part.restart()
        start, first, guess = network.starts[group.name], 0, 256
        if limits.targets < UNBOUNDED:  # a group that is cut is reached on two cores
            at, used = at + int(used.any()), np.zeros(4, np.int64)
            there[:] = False
        while first < group.neurons:
            length = min(guess, group.neurons - first)
            needs = np.zeros((4, length), np.int64)
            if counted[group.name]:
                needs[0] = np.arange(1, length + 1)
            needs[3] = np.cumsum(out[start + first : start + first + length])
            for part in parts:
                needs[1:3] += part.take(first, length, there)
            fits = int((needs + used[:, None] <= most[:, None]).all(axis=0).sum())  # needs rise: a prefix fits
            if fits == length < group.neurons - first:
                guess *= 2
                continue
            if fits:
                core[start + first : start + first + fits] = at
                used = used + needs[:, fits - 1]
                first += fits
                for part in parts:
                    part.forget(first, there)
                guess = max(64, 2 * fits)
            elif not used.any():
                return core, group.name
            if first < group.neurons:
                at, used = at + 1, np.zeros(4, np.int64)
                there[:] = False
    return core, ""


class _DensePart:
    """What slices of a group need on a core for a dense projection."""

    def __init__(self, sources: slice, bits: int, limits: Limits) -> None:
        self._span, self._bits, self._limits = sources, bits, limits
        self._sources = sources.stop - sources.start

    def take(self, first: int, length: int, there: NDArray[np.bool_]) -> Ints:
        """(in-axons, bits) of the slices [first, first + 1), [first, first + 2), ... -> [2, length].

        Args:
            there: sources that have an axon on the core already.
        """
        number = np.arange(1, length + 1)
        rows = self._limits.row_bits(number, number * self._bits)
        new = self._sources - int(there[self._span].sum())
        return np.stack([np.full(length, new), self._sources * rows])

    def forget(self, first: int, there: NDArray[np.bool_]) -> None:
        """Slices before ``first`` are placed, and their sources are there."""
        there[self._span] = True

    def restart(self) -> None:
        """Nothing is placed."""


class _ConvolutionPart(_DensePart):
    """The axons are those of the box that the slice sees; the kernel counts once for each channel that is there."""

    def __init__(self, network: Network, projection: Conv2d, limits: Limits) -> None:
        source, target = network[projection.source].shape, network[projection.target].shape
        assert source is not None and target is not None
        self._projection, self._source, self._target = projection, source, target
        channels = np.arange(target[2] + 1)  # consecutive neurons of one position are those of consecutive channels
        self._rows = limits.row_bits(channels, channels * projection.weight_bits) * reach.taps(network, projection)
        self._groups = projection.groups

    def take(self, first: int, length: int, there: NDArray[np.bool_]) -> Ints:
        _, rows, channels = self._target
        last = first + np.arange(length)
        x0, x1 = np.full(length, first // (rows * channels)), last // (rows * channels)
        alone = x0 == x1
        y0 = np.where(alone, first // channels % rows, 0)
        y1 = np.where(alone, last // channels % rows, rows - 1)
        sides = self._seen(0, x0, x1) * self._seen(1, y0, y1)
        held = np.minimum(np.arange(1, length + 1), channels)
        bits = (
            self._rows[held] if self._groups == 1 else held * self._rows[1]
        )  # a row of each channel: at least as much
        return np.stack([sides * self._source[2], bits])

    def forget(self, first: int, there: NDArray[np.bool_]) -> None:
        """The box is counted again for the next group on the core."""

    def _seen(self, axis: int, first: Ints, last: Ints) -> Ints:
        step, pad = self._projection.stride[axis], self._projection.padding[axis]
        low = np.maximum(first * step - pad, 0)
        high = np.minimum(last * step - pad + self._projection.kernel[axis], self._source[axis])
        return np.maximum(high - low, 0)


class _SparsePart(_DensePart):
    """The k-th synapse of a source within a slice makes its row longer, the first one takes an axon."""

    def __init__(self, network: Network, projection: Sparse, limits: Limits) -> None:
        count, width = len(projection.targets), network[projection.target].neurons
        rows = np.repeat(np.arange(network[projection.source].neurons), np.diff(projection.offsets))
        targets = np.sort(rows * width + projection.targets) % max(1, width)  # each row ascends
        place = np.sort(targets * count + np.arange(count)) % max(1, count)  # by target, then by source
        self._origin = rows[place]
        self._rank = (np.arange(count) - projection.offsets[rows])[place]  # among the source's targets
        self._ends = np.concatenate([[0], np.cumsum(np.bincount(targets, minlength=width))])
        self._bits, self._limits = limits.synapse_bits(projection), limits
        self._number, self._span = network[projection.source].neurons, network.span(projection.source)
        self.restart()

    def restart(self) -> None:
        self._placed, self._first = np.zeros(self._number, np.int64), 0

    def take(self, first: int, length: int, there: NDArray[np.bool_]) -> Ints:
        start, stop = self._ends[first], self._ends[first + length]
        sources = self._origin[start:stop]
        rank = self._rank[start:stop] - self._placed[sources]
        longer, before = (self._limits.row_bits(n, n * self._bits) for n in (rank + 1, rank))
        grows = longer - before
        new = (rank == 0) & ~there[self._span.start + sources]
        ends = self._ends[first + 1 : first + length + 1] - start
        return np.stack([np.concatenate([[0], np.cumsum(x)])[ends] for x in (new, grows)])

    def forget(self, first: int, there: NDArray[np.bool_]) -> None:
        seen = self._origin[self._ends[self._first] : self._ends[first]]
        self._placed += np.bincount(seen, minlength=len(self._placed))
        there[self._span.start + seen] = True
        self._first = first


def _part(network: Network, projection: Projection, limits: Limits) -> _DensePart:
    if isinstance(projection, Dense):
        return _DensePart(network.span(projection.source), limits.synapse_bits(projection), limits)
    if isinstance(projection, Conv2d):
        return _ConvolutionPart(network, projection, limits)
    return _SparsePart(network, projection, limits)


def _taps(projection: Conv2d, source: tuple[int, int, int], target: tuple[int, int, int]) -> list[Ints]:
    """Kernel taps that fall inside the source, for each target position on each axis."""
    taps = []
    for axis in range(2):
        low = np.arange(target[axis]) * projection.stride[axis] - projection.padding[axis]
        high = np.minimum(low + projection.kernel[axis], source[axis])
        taps.append(np.maximum(high - np.maximum(low, 0), 0))
    return taps
