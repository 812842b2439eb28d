"""The energy report of one workload: every count, its spiking part on a chip, the same products on processors, and ratios.

A ratio is that of the hybrid, its placed populations on the chip and the rest on a processor, to all products on that
processor. Both sides share the draws of the processor's constants, so the ratio has an interval of its own. Static power is
on both sides; the chip's lasts as long as the processor's part too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from neuro.errors import UsageError, nearest
from neuro.workload import Population, Workload
from sims.energy import activity, sides
from sims.energy.activity import Activity
from sims.energy.break_even import BreakEven, break_even, seneca
from sims.energy.compare import LOWER, verdict
from sims.energy.price import drawn, price
from sims.energy.sides import OnChip, OnPlatform
from sims.energy.streams import DRAWS, Interval, interval, shares
from sims.energy.technologies import technologies, technology
from sims.mapping import Network

SCHEMA = "neuro.energy/2"
AGAINST = ("cpu",)


@dataclasses.dataclass(frozen=True, eq=False)
class Against:
    """The hybrid and all products on one platform. Draws `[DRAWS]` are of the whole run."""

    dense: OnPlatform
    rest: OnPlatform  # what the chip leaves
    hybrid: dict[str, np.ndarray]  # joules by term; they add up to the hybrid's total
    hybrid_dynamic: np.ndarray
    ratio: Interval | None  # hybrid / dense, static power on both sides
    ratio_dynamic: Interval | None
    ratio_cores: Interval | None  # of the chip's cores alone, without the host that the first has
    verdict: str  # on the first, in words; why not where there is none
    convention: float | None  # the same ratio by 4.6 pJ a product and 0.9 pJ an addition, nothing else


@dataclasses.dataclass(frozen=True)
class Layer:
    """A spiking population beside the firing rate below which it saves energy."""

    name: str
    spikes_per_synapse: float  # additions for each product that they replace
    break_even: BreakEven

    @property
    def margin(self) -> float:
        """Break-even over what is: above 1 it saves."""
        return (
            self.break_even.spikes_per_synapse.median / self.spikes_per_synapse if self.spikes_per_synapse else np.inf
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Report:
    """Counts and joules are of the whole run; `per_token` divides."""

    workload: Workload
    dense: Workload  # the other side's: the same, or a dense model's own run
    seed: int
    activity: tuple[Activity, ...]
    chip: OnChip
    against: tuple[Against, ...]
    layers: tuple[Layer, ...]
    losses: tuple[float, float] | None  # validation nats of this model and of the dense one

    def per_token(self, draws: np.ndarray) -> Interval:
        """Joules of the run, drawn -> per token (or sample)."""
        return interval(draws / self.workload.tokens)

    @property
    def mac_share_left(self) -> float:
        """Share of the multiply-accumulates that the chip does not do, from 0 to 1."""
        placed = _placed(self.workload, self.chip)
        every = sum(sides.products(phase) for phase in self.workload.phases)
        return sum(sides.products(phase, placed) for phase in self.workload.phases) / max(1, every)

    def chip_by_region(self, phase: str) -> dict[str, Interval]:
        """Joules of the chip's events in a phase, for each region; whole runs where only those have a price."""
        if self.chip.priced is None:
            return {}
        return price(self.chip.terms[phase], self.chip.table, self.seed).by_region

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data: energies in joules per token, counts of the whole run."""
        w, chip = self.workload, self.chip

        def per_token(rows: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
            return {name: dataclasses.asdict(self.per_token(draws)) for name, draws in rows.items()}

        draws = chip.priced.draws if chip.priced else None
        placement = chip.placement
        return {
            "schema": SCHEMA,
            "model": w.model,
            "unit": w.unit,
            "tokens": w.tokens,
            "seed": self.seed,
            "phases": [{"name": p.name, "tokens": p.tokens, "calls": p.calls} for p in w.phases],
            "counts": [
                dataclasses.asdict(row) | {"spikes_per_synapse": row.spikes_per_synapse} for row in self.activity
            ],
            "uncounted": list(w.uncounted),
            "measured": self._measured(),
            "chip": {
                "name": chip.table.platform,
                "label": "modelled",
                "verdict": placement.verdict,
                "fits": placement.fits,
                "cores": placement.cores,
                "chips": placement.chips,
                "placement": {part.name: part.reason for part in placement.parts},
                "counts": {phase: [dataclasses.asdict(term) for term in terms] for phase, terms in chip.terms.items()},
                "joules_per_token": dataclasses.asdict(self.per_token(chip.cores_j)) if chip.placed else None,
                "dynamic_joules_per_token": dataclasses.asdict(self.per_token(chip.events_j)) if chip.placed else None,
                "static_joules_per_token": _plain(self.per_token(chip.static_j)),
                "seconds_per_token": _plain(self.per_token(chip.time_s)),
                "by_kind": per_token(draws.by_kind) if draws else {},
                "by_region": per_token(draws.by_region) if draws else {},
                "variance_share": chip.priced.variance_share if chip.priced else {},
                "as_published": self._published(),
                "unpriced": dict(chip.unpriced),
                "lower_bound": bool(chip.unpriced),
                "weakest_evidence": chip.weakest_evidence,
                "mac_share_left": self.mac_share_left,
            },
            "layers": [
                {
                    "name": row.name,
                    "spikes_per_synapse": row.spikes_per_synapse,
                    "break_even": dataclasses.asdict(row.break_even.spikes_per_synapse),
                    "margin": row.margin if np.isfinite(row.margin) else None,
                }
                for row in self.layers
            ],
            "against": [self._against(row) for row in self.against],
            "losses": None
            if self.losses is None
            else {"model": self.losses[0], "dense": self.losses[1], "difference": self.losses[0] - self.losses[1]},
        }

    def _measured(self) -> dict[str, Any] | None:
        w = self.workload
        if w.measured_joules is None:
            return None
        each = w.measured_joules / w.tokens
        return {"label": "measured", "source": w.measured_source, "joules": w.measured_joules, "joules_per_token": each}

    def _published(self) -> dict[str, Any] | None:
        found = self.chip.inference
        if found is None:
            return None
        return {
            "joules_per_token": dataclasses.asdict(self.per_token(found.total)),
            "seconds_per_token": dataclasses.asdict(self.per_token(found.time_s)),
            "terms": {name: dataclasses.asdict(self.per_token(draws)) for name, draws in found.terms.items()},
            "variance_share": shares(found.terms),
            "calibrated_on": list(found.calibrated_on),
            "assumed": list(found.assumed),
            "unpriced": list(found.unpriced),
            "weakest_evidence": found.weakest_evidence,
        }

    def _against(self, row: Against) -> dict[str, Any]:
        def side(platform: OnPlatform, tokens: int) -> dict[str, Any]:
            return {
                "joules_per_token": dataclasses.asdict(interval(platform.total / tokens)),
                "dynamic_joules_per_token": dataclasses.asdict(interval(platform.dynamic / tokens)),
                "seconds_per_token": _plain(interval(platform.time_s / tokens)),
                "terms": {k: dataclasses.asdict(interval(v / tokens)) for k, v in platform.terms.items()},
                "variance_share": shares(platform.terms),
                "phases": {
                    name: {"joules_per_token": dataclasses.asdict(interval(found.total))}
                    for name, found in platform.phases.items()
                },
            }

        example = next(iter(row.dense.phases.values()), None)
        return {
            "platform": row.dense.table.platform,
            "label": "modelled",
            "scope": row.dense.table.scope,
            "dense": side(row.dense, self.dense.tokens),
            "hybrid": {
                "joules_per_token": dataclasses.asdict(self.per_token(sum(row.hybrid.values(), np.zeros(DRAWS)))),
                "terms": {name: dataclasses.asdict(self.per_token(draws)) for name, draws in row.hybrid.items()},
                "variance_share": shares(row.hybrid),
            },
            "ratio": _plain(row.ratio),
            "ratio_dynamic": _plain(row.ratio_dynamic),
            "ratio_without_the_chips_host": _plain(row.ratio_cores),
            "ratio_by_arithmetic_alone": row.convention,
            "verdict": row.verdict,
            "calibrated_on": list(example.calibrated_on) if example else [],
            "assumed": list(example.assumed) if example else [],
            "unpriced": list(example.unpriced) if example else [],
            "weakest_evidence": row.dense.weakest_evidence,
        }


def estimate(
    workload: Workload,
    chip: str = "loihi1",
    seed: int = 0,
    against: Sequence[str] = AGAINST,
    dense: Workload | None = None,
    losses: tuple[float, float] | None = None,
    network: Network | None = None,
    refined: bool = True,
) -> Report:
    """Price a workload.

    Args:
        chip: for the spiking populations.
        against: platforms for all products, and for those that the chip leaves; a first part such as "cpu" will do where
            one platform begins with it.
        dense: a dense model's own run for the other side; default: all products of this run, those behind spikes too.
        losses: validation nats of this model and of the dense one.
        network, refined: see `sides.on_chip`.

    Raises:
        UsageError: an unknown chip or platform, one that cannot price this run, or a negative seed.
    """
    if seed < 0:
        raise UsageError(f"--seed: got {seed}, expected at least 0.", "Give 0 or more.")
    on_chip = sides.on_chip(workload, chip, seed, network, refined)
    other = dense or workload
    rows = tuple(_compared(workload, other, on_chip, platform, seed) for platform in map(resolve, against))
    costs = seneca(seed)
    layers = [_layer(p, workload, costs) for p in workload.populations if p.products and p.updates]
    return Report(workload, other, seed, activity.of(workload), on_chip, rows, tuple(layers), losses)


def resolve(platform: str) -> str:
    """A platform by its name, or by its first part where that is enough.

    Raises:
        UsageError: unknown, or of several.
    """
    known = sorted(technologies())
    if platform in known:
        return platform
    begin = [name for name in known if name.startswith(f"{platform}:")]
    if len(begin) == 1:
        return begin[0]
    if begin:
        raise UsageError(f"platform: got '{platform}', expected one of {', '.join(begin)}.", "Name one of them.")
    raise UsageError(f"platform: got '{platform}', expected one of {', '.join(known)}.", nearest(platform, known))


def _compared(workload: Workload, other: Workload, chip: OnChip, platform: str, seed: int) -> Against:
    dense = sides.on_platform(other, platform, seed)
    placed = _placed(workload, chip)
    rest = sides.on_platform(workload, platform, seed, placed)
    name = chip.table.platform
    hybrid = {f"{platform} {term}": draws for term, draws in rest.terms.items()}
    alone = rest.total + chip.cores_j + _watts(chip, seed) * rest.time_s
    if chip.placed:
        if chip.inference is None:
            hybrid |= {f"{name} events": chip.events_j, f"{name} static": chip.cores_j - chip.events_j}
        else:
            hybrid |= {f"{name} {term}": draws for term, draws in chip.inference.terms.items()}
        # Each side is powered while the other works.
        waits = _watts(chip, seed) * rest.time_s
        if "static" in dense.table.kinds and rest.phases:
            waits = waits + drawn(dense.table.constant("static"), dense.table, seed, False) * chip.busy_s
        if not np.isnan(waits).any():  # arithmetic alone takes no time that anybody knows
            hybrid["waiting for each other"] = waits
    hybrid_dynamic = rest.dynamic + chip.dynamic_j
    ratio, dynamic, cores, words = None, None, None, "nothing of it is on the chip"
    if not dense.phases:
        words = "there are no products to compare with"
    elif dense.table.scope != chip.table.scope:
        words = (
            f"not compared: {platform} is priced as {dense.table.scope}, {chip.table.platform} as {chip.table.scope}"
        )
    elif chip.placed:
        draws = sum(hybrid.values(), np.zeros(DRAWS)) / workload.tokens / (dense.total / other.tokens)
        ratio, words = interval(draws), verdict(draws)
        if chip.inference is None and words == LOWER:
            words = f"undecided: a lower bound, for {name} has no price of its host and idle power"
        dynamic = _finite(interval(hybrid_dynamic / workload.tokens / (dense.dynamic / other.tokens)))
        if chip.inference is not None:
            cores = interval(alone / workload.tokens / (dense.total / other.tokens))
    arithmetic = _arithmetic(workload, other, placed)
    return Against(dense, rest, hybrid, hybrid_dynamic, ratio, dynamic, cores, words, arithmetic)


def _watts(chip: OnChip, seed: int) -> np.ndarray:
    if "static" not in chip.table.kinds:
        return np.zeros(DRAWS)
    return drawn(chip.table.constant("static"), chip.table, seed)


def _placed(workload: Workload, chip: OnChip) -> list[Population]:
    return [p for p in workload.populations if p.name in chip.traffic]


def _arithmetic(workload: Workload, other: Workload, placed: list[Population]) -> float | None:
    """The ratio that 4.6 pJ a product and 0.9 pJ an addition give."""
    mac, add = (technology("convention").constant(kind).si for kind in ("mac", "synaptic_op"))
    dense = sum(sides.products(phase) for phase in other.phases) * mac / other.tokens
    rest = sum(sides.products(phase, placed) for phase in workload.phases) * mac
    return (rest + sum(p.synaptic_ops for p in placed) * add) / workload.tokens / dense if dense else None


def _layer(p: Population, workload: Workload, costs: Any) -> Layer:
    assert p.products
    inputs = max(1, round(p.products / p.fan_out / workload.tokens))
    steps = max(1, round(p.updates / max(1, p.neurons) / workload.tokens))
    return Layer(p.name, p.synaptic_ops / p.products, break_even(p.fan_out, inputs, steps, costs))


def _finite(row: Interval | None) -> Interval | None:
    return row if row is not None and np.isfinite(row.median) else None


def _plain(row: Interval | None) -> dict[str, float] | None:
    return dataclasses.asdict(row) if row is not None and np.isfinite(row.median) else None
