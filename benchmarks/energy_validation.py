"""Predicted energies against published measurements, each run predicted without itself, its network or its platform.

    python benchmarks/energy_validation.py
    python benchmarks/energy_validation.py --held-out network --quantity total
    python benchmarks/energy_validation.py --table > table.md

Every run of the technology tables (`neuro energy why gpu:k4000.scaled4` prints one with its source): the calibration is done
anew without what is held out, and the prediction sees the run's inputs alone. Two rivals get the same other runs of the same
platform (those of the other platforms where it has none left): a constant energy per operation, and the mean energy, each
with the spread of those runs. Some runs are
of one network: without its run alone, a prediction may still have seen the network. The fit's constants (`POOL`, `NOISE`,
`BEFORE`, `APART`, the hypotenuse, no price of layers on sticks) were chosen while looking at these scores, so they flatter
it a little. Prints a table
to stderr, and one JSON object with every case, coverage, widths and interval scores. Nothing is timed; the draws are seeded
(0).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import sys

import _machine

from sims.energy import predict, validation
from sims.energy.streams import Interval
from sims.energy.technologies import technologies


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held-out", choices=validation.HELD_OUT, help="default: each of them")
    parser.add_argument("--quantity", choices=validation.QUANTITIES, help="default: dynamic and total energy, and time")
    parser.add_argument("--table", action="store_true", help="print the tables of docs/energy.md instead")
    args = parser.parse_args()
    if args.table:
        print("\n".join(_table()))
        return 0
    result = {"machine": _machine.describe(), "seed": 0, "parts": {}}
    for held_out in [args.held_out] if args.held_out else validation.HELD_OUT:
        for quantity in [args.quantity] if args.quantity else validation.QUANTITIES:
            found = validation.cases(held_out, quantity)
            print(f"\n{quantity}, without its {held_out}", file=sys.stderr)
            for case in found:
                print(_line(case), file=sys.stderr)
            parts = {
                "all": found,
                "calibrated": [case for case in found if case.calibrated],
                "without a run of its platform": [case for case in found if not case.calibrated],
            }
            totals = {name: validation.summary(some) for name, some in parts.items() if some}
            for name, row in totals.items():
                print(f"  {name}: " + ", ".join(f"{key} {value:.3g}" for key, value in row.items()), file=sys.stderr)
            rows = [dataclasses.asdict(case) | {"error": case.error, "covered": case.covered} for case in found]
            result["parts"][f"{quantity} without {held_out}"] = {"summary": totals, "cases": rows}
    result["half_width_between_runs"] = _between()
    result["half_width_by_constants_alone"] = _by_constants()
    print(json.dumps(result, indent=1))
    return 0


def _between() -> dict[str, float]:
    """Median half-width with every run in, of networks and batches that were not published: no measurement is needed."""
    loihi = {"steps": 10}
    asked = [
        (name, {"macs": 107_264 + 720_896 * n, "layers": 3 + 10 * n} | (loihi if name == "loihi1" else {}))
        for name in ("cpu:e5-2630", "gpu:k4000", "movidius:ncs", "loihi1")
        for n in (1, 2, 3, 5, 6, 7, 10, 12)
    ]
    asked += [
        (name, {"macs": 172_800, "layers": 3, "batch": batch})
        for name in ("cpu:e5-2630", "gpu:k4000", "jetson:tx1")
        for batch in (2, 4, 16, 32)
    ]
    found = [predict(name, **given)["energy_j"] for name, given in asked]
    widths = {part: [math.sqrt(row[part]["hi"] / row[part]["lo"]) for row in found] for part in ("dynamic", "total")}
    return {part: statistics.median(values) for part, values in widths.items()}


def _by_constants() -> dict[str, dict[str, float]]:
    """Half-widths of platforms without any run, of one second with a million of what they count."""
    asked = {
        "akida": {"counts": {"clock": 4.3e6}},
        "gpu:h200": {"macs": 1.1e8, "layers": 12, "kv_bytes": 1e7},
        "spinnaker1": {"synops": 1e6, "spikes": 1e4, "counts": {"neuron_update": 1e5, "message": 1e4}, "seconds": 1.0},
        "spinnaker2": {"synops": 1e6, "counts": {"neuron_update": 1e5}},
        "xylo_audio2": {"steps": 1000},
        "xylo_audio3": {"steps": 1000},
    }
    tables = [t for t in technologies().values() if t.model in ("decode", "events") and t.scope != "arithmetic"]
    rows = {t.platform: predict(t.platform, **asked.get(t.platform, {"synops": 1e6}))["energy_j"] for t in tables}
    widths = {
        part: {name: math.sqrt(row[part]["hi"] / row[part]["lo"]) for name, row in rows.items() if row[part]}
        for part in ("dynamic", "total")
    }
    return {part: found | {"median": statistics.median(found.values())} for part, found in widths.items()}


def _table() -> list[str]:
    """Predicted against measured with the inputs, one row a run, one column for what was held out."""
    held_out = {name: {case.run: case for case in validation.cases(name)} for name in validation.HELD_OUT}
    rows = [
        "| run | inputs | measured mJ | without its run | without its network | without its platform |",
        "|---|---|---|---|---|---|",
    ]
    for table in technologies().values():
        for run in table.runs:
            told = ", ".join(
                f"{name} {value:,.0f}"
                for name, value in validation.inputs(run).items()
                if name != "steps" and (name != "batch" or value > 1)
            )
            cells = [_cell(held_out[name].get(run.id)) for name in validation.HELD_OUT]
            if run.id not in held_out["run"] and run.dynamic_j:  # of another setup than its platform's other runs
                answer = predict(table.platform, **validation.inputs(run), setup="other")["energy_j"]["dynamic"]
                cells[0] = "another setup: " + _words(Interval(**answer), run.dynamic_j)
            rows.append(f"| {run.id} | {told} | {1e3 * (run.dynamic_j or 0.0):.4g} | {' | '.join(cells)} |")
    rows += [
        "",
        "| left out, quantity | inside their 90 % interval | chance of so few or so many | median error | median half-width | "
        "interval score of log10: ours, constant per operation, platform mean |",
        "|---|---|---|---|---|---|",
    ]
    for name in validation.HELD_OUT:
        for quantity in validation.QUANTITIES:
            found = [c for c in validation.cases(name, quantity) if c.calibrated == (name != "platform")]
            rows.append(f"| its {name}, {quantity} | {_totals(found)} |")
    return rows


def _totals(found: list[validation.Case]) -> str:
    row = validation.summary(found)
    scores = ", ".join(f"{row[key]:.3g}" for key in ("score", "score_per_operation", "score_mean"))
    inside = f"{sum(case.covered for case in found)} of {len(found)}"
    return (
        f"{inside} | {row['chance']:.2f} | {100 * row['error']:.3g} % | x/÷{row['half_width']:.3g} | {scores} "
        f"({row['compared']:.0f} cases)"
    )


def _cell(case: validation.Case | None) -> str:
    return _words(case.predicted, case.measured) if case else "-"


def _words(predicted: Interval, measured: float) -> str:
    width = math.sqrt(predicted.hi / predicted.lo)
    outside = "" if predicted.lo <= measured <= predicted.hi else ", outside"
    return f"{1e3 * predicted.median:.4g} ({100 * (predicted.median / measured - 1):+.1f} %, x/÷{width:.2f}{outside})"


def _line(case: validation.Case) -> str:
    inside = "inside" if case.covered else "OUTSIDE"
    return (
        f"  {case.run:24} measured {case.measured:9.3e}  predicted {case.predicted.median:9.3e} "
        f"({100 * case.error:+6.1f} %, x/÷{case.half_width:5.2f}, {inside})"
    )


if __name__ == "__main__":
    sys.exit(main())
