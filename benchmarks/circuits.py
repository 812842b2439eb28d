"""python -m benchmarks.circuits [NAME ...] [--seeds 20] [--write]: each circuit's statistics over seeds, whole and lesioned.

Seeds 0 to N-1. With --write the means and standard deviations go into each circuit's `reference.toml`. Parameters were chosen
by hand, on seed 0 or 100; seed 0 is among the 20.
"""

from __future__ import annotations

import argparse
import json
import resource
from typing import Any

import numpy as np

from benchmarks import _machine
from neuro import atomic
from sims.circuits import studies


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=list(studies.STUDIES))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    print(json.dumps(_machine.describe()))
    for name in args.names:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        found = {
            lesion: [studies.STUDIES[name](seed, lesion).statistics for seed in range(args.seeds)]
            for lesion in (False, True)
        }
        spent = round(resource.getrusage(resource.RUSAGE_SELF).ru_utime - before, 1)
        measured = {
            statistic: {
                f"{kind}{suffix}": float(f"{value:.4g}") if np.isfinite(value) else None
                for kind, rows in (("ours", found[False]), ("lesioned", found[True]))
                for suffix, value in _moments(np.array([row[statistic] for row in rows]))
            }
            for statistic in found[False][0]
        }
        print(json.dumps({"circuit": name, "seeds": args.seeds, "cpu_s": spent, "statistics": measured}), flush=True)
        if args.write:
            record = studies.record(name)
            record["seeds"] = args.seeds
            for statistic, values in measured.items():
                record["statistics"][statistic] |= values
            atomic.write_text(studies.reference(name), as_toml(record))


def as_toml(record: dict[str, Any]) -> str:
    """A circuit's record as `studies.record` reads it."""
    lines = [f"{key} = {_value(value)}" for key, value in record.items() if key != "statistics"]
    for name, row in record["statistics"].items():
        lines += ["", f"[statistics.{name}]", *(f"{key} = {_value(value)}" for key, value in row.items())]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    """In TOML, which for these is JSON but for what is undefined."""
    return "nan" if value is None else json.dumps(value, ensure_ascii=False)


def _moments(values: np.ndarray) -> tuple[tuple[str, float], tuple[str, float]]:
    """Mean and standard deviation of the values that are defined."""
    values = values[np.isfinite(values)]
    many = len(values) > 1
    return ("", float(values.mean()) if len(values) else np.nan), ("_sd", float(values.std(ddof=1)) if many else np.nan)


if __name__ == "__main__":
    main()
