"""An independent check of an assignment: every limit counted again, synapse by synapse, from the network and the chip's file.

Shares no counting with the placer: it lists synapses one by one (source, target), and knows nothing of rows of a matrix,
boxes or slices. Slower, and plain.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sims.chips import Chip
from sims.mapping.network import Conv2d, Dense, Ints, Network, Projection

_BLOCK = 1 << 22  # synapses listed at a time


def check(network: Network, core: Ints, chip: Chip) -> list[str]:
    """What an assignment breaks, in words; nothing when it is legal.

    Args:
        core: of each neuron [neurons], counted through all chips; -1 for inputs from outside.
    """
    given = chip.limits
    broken = []
    first = 0
    for group in network.groups:
        mine = core[first : first + group.neurons]
        if group.placed and (mine < 0).any():
            broken.append(f"{group.name}: {int((mine < 0).sum())} neurons have no core")
        if not group.placed and (mine >= 0).any():
            broken.append(f"{group.name}: {int((mine >= 0).sum())} neurons from outside have a core")
        first += group.neurons
    if len(core) != first:
        return [f"{len(core)} neurons have a core, the network has {first}"]
    if broken:
        return broken
    width = int(core.max(initial=-1)) + 1
    held = np.zeros(width, np.int64)
    for at in core[core >= 0].tolist():
        held[at] += 1
    rows: dict[int, int] = {}  # source x width + core: bits of the row
    kernels: set[tuple[int, int, int]] = set()
    memory = np.zeros(width, np.int64)
    inputs, outputs = np.zeros(len(core), np.int64), np.zeros(len(core), np.int64)
    for number, projection in enumerate(network.projections):
        if projection.weight_bits > given["weight_bits"]:
            broken.append(
                f"{projection.source} to {projection.target}: {projection.weight_bits} bits a weight "
                f"of {given['weight_bits']}"
            )
        for sources, targets, channels in _synapses(network, projection):
            inputs += np.bincount(targets, minlength=len(core))
            outputs += np.bincount(sources, minlength=len(core))
            keys, counts = np.unique(sources * width + core[targets], return_counts=True)
            each = 0 if isinstance(projection, Conv2d) else projection.weight_bits
            for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
                rows[key] = rows.get(key, 0) + count * each
            if isinstance(projection, Conv2d):
                there = np.unique(np.stack([core[targets], channels]), axis=1)
                kernels.update((number, int(place), int(channel)) for place, channel in there.T)
    for number, place, _ in kernels:
        projection = network.projections[number]
        assert isinstance(projection, Conv2d)
        shape = network[projection.source].shape
        assert shape is not None
        area = projection.kernel[0] * projection.kernel[1]
        memory[place] += area * (shape[2] // projection.groups) * projection.weight_bits
    into, out = np.zeros(width, np.int64), np.zeros(width, np.int64)
    for key, bits in rows.items():
        source, place = divmod(key, width)
        into[place] += 1
        memory[place] += bits
        if core[source] >= 0:
            out[core[source]] += 1
    for name, load, most in (
        ("neurons", held, given["compartments_per_core"]),
        ("axons in", into, given["in_axons_per_core"]),
        ("axons out", out, given["out_axons_per_core"]),
        ("bits of synapses", memory, given["synapse_bits_per_core"]),
    ):
        broken += [f"core {at}: {load[at]} {name} of {most}" for at in np.flatnonzero(load > most).tolist()]
    return broken


def _synapses(network: Network, projection: Projection) -> Iterator[tuple[Ints, Ints, Ints]]:
    """(source, target, output channel) of the synapses, numbered through all groups, block by block."""
    source, target = network[projection.source], network[projection.target]
    ahead = {group.name: sum(g.neurons for g in network.groups[:i]) for i, group in enumerate(network.groups)}
    first, base = ahead[source.name], ahead[target.name]
    if isinstance(projection, Dense):
        step = max(1, _BLOCK // max(1, target.neurons))
        for start in range(0, source.neurons, step):
            rows = np.arange(start, min(start + step, source.neurons))
            yield np.repeat(first + rows, target.neurons), np.tile(base + np.arange(target.neurons), len(rows)), rows
        return
    if not isinstance(projection, Conv2d):
        step = max(1, _BLOCK * source.neurons // max(1, len(projection.targets)))
        for start in range(0, source.neurons, step):
            ends = projection.offsets[start : start + step + 1]
            rows = np.repeat(np.arange(start, start + len(ends) - 1), ends[1:] - ends[:-1])
            yield first + rows, base + projection.targets[ends[0] : ends[-1]], rows
        return
    assert source.shape is not None and target.shape is not None
    wide, high, deep = source.shape
    inputs, outputs = deep // projection.groups, target.shape[2] // projection.groups
    taps = np.arange(projection.kernel[0] * projection.kernel[1] * inputs)
    tap_x, rest = np.divmod(taps, projection.kernel[1] * inputs)
    tap_y, tap_c = np.divmod(rest, inputs)
    step = max(1, _BLOCK // len(taps))
    for start in range(0, target.neurons, step):
        rows = np.arange(start, min(start + step, target.neurons))
        channel = rows % target.shape[2]
        y, x = rows // target.shape[2] % target.shape[1], rows // (target.shape[2] * target.shape[1])
        from_x = x[:, None] * projection.stride[0] - projection.padding[0] + tap_x
        from_y = y[:, None] * projection.stride[1] - projection.padding[1] + tap_y
        from_c = (channel // outputs * inputs)[:, None] + tap_c
        inside = (from_x >= 0) & (from_x < wide) & (from_y >= 0) & (from_y < high)
        sources = ((from_x * high + from_y) * deep + from_c)[inside]
        targets = np.broadcast_to(rows[:, None], inside.shape)[inside]
        yield first + sources, base + targets, targets % target.shape[2]
