"""The energy report of one workload: the spiking part on a chip, the whole model on a reference CPU, and what has no price."""

from __future__ import annotations

import dataclasses
from typing import Any

from neuro.workload import Workload
from sims import chips
from sims.chips import Fit
from sims.energy.price import Interval, Priced, Term, price
from sims.energy.technologies import Technology, technologies

SCHEMA = "neuro.energy/1"
CPU = "cpu:e5-2630"


@dataclasses.dataclass(frozen=True)
class Report:
    """Joules are of the whole run; `per_token` divides."""

    workload: Workload
    chip: Technology
    fit: Fit
    spiking: Priced  # the spiking populations on the chip
    unpriced: tuple[tuple[str, str], ...]  # of the chip: the total is a lower bound
    off_chip_macs: int  # dense multiply-accumulates that the chip does not do
    off_chip_share: float  # of all multiply-accumulates and synaptic operations
    reference: Technology
    whole: Priced  # every multiply-accumulate on the reference CPU
    terms: tuple[Term, ...]

    def per_token(self, joules: Interval) -> Interval:
        n = self.workload.tokens
        return Interval(joules.median / n, joules.lo / n, joules.hi / n)

    def to_dict(self) -> dict[str, Any]:
        w = self.workload
        measured = None
        if w.measured_joules is not None:
            measured = {
                "joules": w.measured_joules,
                "source": w.measured_source,
                "per_token": w.measured_joules / w.tokens,
            }
        return {
            "schema": SCHEMA,
            "model": w.model,
            "tokens": w.tokens,
            "chip": {
                "name": self.chip.platform,
                "verdict": self.fit.verdict,
                "cores": self.fit.cores,
                "chips": self.fit.chips,
                "joules_per_token": dataclasses.asdict(self.per_token(self.spiking.total)),
                "lower_bound": bool(self.unpriced),
                "by_kind": {k: dataclasses.asdict(self.per_token(v)) for k, v in self.spiking.by_kind.items()},
                "by_region": {k: dataclasses.asdict(self.per_token(v)) for k, v in self.spiking.by_region.items()},
                "variance_share": self.spiking.variance_share,
                "unpriced": dict(self.unpriced),
                "evidence": sorted({c.evidence for c in self.chip.constants}),
                "not_on_the_chip": {"macs": self.off_chip_macs, "share": self.off_chip_share},
            },
            "counts": [dataclasses.asdict(term) for term in self.terms],
            "cpu": {
                "name": self.reference.name,
                "label": "modelled",
                "joules_per_token": dataclasses.asdict(self.per_token(self.whole.total)),
                "lower_bound": True,
                "unpriced": dict(self.reference.unpriced),
            },
            "measured": measured,
        }

    def to_text(self) -> str:
        w = self.workload
        lines = [
            f"{w.model}: {w.tokens} tokens ({w.prefill_tokens} read), {w.spans} commits, {w.parameters} parameters",
            "",
        ]
        lines.append(f"Spiking layers on {self.chip.name}: {self.fit.verdict}")
        for name, interval in self.spiking.by_kind.items():
            count = sum(term.count for term in self.terms if term.kind == name)
            each = count / w.tokens
            lines.append(f"  {name.replace('_', ' '):<14} {each:12.1f} per token   {_joules(self.per_token(interval))}")
        lines.append(f"  {'total':<14} {'':>12}             >= {_joules(self.per_token(self.spiking.total))} per token")
        lines += [f"  unpriced: {term}: {why}" for term, why in self.unpriced]
        lines.append(
            f"  not on the chip: {self.off_chip_macs / w.tokens:.0f} dense multiply-accumulates per token "
            f"({100 * self.off_chip_share:.1f} % of all operations)"
        )
        for placed in self.fit.rows:
            cores = f"{placed.source_cores} cores of neurons, {placed.target_cores} cores of synapses"
            lines.append(f"  {placed.name}: {placed.problem or cores}")
        lines += ["", "Share of the interval's variance: " + _shares(self.spiking.variance_share)]
        lines.append("Weakest evidence: " + ", ".join(sorted({c.evidence for c in self.chip.constants})))
        lines += ["", *_whole_lines(self)]
        lines += [f"  unpriced: {term}: {why}" for term, why in self.reference.unpriced]
        lines += ["", "Operations by region, per token:"]
        for region in dict.fromkeys(row.region for row in w.operations):
            kinds: dict[str, int] = {}
            for row in w.operations:
                if row.region == region:
                    kinds[row.kind] = kinds.get(row.kind, 0) + row.count
            lines.append(
                f"  {region:<12} " + ", ".join(f"{kind} {count / w.tokens:.0f}" for kind, count in kinds.items())
            )
        lines += ["", "Bytes moved, per token:"]
        for t in w.traffic:
            lines.append(
                f"  {t.region:<12} {t.store:<8} {t.read_bytes / w.tokens:12.0f} read {t.written_bytes / w.tokens:10.0f} written"
            )
        return "\n".join(lines)


