"""Which cores a neuron's synapses lie on, and what a core then holds, counted exactly for any assignment."""

from __future__ import annotations

import dataclasses

import numpy as np

from sims.mapping.limits import Limits
from sims.mapping.network import Conv2d, Dense, Ints, Network, Projection, Sparse


@dataclasses.dataclass(frozen=True)
class Axons:
    """One row for each source neuron and core that holds at least one of its targets.

    Args:
        source: the neuron's number.
        core: where the targets are.
        synapses: how many of its targets are there.
        bits: memory of their weights, before headers and alignment; a convolution's shared kernel is not in it.
    """

    source: Ints
    core: Ints
    synapses: Ints
    bits: Ints


@dataclasses.dataclass(frozen=True)
class Loads:
    """What each core holds [cores]."""

    neurons: Ints
    in_axons: Ints
    out_axons: Ints
    bits: Ints

    def over(self, limits: Limits) -> dict[str, Ints]:
        """The cores that hold more of something than they may."""
        kinds = (field.name for field in dataclasses.fields(self))
        return {kind: np.flatnonzero(getattr(self, kind) > getattr(limits, kind)) for kind in kinds}


def axons(network: Network, core: Ints, limits: Limits) -> Axons:
    """The axons of an assignment.

    Args:
        core: of each neuron [neurons]; -1 for one that comes from outside.
    """
    cores = int(core.max(initial=0)) + 1
    keys, synapses, bits = [], [], []
    for projection in network.projections:
        sources, at, count = _pairs(network, projection, core, cores)
        keys.append((network.starts[projection.source] + sources) * cores + at)
        synapses.append(count)
        bits.append(count * limits.synapse_bits(projection))
    if not keys:
        return Axons(*(np.zeros(0, np.int64) for _ in range(4)))
    if len(keys) == 1:  # its pairs differ from each other
        return Axons(keys[0] // cores, keys[0] % cores, synapses[0], bits[0])
    key, place = np.unique(np.concatenate(keys), return_inverse=True)
    totals = [np.bincount(place, np.concatenate(x), len(key)).astype(np.int64) for x in (synapses, bits)]
    return Axons(key // cores, key % cores, *totals)


def loads(network: Network, core: Ints, limits: Limits, found: Axons, cores: int) -> Loads:
    """What the cores hold under an assignment whose axons were found."""
    bits = np.bincount(found.core, limits.row_bits(found.synapses, found.bits), cores).astype(np.int64)
    for projection in network.projections:
        if isinstance(projection, Conv2d):
            bits += kernel_bits(network, projection, core, cores, limits)
    out = core[found.source]
    counts = np.zeros(cores, np.int64)
    for name, counted in limits.counted(network).items():
        if counted:
            counts += np.bincount(core[network.span(name)], minlength=cores)
    return Loads(
        counts,
        np.bincount(found.core, minlength=cores),
        np.bincount(out[out >= 0], minlength=cores),
        bits,
    )


def taps(network: Network, projection: Conv2d) -> int:
    """Weights that make one output channel."""
    shape = network[projection.source].shape
    assert shape is not None
    return projection.kernel[0] * projection.kernel[1] * (shape[2] // projection.groups)


def kernel_bits(network: Network, projection: Conv2d, core: Ints, cores: int, limits: Limits) -> Ints:
    """Memory of a shared kernel on each core: of the output channels that the core has a neuron of."""
    shape = network[projection.target].shape
    assert shape is not None
    at, groups = core[network.span(projection.target)].astype(np.int64), projection.groups
    held = np.unique(at * shape[2] + np.arange(len(at)) % shape[2])
    row, channels = np.unique(held // (shape[2] // groups), return_counts=True)  # of one group of channels on one core
    bits = limits.row_bits(channels, channels * projection.weight_bits) * taps(network, projection)
    return np.bincount(row // groups, bits, cores).astype(np.int64)


def _pairs(network: Network, projection: Projection, core: Ints, cores: int) -> tuple[Ints, Ints, Ints]:
    """(source within its group, core, synapses) of one projection."""
    at = core[network.span(projection.target)].astype(np.int64)
    number = network[projection.source].neurons
    if isinstance(projection, Dense):
        places, count = np.unique(at, return_counts=True)
        return np.repeat(np.arange(number), len(places)), np.tile(places, number), np.tile(count, number)
    if isinstance(projection, Sparse):
        rows = np.repeat(np.arange(number), np.diff(projection.offsets))
        key = np.sort(rows * cores + at[projection.targets])
        first = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]])) if len(key) else np.zeros(0, np.int64)
        return key[first] // cores, key[first] % cores, np.diff(first, append=len(key))
    return _convolution(network, projection, at)


def _convolution(network: Network, projection: Conv2d, at: Ints) -> tuple[Ints, Ints, Ints]:
    source, target = network[projection.source].shape, network[projection.target].shape
    assert source is not None and target is not None
    groups, width = projection.groups, source[2] // projection.groups
    x, y, c = (index.ravel() for index in np.indices(target))
    position = ((at * target[0] + x) * target[1] + y) * groups + c // (target[2] // groups)
    position, channels = np.unique(position, return_counts=True)
    group, rest = position % groups, position // groups
    y, rest = rest % target[1], rest // target[1]
    x, place = rest % target[0], rest // target[0]
    keys, counts = [], []
    for kx in range(projection.kernel[0]):
        for ky in range(projection.kernel[1]):
            sx = x * projection.stride[0] - projection.padding[0] + kx
            sy = y * projection.stride[1] - projection.padding[1] + ky
            inside = (sx >= 0) & (sx < source[0]) & (sy >= 0) & (sy < source[1])
            key = ((place * source[0] + sx) * source[1] + sy) * groups + group
            keys.append(key[inside])
            counts.append(channels[inside])
    key, inverse = np.unique(np.concatenate(keys), return_inverse=True)
    count = np.bincount(inverse, np.concatenate(counts), len(key)).astype(np.int64)
    first = (key // groups % (source[0] * source[1])) * source[2] + key % groups * width
    place = key // (groups * source[0] * source[1])
    sources = (first[:, None] + np.arange(width)).ravel()
    return sources, np.repeat(place, width), np.repeat(count, width)
