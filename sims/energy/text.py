"""The energy report in words, as a table for a spreadsheet, and as the bars of its picture."""

from __future__ import annotations

import csv
import dataclasses
import io

import numpy as np

from neuro.workload import Workload
from sims.energy import words
from sims.energy.activity import Activity
from sims.energy.report import Against, Report, estimate
from sims.energy.streams import Interval, interval, shares

_HEAD = (
    "",
    "mac",
    "non-zero",
    "behind spikes",
    "additions",
    "per synapse",
    "updates",
    "weights",
    "state",
    "kv",
    "memory",
    "bus",
)


def full(report: Report) -> str:
    """Everything, for a terminal."""
    w = report.workload
    phases = ", ".join(f"{p.tokens} in {p.calls} call{'s' * (p.calls != 1)} of {p.name}" for p in w.phases)
    commits = f"{w.spans} commit{'s' * (w.spans != 1)}, " if w.unit == "token" else ""
    lines = [
        f"{w.model}: {w.tokens} {w.unit}{'s' * (w.tokens != 1)} ({phases}), {commits}{w.parameters} parameters",
        f"Energies are per {w.unit}: the median, and where 90 % of the draws lie. '>=' says that something has no price.",
        *(f"not counted, so that every sum is a lower bound: {name}" for name in w.uncounted),
        "",
        *_comparisons(report),
    ]
    if w.measured_joules is not None:
        lines += ["", f"Whole model on {w.hardware}", f"  {_measured(w)}"]
    for row in report.against:
        lines += ["", *_platform(report, row)]
    lines += ["", *_chip(report), *_layers(report), "", *_counts(report)]
    term = report.chip.table.constants[0].id
    return "\n".join([*lines, "", f"'neuro energy why {term}' explains a number and names its source."])


def summary_lines(workload: Workload) -> list[str]:
    """The lines `neuro run` prints: two, and one more where the machine measured itself."""
    report = estimate(workload, refined=False)
    lines = [f"spiking layers on {report.chip.table.platform}: {_chip_words(report)}"]
    if workload.measured_joules is not None:
        lines.append(f"whole model, this machine: {_measured(workload)} per {workload.unit}")
    for row in report.against:
        whole = words.joules(_per(row.dense.total, workload))
        lines.append(
            f"every product on {row.dense.table.name}: >= {whole} per {workload.unit}, modelled, idle included"
        )
    return lines


def table(report: Report) -> str:
    """CSV: a row for each phase and region, counts of the whole run and joules of the whole run (median, 5 and 95 %)."""
    out = io.StringIO()
    fields = [field.name for field in dataclasses.fields(Activity)]
    platforms = [row.dense.table.platform for row in report.against]
    places = [f"{report.chip.table.platform} events", *(f"{name} dense, allocated by mac" for name in platforms)]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [*fields, "spikes_per_synapse", *(f"{p} {q} (J)" for p in places for q in ("median", "5 %", "95 %"))]
    )
    for row in report.activity:
        chip = report.chip_by_region(row.phase).get(row.region)
        macs = sum(other.macs for other in report.activity if other.phase == row.phase)
        cells: list[Interval | None] = [chip]
        for against in report.against:
            found = against.dense.phases.get(row.phase) if report.dense is report.workload else None
            share = row.macs / max(1, macs) * against.dense.tokens.get(row.phase, 0)
            cells.append(interval(found.total * share) if found is not None and share else None)
        joules = [x for cell in cells for x in (("", "", "") if cell is None else dataclasses.astuple(cell))]
        per_synapse = "" if row.spikes_per_synapse is None else row.spikes_per_synapse
        writer.writerow([*dataclasses.astuple(row), per_synapse, *joules])
    return out.getvalue()


def bars(report: Report) -> list[tuple[str, dict[str, float], str]]:
    """(side, joules per token by term, words) of each side, for `neuro.plots.energy.shares`."""
    found = []
    chip = report.chip
    if chip.priced is not None and chip.priced.draws is not None:
        terms = {_plain(k): float(np.median(v)) for k, v in chip.priced.draws.by_kind.items()}
        if not np.isnan(chip.static_j).any():
            terms["static, cores alone"] = float(np.median(chip.static_j))
        found.append(
            (
                f"spikes on {chip.table.platform},\nits cores alone",
                terms,
                ">= " + words.joules(report.per_token(chip.cores_j)),
            )
        )
    if chip.inference is not None:
        terms = {_plain(k): float(np.median(v)) for k, v in chip.inference.terms.items()}
        label = f"spikes on {chip.table.platform},\nits host as published"
        found.append((label, terms, words.joules(report.per_token(chip.inference.total))))
    for row in report.against:
        name, n = row.dense.table.platform, report.dense.tokens
        dense = {_plain(k): float(np.median(v)) for k, v in row.dense.terms.items()}
        found.append((f"all products on {name}", dense, words.joules(interval(row.dense.total / n))))
        if chip.placed:
            hybrid = {_plain(k.removeprefix(f"{name} ")): float(np.median(v)) for k, v in row.hybrid.items()}
            total = sum(row.hybrid.values(), np.zeros_like(row.dense.total))
            found.append(
                (f"spikes on {chip.table.platform},\nthe rest on {name}", hybrid, words.joules(report.per_token(total)))
            )
    return found


