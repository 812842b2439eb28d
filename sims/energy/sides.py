"""What a run costs somewhere: its spiking populations on a chip, and its products on a processor."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from neuro.errors import UsageError
from neuro.workload import SIGNALS, Phase, Population, Workload
from sims import chips, mapping
from sims.energy.prediction import Prediction, predict_draws
from sims.energy.price import Priced, Term, price
from sims.energy.streams import DRAWS
from sims.energy.technologies import Technology, technologies, technology, weakest
from sims.energy.timing import TIMES, MeshLoad, mesh_time
from sims.mapping import Network, Placement, Traffic

FLOAT_BYTES = 4  # of a weight in a workload's traffic
EVENTS = ("synaptic_op", "neuron_update", "spike", "message", "hop_ew", "hop_ns")


@dataclasses.dataclass(frozen=True, eq=False)
class OnChip:
    """The populations that have a place, for the whole run. Draws `[DRAWS]` are in joules and seconds."""

    table: Technology
    placement: Placement
    terms: dict[str, tuple[Term, ...]]  # by phase
    traffic: dict[str, Traffic]  # by population, its spikes spread evenly over its neurons
    priced: Priced | None  # None: nothing is placed, or the chip has a price for an inference alone
    inference: Prediction | None  # by the chip's published runs where it has them: their host and pace included
    time_s: (
        np.ndarray
    )  # the cores' own, one population after another; not a number where the chip's times are not known
    static_j: np.ndarray  # the chip's, over that time
    unpriced: tuple[tuple[str, str], ...]  # (what, why)

    @property
    def placed(self) -> bool:
        """Whether anything has a place."""
        return bool(self.traffic)

    @property
    def events_j(self) -> np.ndarray:
        """Joules of the run's events alone; of an inference above idle where events have no price."""
        if self.priced is not None:
            assert self.priced.draws is not None
            return self.priced.draws.total
        return self.inference.dynamic if self.inference is not None else np.zeros(DRAWS)

    @property
    def cores_j(self) -> np.ndarray:
        """The same with static power over the cores' own time, where it is known: no host, nothing that waits for one."""
        if self.priced is not None:
            return self.events_j + np.nan_to_num(self.static_j)
        return self.inference.total if self.inference is not None else np.zeros(DRAWS)

    @property
    def total_j(self) -> np.ndarray:
        """With the host and the pace of the chip's published runs where it has them; else of the cores alone."""
        return self.cores_j if self.inference is None else self.inference.total

    @property
    def dynamic_j(self) -> np.ndarray:
        """`total_j` above idle."""
        return self.events_j if self.inference is None else self.inference.dynamic

    @property
    def busy_s(self) -> np.ndarray:
        """Seconds of the run that `total_j` is over; 0 where they are not known."""
        return np.nan_to_num(self.time_s if self.inference is None else self.inference.time_s)

    @property
    def weakest_evidence(self) -> str:
        """The weakest grade among what was priced: events that happened, the cores' static power and its times, the host."""
        kinds = {term.kind for terms in self.terms.values() for term in terms if term.count}
        if self.priced is not None and not np.isnan(self.static_j).any():
            kinds |= {"static"} | {c.kind for c in self.table.constants if c.kind in TIMES}
        host = [] if self.inference is None else [self.inference.weakest_evidence]
        return weakest([self.table.evidence_of(kinds), *host])


@dataclasses.dataclass(frozen=True, eq=False)
class OnPlatform:
    """Products on a processor, for the whole run."""

    table: Technology
    phases: dict[str, Prediction]  # of one token, by phase; a phase without products is not in it
    tokens: dict[str, int]

    def _sum(self, of: str) -> np.ndarray:
        return sum((self.tokens[n] * getattr(p, of) for n, p in self.phases.items()), np.zeros(DRAWS))

    @property
    def total(self) -> np.ndarray:
        return self._sum("total")

    @property
    def dynamic(self) -> np.ndarray:
        return self._sum("dynamic")

    @property
    def time_s(self) -> np.ndarray:
        return self._sum("time_s")

    @property
    def weakest_evidence(self) -> str:
        """The weakest grade among what was priced."""
        return weakest(prediction.weakest_evidence for prediction in self.phases.values())

    @property
    def terms(self) -> dict[str, np.ndarray]:
        """Joules of the run; they add up to the total."""
        found: dict[str, np.ndarray] = {}
        for name, prediction in self.phases.items():
            for term, draws in prediction.terms.items():
                found[term] = found.get(term, np.zeros(DRAWS)) + self.tokens[name] * draws
        return found


