"""Synthetic recall from scratch: trains a preset on its task, then measures REAL, OFF and SHUFFLED memory on fresh rows.

    python benchmarks/recall.py mqar
    python benchmarks/recall.py delayed --rows 64

`mqar` is the published Based mixture (arXiv:2402.18668): test points (T, pairs) (64, 4|8|16) (128, 32) (256, 64) (512, 128)
(1024, 256), 1,000 rows each, mean accuracy over the seven. Rows hold the answer where the published ones hold any id and
label it. The same weights are measured with several sizes of the store; state elements are counted from the state itself.
Training takes 140 (mqar) and 100 (delayed) processor seconds on one core of an AMD EPYC (Zen 4); measuring 200 rows of mqar
with two stores about 100 more, 1,000 rows five times that. Prints one JSON object; the table goes to stderr.
Intervals are a bootstrap over rows (95 %).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import _machine
import numpy as np

from neuro import config, folder
from neuro.evaluate import recall
from neuro.train import loop

SUITES: dict[str, dict[str, Any]] = {
    "mqar": {"sources": recall.MQAR_BASED, "slots": (256, 512)},
    "delayed": {"sources": recall.BEYOND_WINDOW, "slots": (512,)},
}


def trained(preset: str, seed: int, out: Path, sets: list[str]) -> dict[str, float]:
    """Train into ``out`` (going on where it stopped) -> seconds and steps."""
    run = config.load(preset, [f"train.seed={seed}", *sets])
    last: dict[str, Any] = {}

    def report(record: dict[str, Any]) -> None:
        last.update(record)
        if record["event"] == "eval":
            print(f"{preset} seed {seed}: {json.dumps(record)}", file=sys.stderr, flush=True)

    processor = time.process_time()
    loop.train(run, out, report=report)
    return {
        "steps": run.train.steps,
        "tokens": last.get("tokens", 0),
        "wall_seconds": last.get("seconds", 0.0),
        "processor_seconds": round(time.process_time() - processor, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=list(SUITES))
    parser.add_argument("--rows", type=int, default=1000, help="of each test point under REAL")
    parser.add_argument("--arm-rows", type=int, default=100, help="of each test point under OFF and SHUFFLED")
    parser.add_argument("--seeds", type=int, default=1, help="trainings")
    parser.add_argument("--out", type=Path, help="keep the runs here; a finished one is not trained again")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the preset")
    options = parser.parse_args()
    suite = SUITES[options.suite]
    kept = options.out or Path(tempfile.mkdtemp(prefix="neuro-recall-"))
    runs = []
    for seed in range(options.seeds):
        out = kept / f"{options.suite}-{seed}"
        training = trained(options.suite, seed, out, options.set)
        for slots in suite["slots"]:
            brain = folder.load(out / "model", sets=[f"brain.hippocampus.slots={slots}"])
            started = time.perf_counter()
            real = recall.evaluate(brain, suite["sources"], options.rows, seed, ("real",))
            others = []
            if slots == suite["slots"][-1]:
                others = recall.evaluate(brain, suite["sources"], options.arm_rows, seed, ("off", "shuffled"))
            record = {
                "seed": seed,
                "slots": slots,
                "elements": recall.state_elements(brain),
                "mean_accuracy": float(np.mean([result.accuracy for result in real])),
                "training": training,
                "evaluation_seconds": round(time.perf_counter() - started, 1),
                "results": [result.to_dict() for result in [*real, *others]],
            }
            runs.append(record)
            head = {key: record[key] for key in ("seed", "slots", "elements", "mean_accuracy")}
            print(json.dumps(head), *recall.lines([*real, *others]), sep="\n", file=sys.stderr, flush=True)
    means = {slots: [run["mean_accuracy"] for run in runs if run["slots"] == slots] for slots in suite["slots"]}
    report = {
        "benchmark": "recall",
        "suite": options.suite,
        "machine": _machine.describe(),
        "seeds": options.seeds,
        "mean_accuracy": {slots: float(np.mean(values)) for slots, values in means.items()},
        "spread_over_seeds": {slots: float(np.ptp(values)) for slots, values in means.items()},
        "runs": runs,
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