def _comparisons(report: Report) -> list[str]:
    lines = []
    for row in report.against:
        name = row.dense.table.platform
        rest = f" and the rest on {name}" if row.rest.phases else ""
        what = f"spikes on {report.chip.table.platform}{rest}, against all products on {name}"
        if row.ratio is None:
            lines.append(f"{what}: {row.verdict}")
            continue
        lines.append(f"{what}: {words.ratio(row.ratio)} times the energy, {row.verdict}")
        aside = [] if row.ratio_dynamic is None else [f"without idle power {words.ratio(row.ratio_dynamic)}"]
        if row.ratio_cores is not None:
            aside.append(f"by {report.chip.table.platform}'s cores without their host {words.ratio(row.ratio_cores)}")
        if row.convention is not None:
            aside.append(f"by 4.6 pJ a product and 0.9 pJ an addition alone {words.number(row.convention)}")
        lines.append(f"  {'; '.join(aside)}")
    if not lines:
        return []
    steps = max((phase.steps for phase in report.dense.phases), default=1)
    if report.dense is report.workload and steps >= 2:
        lines.append(f"  all products are made at each of {steps} steps: give a dense network's own run with --dense")
    if report.losses is None:
        lines.append("  equal quality is not claimed: give the validation losses of both with --loss and --dense-loss")
    else:
        mine, dense = report.losses
        lines.append(f"  validation loss {mine:g} against {dense:g} of the dense model: {mine - dense:+.4f} nats")
    return lines


def _platform(report: Report, row: Against) -> list[str]:
    n, platform = report.dense.tokens, row.dense
    lines = [f"All products on {platform.table.name}"]
    for name, found in platform.phases.items():
        each, tokens = interval(found.total), platform.tokens[name]
        spent = "time not modelled," if np.isnan(found.time_s).any() else words.seconds(interval(found.time_s))
        lines.append(f"  {name:<16} {words.joules(each)}, {spent} each of {tokens}")
    lines += [f"  {_plain(name):<16} {words.joules(interval(draws / n))}" for name, draws in platform.terms.items()]
    example = next(iter(platform.phases.values()), None)
    sign = ">= " if example is not None and example.unpriced else ""
    lines.append(f"  {'total':<16} {sign}{words.joules(interval(platform.total / n))}, modelled")
    lines.append(f"  what widens the interval: {_shares(shares(platform.terms))}")
    if example is not None:
        lines += [f"  assumed: {what}" for what in example.assumed]
        why = {row.id: row.why for row in platform.table.unpriced}
        lines += [
            f"  unpriced: {what}: {why.get(what, 'counted, and nothing here prices it')}" for what in example.unpriced
        ]
        if example.calibrated_on:
            lines.append(
                f"  fitted to {len(example.calibrated_on)} published runs ('neuro energy why {example.calibrated_on[0]}')"
            )
    return [*lines, f"  weakest evidence: {_plain(platform.weakest_evidence)}"]