def estimate(workload: Workload, chip: str = "loihi1", seed: int = 0) -> Report:
    """Price a workload.

    Raises:
        UsageError: an unknown chip.
    """
    chip_limits = chips.load(chip)
    known = technologies()
    fit = chips.fit(workload.populations, chip_limits)
    targets = {row.name: max(1, row.target_cores) for row in fit.rows}
    terms = []
    for p in workload.populations:
        terms += [
            Term(p.region, "synaptic_op", p.synaptic_ops),
            Term(p.region, "neuron_update", p.updates),
            Term(p.region, "spike", p.spikes),
            Term(p.region, "message", p.spikes * targets[p.name]),
        ]
    macs = [row for row in workload.operations if row.kind == "mac"]
    off_chip = sum(row.count for row in macs if row.signal != "binary")
    on_chip = sum(p.synaptic_ops for p in workload.populations)
    return Report(
        workload=workload,
        chip=known[chip],
        fit=fit,
        spiking=price(terms, known[chip], seed),
        unpriced=known[chip].unpriced,
        off_chip_macs=off_chip,
        off_chip_share=off_chip / max(1, off_chip + on_chip),
        reference=known[CPU],
        whole=price([Term(row.region, "mac", row.count) for row in macs], known[CPU], seed),
        terms=tuple(terms),
    )


def summary_lines(workload: Workload) -> list[str]:
    """The lines `neuro run` prints."""
    report = estimate(workload)
    spiking = _joules(report.per_token(report.spiking.total))
    share = 100 * report.off_chip_share
    return [
        f"spiking layers on loihi1: >= {spiking} per token, {report.fit.verdict}; "
        f"the dense rest ({share:.0f} % of the operations) is not on the chip",
        *_whole_lines(report),
    ]


def _whole_lines(report: Report) -> list[str]:
    w, lines = report.workload, []
    if w.measured_joules is not None:
        lines.append(
            f"whole model, this machine: {w.measured_joules / w.tokens * 1e3:.3g} mJ per token, measured ({w.measured_source})"
        )
    whole = _joules(report.per_token(report.whole.total))
    lines.append(
        f"whole model on a reference CPU ({report.reference.name}): >= {whole} per token, modelled, without idle power"
    )
    return lines


def _joules(interval: Interval) -> str:
    scales = ((1.0, "J"), (1e3, "mJ"), (1e6, "uJ"), (1e9, "nJ"))
    factor, unit = next((scale for scale in scales if interval.median * scale[0] >= 1), scales[-1])
    return f"{interval.median * factor:.3g} {unit} (90 %: {interval.lo * factor:.3g} to {interval.hi * factor:.3g})"


def _shares(shares: dict[str, float]) -> str:
    return (
        ", ".join(f"{kind.replace('_', ' ')} {100 * share:.0f} %" for kind, share in shares.items())
        or "nothing happened"
    )
