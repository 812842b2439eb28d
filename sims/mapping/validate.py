"""An independent check of an assignment: every limit counted again, synapse by synapse, from the network and the chip's file.

Shares no counting with the placer: it lists synapses one by one (source, target), and knows nothing of rows of a matrix,
boxes or slices. Slower, and plain.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from sims.chips import Chip
from sims.mapping.network import Conv2d, Dense, Ints, Network, Projection, Sparse

_BLOCK = 1 << 22  # synapses listed at a time


def check(network: Network, core: Ints, chip: Chip, chips: int | None = None) -> list[str]:
    """What an assignment breaks, in words; nothing when it is legal.

    Args:
        core: of each neuron [neurons], counted through all chips; -1 for inputs from outside.
        chips: that there are; None for as many as the highest core asks for.
    """
    given = chip.limits
    total = sum(group.neurons for group in network.groups)
    if len(core) != total:
        return [f"{len(core)} neurons have a core, the network has {total}"]
    broken: list[str] = []
    first = 0
    sends = {projection.source for projection in network.projections}
    role = np.zeros(total, np.int64)  # 0 from outside, 1 neuron, 2 output beside the neurons
    for group in network.groups:
        mine = core[first : first + group.neurons]
        if group.placed and (mine < 0).any():
            broken.append(f"{group.name}: {int((mine < 0).sum())} neurons have no core")
        if not group.placed and (mine >= 0).any():
            broken.append(f"{group.name}: {int((mine >= 0).sum())} neurons from outside have a core")
        if group.placed:
            role[first : first + group.neurons] = 2 if "hidden_neurons" in given and group.name not in sends else 1
        first += group.neurons
    if broken:
        return broken
    width = int(core.max(initial=-1)) + 1
    if chips is not None and width > chips * given["cores"]:
        broken.append(f"core {width - 1}: {chips} chips have {chips * given['cores']}")
    if "kernel_words_per_core" in chip.rows:
        return broken + _layers(network, core, chip)
    count, memory, far = _recount(network, core, chip, role, width)
    crossbar = "crossbar_rows" in given or "hidden_neurons" in given
    words = given.get("synapse_word_bits", 1)
    room = given.get("synapse_memory_units_per_core", 0) * words or given.get("synapse_bits_per_core")
    for name, load, most in (
        ("neurons", np.bincount(core[role == 1], minlength=width), given.get("compartments_per_core")),
        ("axons in", count["into"], given.get("in_axons_per_core")),
        ("axons out", count["out"], given.get("out_axons_per_core")),
        ("bits of synapses", memory, None if crossbar else room),
        ("synapses", count["synapses"], given.get("synapses_per_core") if crossbar else None),
    ):
        if most is not None:
            broken += [f"core {at}: {load[at]} {name} of {most}" for at in np.flatnonzero(load > most).tolist()]
    for name, value, limit in (
        ("bits a weight", max((p.weight_bits for p in network.projections), default=0), "weight_bits"),
        ("inputs of a neuron", int(count["fan_in"].max(initial=0)), "fan_in"),
        ("targets of a neuron", int(count["fan_out"].max(initial=0)), "fan_out"),
        ("words of one axon", int(far["words"]), "axon_list_words"),
        ("cores that a neuron reaches", int(far["cores"]), "target_axons_per_neuron"),
        ("chips that a neuron reaches", int(far["chips"]), "target_chips_per_neuron"),
        ("inputs", int(count["inputs"]), "input_channels"),
        ("outputs", int((role == 2).sum()), "output_neurons"),
        ("hidden neurons with an input", int(count["reached"]), "input_expansion_neurons"),
        ("hidden neurons with an output", int(count["reaching"]), "output_expansion_neurons"),
    ):
        if limit in given and value > given[limit]:
            broken.append(f"{value} {name} of {given[limit]}")
    return broken


def _layers(network: Network, core: Ints, chip: Chip) -> list[str]:
    """What is broken on a chip whose cores are layers: one group each, its kernel and its neurons in words."""
    broken: list[str] = []
    owner: dict[int, str] = {}
    first = 0
    for group in network.groups:
        mine = sorted(set(core[first : first + group.neurons].tolist()))
        first += group.neurons
        if not group.placed:
            continue
        if len(mine) != 1:
            broken.append(f"{group.name}: on {len(mine)} layers, expected 1")
            continue
        if mine[0] in owner:
            broken.append(f"{group.name}: layer {mine[0]} holds {owner[mine[0]]}")
        owner[mine[0]] = group.name
        arriving = [p for p in network.projections if p.target == group.name]
        if len(arriving) != 1 or isinstance(arriving[0], Sparse):
            broken.append(f"{group.name}: {len(arriving)} inputs, expected one convolution")
            continue
        p, source = arriving[0], network[arriving[0].source]
        if isinstance(p, Conv2d):
            assert source.shape is not None and group.shape is not None
            across, down, deep, out = *p.kernel, source.shape[2], group.shape
        else:
            across, down, deep = source.shape or (1, 1, source.neurons)
            out = (1, 1, group.neurons)
        kernel = deep * 2 ** math.ceil(math.log2(across * down)) * 2 ** math.ceil(math.log2(out[2]))
        words = out[2] * 2 ** math.ceil(math.log2(out[0])) * 2 ** math.ceil(math.log2(out[1]))
        for name, value, most in (
            ("kernel words", kernel, chip.options("kernel_words_per_core")[mine[0]]),
            ("neuron words", words, chip.options("compartments_per_core")[mine[0]]),
            ("channels", max(deep, out[2]), chip.limits["channels_per_layer"]),
            ("pixels of kernel", max(across, down), chip.limits["kernel_side"]),
            ("pixels of output", max(out[:2]), chip.limits["output_side"]),
            ("bits a weight", p.weight_bits, chip.limits["weight_bits"]),
            ("layers sent to", sum(q.source == group.name for q in network.projections), chip.limits["fan_out_layers"]),
        ):
            if value > most:
                broken.append(f"{group.name}: {value} {name} of {most}")
    return broken


def _recount(
    network: Network, core: Ints, chip: Chip, role: Ints, width: int
) -> tuple[dict[str, Any], Ints, dict[str, int]]:
    """Counts of the synapses one by one, memory of each core, and how far neurons reach."""
    given, total = chip.limits, len(core)
    hidden_only = "hidden_neurons" in given
    fan_in, fan_out = np.zeros(total, np.int64), np.zeros(total, np.int64)
    from_outside, to_output, uses = (np.zeros(total, bool) for _ in range(3))
    pairs, numbers, payloads, synapses = [], [], [], np.zeros(width, np.int64)
    kernels = []
    for number, projection in enumerate(network.projections):
        shared = isinstance(projection, Conv2d)
        each = projection.weight_bits + (given.get("index_bits", 0) if isinstance(projection, Sparse) else 0)
        for sources, targets, channels in _synapses(network, projection):
            counts = (role[sources] == 1) & (role[targets] == 1) if hidden_only else np.ones(len(sources), bool)
            fan_in += np.bincount(targets[counts], minlength=total)
            fan_out += np.bincount(sources[counts], minlength=total)
            synapses += np.bincount(core[targets[counts]], minlength=width)
            from_outside[targets[role[sources] == 0]] = True
            to_output[sources[role[targets] == 2]] = True
            uses[sources] = True
            pair, many = _distinct(sources * width + core[targets])
            pairs.append(pair)
            numbers.append(np.zeros_like(many) if shared else many)
            payloads.append(np.zeros_like(many) if shared else many * each)
            if shared:
                deep = int(channels.max(initial=0)) + 1
                cores, channel = np.divmod(_distinct(core[targets] * deep + channels)[0], deep)
                kernels.append(np.stack([cores, np.full(len(cores), number), channel]))
    where = np.concatenate([np.zeros(0, np.int64), *pairs])
    pair, inverse = np.unique(where, return_inverse=True)
    held, bits = np.zeros(len(pair), np.int64), np.zeros(len(pair), np.int64)
    np.add.at(held, inverse, np.concatenate([np.zeros(0, np.int64), *numbers]))
    np.add.at(bits, inverse, np.concatenate([np.zeros(0, np.int64), *payloads]))
    source, place = pair // max(1, width), pair % max(1, width)
    words = _words(given, held, bits)
    memory = np.zeros(width, np.int64)
    np.add.at(memory, place, words * given.get("synapse_word_bits", 1))
    for at, number, row in _kernel_rows(network, kernels):
        projection = network.projections[number]
        assert isinstance(projection, Conv2d)
        shape = network[projection.source].shape
        assert shape is not None
        taps = projection.kernel[0] * projection.kernel[1] * (shape[2] // projection.groups)
        length = _words(given, np.array([row]), np.array([row * projection.weight_bits]))[0]
        memory[at] += taps * length * given.get("synapse_word_bits", 1)
    placed = core[source] >= 0
    chips = np.unique(source[placed] * width + place[placed] // given["cores"]) // max(1, width)
    count = {
        "into": np.bincount(place, minlength=width),
        "out": np.bincount(core[source[placed]], minlength=width),
        "synapses": synapses,
        "fan_in": fan_in,
        "fan_out": fan_out,
        "inputs": (uses & (role == 0)).sum(),
        "reached": (from_outside & (role == 1)).sum(),
        "reaching": (to_output & (role == 1)).sum(),
    }
    far = {
        "words": words.max(initial=0),
        "cores": np.bincount(source[placed]).max(initial=0),
        "chips": np.bincount(chips).max(initial=0),
    }
    return count, memory, far


def _distinct(values: Ints) -> tuple[Ints, Ints]:
    """Each value once, and how often it stands there."""
    values = np.sort(values)
    first = np.flatnonzero(np.diff(values, prepend=-1))
    return values[first], np.diff(first, append=len(values))


def _words(given: dict[str, int], synapses: Ints, bits: Ints) -> Ints:
    """Words of rows: a header for each block of synapses, then the weights."""
    block = given.get("synapses_per_block", 1 << 40)
    header = given.get("synapse_header_bits", 0) * np.ceil(synapses / block).astype(np.int64)
    return np.ceil((bits + header) / given.get("synapse_word_bits", 1)).astype(np.int64)


def _kernel_rows(network: Network, kernels: list[Ints]) -> Iterator[tuple[int, int, int]]:
    """(core, projection, output channels there) of each group of channels of a shared kernel."""
    seen: dict[tuple[int, int, int], set[int]] = {}
    for block in kernels:
        for at, number, channel in block.T.tolist():
            projection = network.projections[number]
            shape = network[projection.target].shape
            assert isinstance(projection, Conv2d) and shape is not None
            group = channel // (shape[2] // projection.groups)
            seen.setdefault((at, number, group), set()).add(channel)
    for (at, number, _), channels in seen.items():
        yield at, number, len(channels)


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
