"""A network on a chip: legal cores for all neurons, few packets between cores, few hops, and what each core then does."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from neuro.errors import UsageError
from sims.chips import Chip
from sims.mapping import grid, layers, limits, partition, reach, refine
from sims.mapping.limits import UNBOUNDED, Limits, Mesh
from sims.mapping.network import Floats, Ints, Network

_REST = "not placed without the rest"
KINDS = ("neurons", "in_axons", "out_axons", "bits")


@dataclasses.dataclass(frozen=True)
class Part:
    """One group's place."""

    name: str
    neurons: int
    cores: int  # that hold neurons of it
    fits: bool  # on one chip, alone
    reason: str  # why not; else what it takes


@dataclasses.dataclass(frozen=True, eq=False)
class Traffic:
    """What moves and what is done: per step for rates, whole counts for spike counts.

    Args:
        packets: one for each spike and core that holds targets of it, its own core included.
        between_cores: those that leave their core, inputs from outside included.
        hops_ew, hops_ns: steps from tile to tile along x and y of all packets whose source is on the chip.
        crossings: steps from chip to chip.
        links: packets over each link between tiles, by direction (`grid.links`).
        synops, sent, received: of each core [cores].
    """

    packets: Any
    between_cores: Any
    hops_ew: Any
    hops_ns: Any
    crossings: Any
    links: dict[str, Any]
    synops: Any
    sent: Any
    received: Any

    @property
    def max_link(self) -> Any:
        """The most that one link carries one way."""
        return max(load.max() for load in self.links.values())


@dataclasses.dataclass(frozen=True, eq=False)
class Placement:
    """Where every neuron of a network is.

    Args:
        network: what is placed; groups that fit no core are left out.
        core: of each neuron [neurons], counted through all chips; -1 for inputs from outside.
        chips: that the placed groups need.
        parts: one for each group of the whole network that takes a place.
        loads: what each core holds.
        traffic: per step, at the groups' rates.
        layer_order: packets per step between cores when cores are filled in layer order.
    """

    chip: str
    network: Network
    limits: Limits
    mesh: Mesh
    core: Ints
    chips: int
    parts: tuple[Part, ...]
    loads: reach.Loads
    axons: reach.Axons
    traffic: Traffic
    layer_order: float

    @cached_property
    def used(self) -> Ints:
        """The cores that hold anything."""
        return np.unique(self.core[self.core >= 0])

    @property
    def cores(self) -> int:
        """Cores that hold anything."""
        return len(self.used)

    @property
    def fits(self) -> bool:
        """Everything is on one chip."""
        return self.chips <= 1 and all(part.cores for part in self.parts if part.neurons)

    @property
    def verdict(self) -> str:
        """In words: how much of the chip it takes; or that it does not fit, why, and what does."""
        number, of = self.cores, self.limits.cores
        if not self.parts:
            return "nothing to place: no spiking population"
        if self.fits:
            return f"fits: {number} of {of} core{'' if of == 1 else 's'}"
        impossible = [part for part in self.parts if part.neurons and not part.cores]
        if impossible:
            words = "; ".join(f"{part.name}: {part.reason}" for part in impossible if part.reason != _REST)
        else:
            words = f"needs {self.chips} chips ({number} cores of {of} each)"
        kept, used = [], 0
        for part in self.parts:
            if part.fits and used + part.cores <= of:
                kept.append(part.name)
                used += part.cores
        together = f"these parts fit one chip: {', '.join(kept)}" if kept else "no part of it fits one chip"
        return f"does not fit: {words}; {together}"

    @property
    def violations(self) -> tuple[str, ...]:
        """Limits that are broken, in words; `place` makes none (`validate.check` counts on its own)."""
        return tuple(
            f"core {at}: {getattr(self.loads, kind)[at]} {kind} of {getattr(self.limits, kind)}"
            for kind, cores in self.loads.over(self.limits).items()
            for at in cores
        )

    @cached_property
    def sites(self) -> grid.Sites:
        return grid.sites(self.mesh, self.limits.cores, max(1, self.chips))

    def of(self, group: str) -> Ints:
        """The core of each neuron of a group."""
        return self.core[self.network.span(group)]

    @property
    def slices(self) -> tuple[tuple[str, int, int, int], ...]:
        """(group, first neuron, one past the last, core) of each run of neurons on one core."""
        found = []
        for group in self.network.groups:
            if group.placed and group.neurons:
                at = self.of(group.name)
                cuts = np.flatnonzero(np.diff(at)) + 1
                for first, stop in zip([0, *cuts], [*cuts, group.neurons], strict=True):
                    found.append((group.name, int(first), int(stop), int(at[first])))
        return tuple(found)

    @property
    def utilisation(self) -> dict[str, tuple[float, float]]:
        """Share of each limit that the chip states: (of the fullest core, mean over cores that hold anything)."""
        held = self.used
        shares = {"cores": (self.cores / (self.limits.cores * max(1, self.chips)),) * 2}
        for kind in KINDS:
            if (most := getattr(self.limits, kind)) < UNBOUNDED and len(held):
                share = getattr(self.loads, kind)[held] / most
                shares[kind] = (float(share.max()), float(share.mean()))
        return shares