def on_chip(workload: Workload, chip: str, seed: int, network: Network | None = None, refined: bool = True) -> OnChip:
    """Place the populations and price what they did.

    A population that has no place gets no joules: they would be those of a placement that cannot exist.

    Args:
        network: whose groups are the populations, by name, joined as they are. Default: each population reaches
            compartments of its own, that only add up.
        refined: False keeps layer order, which takes no time.

    Raises:
        UsageError: an unknown chip, or one without energy constants.
    """
    limits = chips.load(chip)
    if chip not in technologies():
        both = ", ".join(sorted(set(chips.names()) & technologies().keys()))
        raise UsageError(f"chip: '{chip}' has limits but no energy constants.", f"With both: {both}.")
    table = technology(chip)
    populations = {p.name: p for p in workload.populations}
    whole = network or mapping.from_populations(workload.populations, workload.model)
    placement = mapping.place(whole, limits, seed, refined)
    names = {group.name for group in placement.network.groups}
    # Without one of its targets a population has nothing to do on the chip.
    lost = {row.source for row in whole.projections if row.target not in names}
    placed = {name: p for name, p in populations.items() if name in names - lost}
    traffic = {name: _even(placement, name, p.spikes) for name, p in placed.items()}
    terms = {phase.name: _terms(phase, placed, placement, table) for phase in workload.phases}
    every = [term for rows in terms.values() for term in rows]
    time_s, static_j = _time(placed.values(), traffic, placement, table, seed)
    return OnChip(
        table,
        placement,
        terms,
        traffic,
        price(every, table, seed) if every else None,
        _inference(list(placed.values()), every, table, seed),
        time_s,
        static_j,
        _unpriced(workload, placement, table, every, time_s),
    )


def on_platform(workload: Workload, platform: str, seed: int, without: Sequence[Population] = ()) -> OnPlatform:
    """Price the products of a run, all of them or without those behind the populations in ``without``."""
    table = technology(platform)
    phases = {
        phase.name: predict_draws(platform, **counts(workload, phase, without), seed=seed)
        for phase in workload.phases
        if products(phase, without)
    }
    return OnPlatform(table, phases, {phase.name: phase.tokens for phase in workload.phases})


def products(phase: Phase, without: Sequence[Population] = ()) -> float:
    """Multiply-accumulates of a phase; of those behind spikes the part of the populations in ``without`` left out."""
    macs = {signal: 0 for signal in SIGNALS}
    for row in phase.operations:
        if row.kind == "mac":
            macs[row.signal] += row.count
    names = {p.name for p in without}
    every = sum(map(_replaced, phase.populations))
    gone = sum(_replaced(p) for p in phase.populations if p.name in names)
    # Where a projection works at every step of a token, its products count once and its multiply-accumulates each time.
    return macs["dense"] + macs["graded"] + macs["binary"] * (1 - gone / every if every else 1)


def counts(workload: Workload, phase: Phase, without: Sequence[Population] = ()) -> dict[str, Any]:
    """What `predict_draws` asks for, of one token: tokens that share a call are a batch."""
    left = products(phase, without)

    def moved(*stores: str) -> int:
        return sum(row.read_bytes + row.written_bytes for row in phase.traffic if row.store in stores)

    others = sum(row.count for row in phase.operations if row.kind != "mac")
    once = phase.tokens * phase.steps
    names = {p.name for p in without}
    gone = FLOAT_BYTES * sum(_replaced(p) for p in phase.populations if p.name in names) / phase.tokens
    return {
        "macs": left / once,
        "layers": max(1, workload.layers - len(without)),
        "batch": phase.batch,
        "steps": phase.steps,
        "weight_bytes": max(0.0, moved("weights") / max(1, phase.calls) - gone),
        "kv_bytes": moved("kv", "memory", "state") / once,
        "flops": (2 * left + others) / once,
    }


def _replaced(p: Population) -> int:
    return p.neurons * p.fan_out if p.products is None else p.products