def _chip(report: Report) -> list[str]:
    chip, w = report.chip, report.workload
    lines = [f"Spiking layers on {chip.table.name}: {chip.placement.verdict}"]
    lines += [f"  {part.name}: {part.reason}" for part in chip.placement.parts]
    if not chip.placed:
        return lines
    if chip.priced is not None:
        assert chip.priced.draws is not None
        for kind, draws in chip.priced.draws.by_kind.items():
            each = sum(t.count for rows in chip.terms.values() for t in rows if t.kind == kind) / w.tokens
            lines.append(f"  {_plain(kind):<16} {each:12.1f} times, {words.joules(report.per_token(draws))}")
        for name, draws in chip.priced.draws.by_region.items():
            lines.append(f"  {f'all of {name}':<16} {words.joules(report.per_token(draws))}")
        if not np.isnan(chip.time_s).any():
            spent = words.seconds(report.per_token(chip.time_s))
            lines.append(
                f"  {'static':<16} {words.joules(report.per_token(chip.static_j))}, while its cores take {spent}"
            )
    lines.append(f"  {'total':<16} >= {words.joules(report.per_token(chip.cores_j))}, modelled")
    if chip.inference is not None:
        lines.append(
            "  with its host, at the pace of the published runs (the same events, priced as a whole inference):"
        )
        for name, draws in chip.inference.terms.items():
            lines.append(f"    {_plain(name):<14} {words.joules(report.per_token(draws))}")
        spent = words.seconds(report.per_token(chip.inference.time_s))
        sign = ">= " if chip.inference.unpriced else ""
        lines.append(f"    {'total':<14} {sign}{words.joules(report.per_token(chip.inference.total))} in {spent}")
        lines.append(f"    what widens the interval: {_shares(shares(chip.inference.terms))}")
        lines += [f"    assumed: {what}" for what in chip.inference.assumed]
    lines.append("  assumed: spikes are spread evenly over a population; one population works after another")
    lines += [f"  unpriced: {what}: {why}" for what, why in chip.unpriced]
    if chip.priced is not None:
        lines.append(f"  what widens the interval: {_shares(chip.priced.variance_share)}")
    lines.append(f"  weakest evidence: {_plain(chip.weakest_evidence)}")
    left = 100 * report.mac_share_left
    return [*lines, f"  not on the chip: {left:.1f} % of the multiply-accumulates, and all else"]


def _layers(report: Report) -> list[str]:
    if not report.layers:
        return []
    lines = [
        "",
        "Spikes per synapse against the break-even (SENECA's memory on both sides; below it spikes save energy)",
    ]
    for row in report.layers:
        least = row.break_even.spikes_per_synapse
        if not least.median:
            margin = "no rate saves, the updates alone cost more"
        elif row.margin >= 1:
            margin = f"{words.number(row.margin)} times below"
        else:
            margin = f"{words.number(1 / row.margin)} times above"
        lines.append(f"  {row.name}: {words.number(row.spikes_per_synapse)} against {words.ratio(least)}: {margin}")
    return lines


def _counts(report: Report) -> list[str]:
    lines = []
    for phase in report.workload.phases:
        mine = [row for row in report.activity if row.phase == phase.name]
        n = phase.tokens

        def cells(name: str, rows: list[Activity], n: int = n) -> list[str]:
            def each(field: str) -> str:
                return words.count(sum(getattr(row, field) for row in rows) / n)

            replaced = sum(row.replaced_macs for row in rows)
            added = sum(row.accumulates for row in rows)
            per_synapse = words.number(added / replaced) if replaced else "-"
            fields = ("macs", "effective_macs", "replaced_macs", "accumulates")
            stores = ("weights", "state", "kv", "memory", "bus")
            return [name, *map(each, fields), per_synapse, each("updates"), *(each(f"{s}_bytes") for s in stores)]

        rows = [list(_HEAD), *(cells(row.region, [row]) for row in mine), cells("all", mine)]
        unit = report.workload.unit
        lines += [
            f"Counts per {unit} of {phase.name}; the last five in bytes",
            *("  " + x for x in words.table(rows)),
            "",
        ]
    return lines[:-1]


def _chip_words(report: Report) -> str:
    chip = report.chip
    if not chip.placement.parts:
        return "this model has none"
    verdict = chip.placement.verdict
    if not chip.placed:
        said = f"no energy, {verdict}"
    else:
        part = (
            "" if all(part.cores for part in chip.placement.parts if part.neurons) else " for those that have a place"
        )
        said = (
            f">= {words.joules(report.per_token(chip.cores_j))} per {report.workload.unit}{part}, modelled, {verdict}"
        )
    return f"{said}; the rest ({100 * report.mac_share_left:.0f} % of the multiply-accumulates) is not on the chip"


def _per(draws: np.ndarray, workload: Workload) -> Interval:
    return interval(draws / workload.tokens)


def _measured(workload: Workload) -> str:
    assert workload.measured_joules is not None
    each = workload.measured_joules / workload.tokens
    said = words.joules(Interval(each, each, each)).split(" (")[0]
    return f"{said}, measured ({workload.measured_source})"


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _shares(found: dict[str, float]) -> str:
    return ", ".join(f"{_plain(kind)} {100 * share:.0f} %" for kind, share in found.items()) or "nothing happened"
