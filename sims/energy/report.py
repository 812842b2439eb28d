"""The energy report of one workload: the whole model on a reference CPU, the spiking part on a chip, and what has no price."""

from __future__ import annotations

import dataclasses
from typing import Any

from neuro.errors import UsageError, nearest
from neuro.workload import Workload
from sims import chips, mapping
from sims.energy.price import Interval, Priced, Term, price
from sims.energy.technologies import Technology, technologies
from sims.energy.technologies import why as why  # part of this module's face: `neuro energy why TERM`
from sims.mapping import Fit

SCHEMA = "neuro.energy/1"
CPU = "cpu:e5-2630"


@dataclasses.dataclass(frozen=True)
class OffChip:
    """What one region does that the chip does not."""

    region: str
    macs: int
    mac_share: float  # of all multiply-accumulates of the workload
    others: dict[str, int]  # operations of the other kinds


@dataclasses.dataclass(frozen=True)
class Report:
    """Joules are of the whole run; `per_token` divides."""

    workload: Workload
    chip: Technology
    fit: Fit
    terms: tuple[Term, ...]
    spiking: Priced | None  # the populations that fit, on the chip; None when none does
    unpriced: tuple[tuple[str, str], ...]  # (what, why) of the chip: its total is a lower bound
    off_chip: tuple[OffChip, ...]
    reference: Technology
    whole: Priced  # every multiply-accumulate on the reference CPU

    @property
    def off_chip_mac_share(self) -> float:
        """Share of the multiply-accumulates that the chip does not do, from 0 to 1."""
        return sum(row.mac_share for row in self.off_chip)

    def per_token(self, joules: Interval) -> Interval:
        n = self.workload.tokens
        return Interval(joules.median / n, joules.lo / n, joules.hi / n)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data; every energy is in joules per token, counts are of the whole run."""
        w = self.workload
        measured = None
        if w.measured_joules is not None:
            measured = {
                "label": "measured",
                "source": w.measured_source,
                "joules": w.measured_joules,
                "joules_per_token": w.measured_joules / w.tokens,
            }
        return {
            "schema": SCHEMA,
            "model": w.model,
            "tokens": w.tokens,
            "measured": measured,
            "cpu": {
                "name": self.reference.name,
                **self._priced(self.whole, self.reference),
                "unpriced": {row.id: row.why for row in self.reference.unpriced},
            },
            "chip": {
                "name": self.chip.platform,
                "verdict": self.fit.verdict,
                "fits": self.fit.fits,
                "cores": self.fit.cores,
                "chips": self.fit.chips,
                "placement": {row.name: row.reason for row in self.fit.rows},
                **self._priced(self.spiking, self.chip),
                "unpriced": dict(self.unpriced),
                "counts": [dataclasses.asdict(term) for term in self.terms],
            },
            "not_on_the_chip": {
                "mac_share": self.off_chip_mac_share,
                "regions": [dataclasses.asdict(row) for row in self.off_chip],
                "traffic": [dataclasses.asdict(row) for row in w.traffic],
            },
        }

    def _priced(self, priced: Priced | None, technology: Technology) -> dict[str, Any]:
        def per_token(rows: dict[str, Interval]) -> dict[str, dict[str, float]]:
            return {name: dataclasses.asdict(self.per_token(row)) for name, row in rows.items()}

        return {
            "label": "modelled",
            "lower_bound": True,  # every table lists something it has no price for
            "weakest_evidence": technology.weakest_evidence,
            "joules_per_token": dataclasses.asdict(self.per_token(priced.total)) if priced else None,
            "by_kind": per_token(priced.by_kind) if priced else {},
            "by_region": per_token(priced.by_region) if priced else {},
            "variance_share": priced.variance_share if priced else {},
        }

    def to_text(self) -> str:
        """The report in plain words, for a terminal."""
        w = self.workload
        read = sum(phase.tokens for phase in w.phases if phase.name != "decode")
        lines = [
            f"{w.model}: {w.tokens} tokens ({read} read), {w.spans} commits, {w.parameters} parameters",
            "Energies are per token: the median, and where 90 % of the draws lie.",
            "",
        ]
        if w.measured_joules is not None:
            lines += [f"Whole model on {w.hardware}", f"  {_measured(w)}", ""]
        lines += [*self._cpu_lines(), "", *self._chip_lines(), "", *self._off_chip_lines()]
        return "\n".join([*lines, "", "'neuro energy why loihi1.synop' explains a number and names its source."])

    def _cpu_lines(self) -> list[str]:
        lines = [f"Whole model on a reference CPU: {self.reference.name}"]
        lines += [f"  {region:<16} {_joules(self.per_token(row))}" for region, row in self.whole.by_region.items()]
        lines.append(f"  {'total':<13} >= {_joules(self.per_token(self.whole.total))}, modelled")
        return lines + [f"  unpriced: {row.id}: {row.why}" for row in self.reference.unpriced]

    def _chip_lines(self) -> list[str]:
        lines = [f"Spiking layers on {self.chip.name}: {self.fit.verdict}"]
        lines += [f"  {row.name}: {row.reason}" for row in self.fit.rows]
        if self.spiking is None:
            return lines
        for kind, row in self.spiking.by_kind.items():
            each = sum(term.count for term in self.terms if term.kind == kind) / self.workload.tokens
            lines.append(f"  {kind.replace('_', ' '):<16} {each:12.1f} times, {_joules(self.per_token(row))}")
        regions = self.spiking.by_region.items()
        lines += [f"  {f'all of {region}':<16} {_joules(self.per_token(row))}" for region, row in regions]
        lines.append(f"  {'total':<13} >= {_joules(self.per_token(self.spiking.total))}, modelled")
        lines += [f"  unpriced: {what}: {reason}" for what, reason in self.unpriced]
        lines.append(f"  what widens the interval: {_shares(self.spiking.variance_share)}")
        return [*lines, f"  weakest evidence: {self.chip.weakest_evidence.replace('_', ' ')}"]

    def _off_chip_lines(self) -> list[str]:
        n = self.workload.tokens
        lines = [
            f"Not on the chip: {100 * self.off_chip_mac_share:.1f} % of the multiply-accumulates (mac); per token",
        ]
        for row in self.off_chip:
            others = "".join(f", {kind} {_number(count / n)}" for kind, count in row.others.items())
            lines.append(f"  {row.region:<12} {_number(row.macs / n):>10} mac ({100 * row.mac_share:.1f} %){others}")
        for t in self.workload.traffic:
            moved = f"{_number(t.read_bytes / n)} bytes read, {_number(t.written_bytes / n)} written"
            lines.append(f"  {t.region:<12} {t.name}: {moved}")
        return lines


def estimate(workload: Workload, chip: str = "loihi1", seed: int = 0) -> Report:
    """Price a workload.

    A population that does not fit the chip gets no joules: they would be those of a placement that cannot exist.

    Raises:
        UsageError: an unknown chip, one without energy constants, or a negative seed.
    """
    if seed < 0:
        raise UsageError(f"--seed: got {seed}, expected at least 0.", "Give 0 or more.")
    limits, known = chips.load(chip), technologies()
    if chip not in known:
        raise UsageError(f"chip: '{chip}' has limits but no energy constants.", nearest(chip, list(known)))
    fit = mapping.fit(workload.populations, limits)
    terms = _terms(workload, fit)
    macs = [row for row in workload.operations if row.kind == "mac"]
    return Report(
        workload=workload,
        chip=known[chip],
        fit=fit,
        terms=terms,
        spiking=price(terms, known[chip], seed) if terms else None,
        unpriced=_unpriced(workload, fit, known[chip]),
        off_chip=_off_chip(workload, fit),
        reference=known[CPU],
        whole=price([Term(row.region, row.name, "mac", row.count) for row in macs], known[CPU], seed),
    )


def summary_lines(workload: Workload) -> list[str]:
    """The lines `neuro run` prints: two, and one more where the machine measured itself."""
    report = estimate(workload)
    lines = [f"spiking layers on {report.chip.platform}: {_chip_words(report)}"]
    if workload.measured_joules is not None:
        lines.append(f"whole model, this machine: {_measured(workload)} per token")
    whole = _joules(report.per_token(report.whole.total))
    lines.append(
        f"whole model on a reference CPU, {report.reference.name}: >= {whole} per token, modelled, without idle power"
    )
    return lines


def _terms(workload: Workload, fit: Fit) -> tuple[Term, ...]:
    terms: list[Term] = []
    for p, placed in zip(workload.populations, fit.rows, strict=True):
        if placed.problem:
            continue
        steps = -(-p.updates // max(1, p.neurons))
        terms += [
            Term(p.region, p.name, "synaptic_op", p.synaptic_ops),
            Term(p.region, p.name, "neuron_update", p.updates),
            # The targets are compartments too, updated at every step whether or not a spike arrived.
            Term(p.region, f"{p.name}, its targets", "neuron_update", p.fan_out * steps),
            Term(p.region, p.name, "spike", p.spikes),
            Term(p.region, p.name, "message", p.spikes * placed.target_cores),
        ]
    return tuple(terms)


def _unpriced(workload: Workload, fit: Fit, technology: Technology) -> tuple[tuple[str, str], ...]:
    rows = [(row.name, f"does not fit: {row.problem}") for row in fit.rows if row.problem]
    rows += [(row.id, row.why) for row in technology.unpriced]
    outside = sum(p.updates for p in workload.populations if p.input_signal != "binary") / workload.tokens
    if outside:
        rows.append(("input", f"{outside:.0f} values per token are no spikes and must reach the neurons from outside"))
    if fit.chips > 1:
        rows.append(("links", "spikes that cross from chip to chip; how many needs a placement"))
    return tuple(rows)


def _off_chip(workload: Workload, fit: Fit) -> tuple[OffChip, ...]:
    everything = sum(row.count for row in workload.operations if row.kind == "mac")
    fitting = [p for p, row in zip(workload.populations, fit.rows, strict=True) if not row.problem]
    rows = []
    for region in dict.fromkeys(row.region for row in workload.operations):
        mine = [row for row in workload.operations if row.region == region]
        macs = sum(row.count for row in mine if row.kind == "mac")
        # A projection behind spikes is listed twice in a workload: as products for a CPU, as synapses for a chip.
        behind_spikes = sum(row.count for row in mine if row.kind == "mac" and row.signal == "binary")
        macs -= min(behind_spikes, sum(p.fan_out * p.updates for p in fitting if p.region == region))
        others: dict[str, int] = {}
        for row in mine:
            if row.kind != "mac":
                others[row.kind] = others.get(row.kind, 0) + row.count
        if macs or others:
            rows.append(OffChip(region, macs, macs / max(1, everything), others))
    return tuple(rows)


def _chip_words(report: Report) -> str:
    if not report.fit.rows:
        return "this model has none"
    verdict = report.fit.verdict
    if report.spiking is None:
        words = f"no energy, {verdict}"
    else:
        part = "" if report.fit.fits else " for those that fit"
        words = f">= {_joules(report.per_token(report.spiking.total))} per token{part}, modelled, {verdict}"
    share = 100 * report.off_chip_mac_share
    return f"{words}; the dense rest ({share:.0f} % of the multiply-accumulates) is not on the chip"


def _measured(workload: Workload) -> str:
    assert workload.measured_joules is not None
    factor, unit = _scale(workload.measured_joules / workload.tokens)
    joules = _number(workload.measured_joules / workload.tokens * factor)
    return f"{joules} {unit}, measured ({workload.measured_source})"


def _joules(interval: Interval) -> str:
    factor, unit = _scale(interval.median)
    median, lo, hi = (_number(x * factor) for x in (interval.median, interval.lo, interval.hi))
    return f"{median} {unit} (90 %: {lo} to {hi})"


def _scale(joules: float) -> tuple[float, str]:
    scales = ((1.0, "J"), (1e3, "mJ"), (1e6, "uJ"), (1e9, "nJ"))
    return next((scale for scale in scales if joules * scale[0] >= 1), scales[-1])


def _number(x: float) -> str:
    return f"{x:.0f}" if x >= 100 else f"{x:.3g}"


def _shares(shares: dict[str, float]) -> str:
    return (
        ", ".join(f"{kind.replace('_', ' ')} {100 * share:.0f} %" for kind, share in shares.items())
        or "nothing happened"
    )