def _even(placement: Placement, name: str, spikes: int) -> Traffic:
    """Traffic of spikes that are spread evenly over a population, in whole numbers."""
    neurons = placement.network[name].neurons
    each = np.full(neurons, spikes // neurons, np.int64)
    each[: spikes % neurons] += 1
    return mapping.traffic(placement, {name: each})


def _terms(phase: Phase, placed: Mapping[str, Population], placement: Placement, table: Technology) -> tuple[Term, ...]:
    """The events of a phase that the table has a price for: the all-in ones alone where it has such."""
    rows: list[Term] = []
    mine = [p for p in phase.populations if p.name in placed]
    longest = max((_steps(p) for p in mine), default=0)
    added: set[str] = set()
    for p in mine:
        moved = _even(placement, p.name, p.spikes)
        rows += [
            Term(p.region, p.name, "synaptic_op", p.synaptic_ops),
            Term(p.region, p.name, "neuron_update", p.updates),
            # What enters from outside is no neuron of the chip.
            Term(p.region, p.name, "spike", p.spikes if p.updates else 0),
            Term(p.region, p.name, "message", int(moved.packets)),
            Term(p.region, p.name, "hop_ew", int(moved.hops_ew)),
            Term(p.region, p.name, "hop_ns", int(moved.hops_ns)),
        ]
        # Targets that are no population are compartments too, updated at every step whether or not a spike arrived.
        for target in _reached(placement, p.name):
            if target not in placed and target not in added:
                added.add(target)
                steps = _steps(p) or longest
                rows.append(Term(p.region, target, "neuron_update", placement.network[target].neurons * steps))
    known = {c.kind: c for c in table.constants if c.priced and c.kind in EVENTS}
    whole = [kind for kind, c in known.items() if c.basis == "AllIn"]
    return tuple(row for row in rows if row.kind in (whole or known))


def _steps(p: Population) -> int:
    return -(-p.updates // max(1, p.neurons))


def _time(
    placed: Iterable[Population], traffic: dict[str, Traffic], placement: Placement, table: Technology, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of the run and joules of static power in it, one population after another, as layers follow each other."""
    if not {"time_synaptic_op", "barrier_1"} <= {c.kind for c in table.constants}:
        return np.full(DRAWS, np.nan), np.full(DRAWS, np.nan)
    time_s, static_j = np.zeros(DRAWS), np.zeros(DRAWS)
    cores = len(placement.loads.neurons)
    for p in placed:
        steps = _steps(p)
        if not steps:
            continue
        homes = [placement.of(name) for name in (p.name, *_reached(placement, p.name))]
        neurons = np.bincount(np.concatenate(homes), minlength=cores)
        moved = traffic[p.name]
        load = MeshLoad(
            synops=moved.synops / steps,
            active=neurons,  # which of them are idle at a step is not in the counts: the longer time is taken
            idle=np.zeros_like(neurons),
            packets=moved.sent / steps,
            tiles=len({(c, x, y) for c, x, y in zip(*_tiles(placement, np.concatenate(homes)), strict=True)}),
            steps=steps,
            link_ew=max(_most(moved, "east"), _most(moved, "west")) / steps,
            link_ns=max(_most(moved, "north"), _most(moved, "south")) / steps,
        )
        spent = mesh_time(load, table, seed)
        time_s, static_j = time_s + spent.time_s, static_j + spent.static_j
    return time_s, static_j


def _reached(placement: Placement, name: str) -> list[str]:
    return [projection.target for projection in placement.network.projections if projection.source == name]


def _tiles(placement: Placement, homes: np.ndarray) -> tuple[list[int], list[int], list[int]]:
    used, at = np.unique(homes), placement.sites
    return at.chip[used].tolist(), at.x[used].tolist(), at.y[used].tolist()


def _most(moved: Traffic, direction: str) -> float:
    load = moved.links.get(direction)
    return float(load.max(initial=0)) if load is not None else 0.0


def _inference(placed: list[Population], terms: Iterable[Term], table: Technology, seed: int) -> Prediction | None:
    """The run as one inference by the chip's published runs; None where it has none, or nothing that they tell of happened."""
    told = {"steps": sum(map(_steps, placed)), "synops": sum(p.synaptic_ops for p in placed)}
    told["spikes"] = sum(p.spikes for p in placed if p.updates)
    if not told.get(table.model):
        return None
    counted: dict[str, float] = {}
    for term in terms:
        if table.model == "steps" and term.kind not in ("synaptic_op", "spike"):
            counted[term.kind] = counted.get(term.kind, 0.0) + term.count
    return predict_draws(
        table.platform,
        macs=sum(p.neurons * p.fan_out for p in placed),
        synops=told["synops"],
        spikes=told["spikes"],
        steps=max(1, told["steps"]),
        counts=counted,
        seed=seed,
    )


def _unpriced(
    workload: Workload, placement: Placement, table: Technology, terms: list[Term], time_s: np.ndarray
) -> tuple[tuple[str, str], ...]:
    rows = [(part.name, f"does not fit: {part.reason}") for part in placement.parts if part.neurons and not part.cores]
    counted = {term.kind for term in terms} | (set() if np.isnan(time_s).any() else {"static"})
    rows += [(row.id, row.why) for row in table.unpriced if not set(row.until) & counted]
    outside = sum(p.updates for p in workload.populations if p.input_signal != "binary") / workload.tokens
    if outside:
        rows.append(
            ("input", f"{outside:.0f} values a {workload.unit} are no spikes and must reach the neurons from outside")
        )
    entered = sum(p.spikes for p in workload.populations if not p.updates) / workload.tokens
    if entered:
        rows.append(("input", f"{entered:.0f} spikes a {workload.unit} must be carried in from outside"))
    if placement.chips > 1:
        rows.append(("links", f"{placement.chips} chips: what crosses between them has no price"))
    return tuple(rows)