def place(network: Network, chip: Chip, seed: int = 0, refined: bool = True) -> Placement:
    """Place a network on as many chips as it needs.

    Args:
        seed: of the refinement.
        refined: False keeps layer order and plain numbering of the cores.
    """
    bounds, mesh = limits.of(chip), limits.mesh(chip)
    problems = {g.name: partition.problem(network, g.name, bounds) for g in network.groups if g.placed}
    if bounds.roles and any(problems.values()):  # what is hidden and what an output shows only in the whole network
        problems = {name: words or _REST for name, words in problems.items()}
    of_layers = chip.topology.kind == "layers"
    if of_layers:
        at, missing = layers.match(network, chip)
        problems = {name: missing.get(name, "") for name in problems}
    while True:
        left = network.without([name for name, words in problems.items() if words])
        if of_layers:
            rows = [np.full(g.neurons, at.get(g.name, -1), np.int64) for g in left.groups]
            core = np.concatenate([np.zeros(0, np.int64), *rows])
            break
        core, stuck, why = partition.layer_order(left, bounds)
        if not stuck:
            break
        problems[stuck] = why
    rates = left.rates
    found = reach.axons(left, core, bounds)
    baseline = refine.between(found, core, rates)
    graph = refine.graph(left, bounds) if refined and bounds.targets == UNBOUNDED and not of_layers else None
    if graph is not None:
        vertex = graph.vertex

        def start(places: Ints | None) -> Ints | None:
            return core if places is None else partition.ordered(left, places, vertex, bounds)

        core, found = refine.search(left, graph, bounds, start, seed)
    clusters = int(core.max(initial=-1)) + 1
    chips = -(-clusters // bounds.cores)
    if clusters and refined and mesh.known:
        flow = np.zeros((clusters, clusters))
        inside = core[found.source] >= 0
        np.add.at(flow, (core[found.source][inside], found.core[inside]), rates[found.source][inside])
        where = grid.place(flow, mesh, bounds.cores, chips)
        core = np.where(core >= 0, where[core], -1)
        found = dataclasses.replace(found, core=where[found.core])
    held = reach.loads(left, core, bounds, found, max(1, chips) * bounds.cores)
    return Placement(
        chip.chip,
        left,
        bounds,
        mesh,
        core,
        chips,
        tuple(_part(network, left, name, words, core, held, bounds) for name, words in problems.items()),
        held,
        found,
        _count(found, core, rates, grid.sites(mesh, bounds.cores, max(1, chips))),
        baseline,
    )


def traffic(placement: Placement, spikes: Mapping[str, Any]) -> Traffic:
    """The placement's traffic for spike counts, in whole numbers.

    Args:
        spikes: of each neuron of each group that spiked, [neurons] integers, by the group's name.

    Raises:
        UsageError: a group that is not placed, or counts that are none or of another number of neurons.
    """
    counts = np.zeros(placement.network.neurons, np.int64)
    names = [group.name for group in placement.network.groups]
    for name, given in spikes.items():
        values = np.asarray(given)
        if name not in names:
            raise UsageError(f"spikes: got group '{name}', expected one that is placed.", "Give its name as placed.")
        expected = placement.network[name].neurons
        if values.shape != (expected,) or values.dtype.kind not in "iu" or (values < 0).any():
            raise UsageError(
                f"spikes of '{name}': got {values.dtype} {list(values.shape)}, expected counts >= 0 [{expected}].",
                "Give the spikes of each neuron as integers.",
            )
        counts[placement.network.span(name)] = values
    return _count(placement.axons, placement.core, counts, placement.sites)


def _count(found: reach.Axons, core: Ints, spikes: Ints | Floats, at: grid.Sites) -> Traffic:
    packets = spikes[found.source]
    source = core[found.source]
    inside = source >= 0
    here, there = source[inside], found.core[inside]
    moved = packets[inside]

    def per_core(index: Ints, amount: Ints | Floats) -> Any:
        total = np.zeros(len(at.chip), amount.dtype)
        np.add.at(total, index, amount)
        return total

    return Traffic(
        packets.sum(),
        packets[source != found.core].sum(),
        (moved * np.abs(at.x[here] - at.x[there])).sum(),
        (moved * np.abs(at.y[here] - at.y[there])).sum(),
        (moved * np.abs(at.chip[here] - at.chip[there])).sum(),
        grid.links(here, there, moved, at),
        per_core(found.core, packets * found.synapses),
        per_core(here, moved),
        per_core(found.core, packets),
    )


def _part(
    network: Network, left: Network, name: str, words: str, core: Ints, held: reach.Loads, bounds: Limits
) -> Part:
    neurons = network[name].neurons
    if words:
        return Part(name, neurons, 0, False, words)
    mine = np.unique(core[left.span(name)])
    if len(mine) > bounds.cores:
        return Part(name, neurons, len(mine), False, f"{len(mine)} cores, a chip has {bounds.cores}")
    shares = {kind: getattr(held, kind)[mine].max(initial=0) / getattr(bounds, kind) for kind in KINDS}
    fullest = max(shares, key=lambda kind: shares[kind])
    if shares[fullest] < 1e-9:  # of what no chip bounds
        return Part(name, neurons, len(mine), True, "")
    word = {"neurons": "neurons", "in_axons": "axons in", "out_axons": "axons out", "bits": "synapse memory"}[fullest]
    return Part(name, neurons, len(mine), True, f"fullest core: {100 * shares[fullest]:.0f} % of its {word}")


def split(network: Network, cores: int, slack: float = 0.03, seed: int = 0) -> tuple[Ints, float, float]:
    """A network on a number of equal cores that hold nothing but neurons; the partition without a chip.

    Args:
        slack: how much fuller than the mean a core may be.

    Returns:
        The core of each neuron, the packets per step between cores, and those of equal slices in layer order.
    """
    neurons = network.neurons
    bounds = Limits(cores, neurons=max(-(-neurons // cores), int((1 + slack) * -(-neurons // cores))))

    def start(places: Ints | None) -> Ints:
        return (np.arange(neurons) if places is None else places) * cores // neurons

    first = start(None)
    layer_order = refine.between(reach.axons(network, first, bounds), first, network.rates)
    graph = refine.graph(network, bounds)
    if graph is None:
        return first, layer_order, layer_order
    core, found = refine.search(network, graph, bounds, start, seed)
    return core, refine.between(found, core, network.rates), layer_order
