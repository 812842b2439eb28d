"""Predicted energies against published measurements, each run predicted without itself, its network or its platform.

    python benchmarks/energy_validation.py
    python benchmarks/energy_validation.py --held-out network --quantity total

Every run of the technology tables (`neuro energy why gpu:k4000.scaled4` prints one with its source): the calibration is done
anew without what is held out, and the prediction sees the run's inputs alone. Two rivals get the same other runs of the same
platform: a constant energy per operation, and the platform's mean energy, each with the spread of those runs. Prints a table
to stderr, and one JSON object with every case, coverage, widths and interval scores. Nothing is timed; the draws are seeded
(0).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys

import _machine

from sims.energy import validation


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held-out", choices=validation.HELD_OUT, help="default: each of them")
    parser.add_argument("--quantity", choices=validation.QUANTITIES, help="default: dynamic and total energy, and time")
    args = parser.parse_args()
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
    print(json.dumps(result, indent=1))
    return 0


def _line(case: validation.Case) -> str:
    inside = "inside" if case.covered else "OUTSIDE"
    return (
        f"  {case.run:24} measured {case.measured:9.3e}  predicted {case.predicted.median:9.3e} "
        f"({100 * case.error:+6.1f} %, x/÷{case.half_width:5.2f}, {inside})"
    )


if __name__ == "__main__":
    sys.exit(main())
