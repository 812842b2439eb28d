"""Spiking classifiers on recorded data against their graded twins and logistic regression, under the same folds.

    python benchmarks/spiking_tasks.py nmnist --out DIR
    python benchmarks/spiking_tasks.py mnist --out DIR
    python benchmarks/spiking_tasks.py spoken-digits --out DIR --folds george theo

Every fold of every arm is one JSON file in DIR, so that an interrupted run goes on; the report is made of all that are there.
Accuracies are over all samples, each tested in the one fold that did not learn from it. Intervals (95 %): Wilson over samples,
and for spoken digits a bootstrap over speakers too, because samples of one speaker fall together; differences between arms are
a bootstrap over paired samples (over speakers). Logistic regression (L2 chosen per fold on a fifth of its training part) sees
the sum of the events over time, the image, or the graded levels of the cochlea. Energies are counts times the constants of
`sims.energy`: spikes on Loihi 1 (no placement: one message a spike, a lower bound), the graded twin's multiply-accumulates on
the reference CPU. Recordings and images are paired by number and lie in the same folds. Prints one JSON object; the table goes
to stderr.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import _machine
import numpy as np
import torch
import torch.nn.functional as F

import backends
from neuro import atomic, presets_tasks
from neuro import config as configs
from neuro.evaluate import statistics
from neuro.presets_tasks import Fold, Task
from neuro.spiking_classifier import Counts
from neuro.train import classify
from sims.energy import inference

ARMS = ("spiking", "graded", "regression")
L2 = (1e-3, 1e-2, 1e-1)
Z = 1.959964


def regression(x: torch.Tensor, labels: torch.Tensor, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Multinomial logistic regression on standardized inputs -> whether each test sample is right."""

    def right(fit: np.ndarray, held: np.ndarray, l2: float) -> np.ndarray:
        mean, spread = x[fit].mean(0), x[fit].std(0) + 1e-6
        seen = (x[fit] - mean) / spread
        weight = torch.zeros(x.shape[1], 10, requires_grad=True)
        bias = torch.zeros(10, requires_grad=True)
        solver = torch.optim.LBFGS([weight, bias], max_iter=60, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            solver.zero_grad()
            value = F.cross_entropy(seen @ weight + bias, labels[fit]) + l2 * weight.square().sum()
            value.backward()
            return value

        solver.step(loss)
        with torch.no_grad():
            guess = ((x[held] - mean) / spread @ weight + bias).argmax(1)
        return (guess == labels[held]).numpy()

    inner = np.random.default_rng(0).permutation(train)
    cut = len(inner) // 5
    best = max(L2, key=lambda l2: float(right(inner[cut:], inner[:cut], l2).mean()))
    return right(train, test, best)


def measure(task: Task, arm: str, fold: Fold, folder: Path) -> dict[str, Any]:
    """One fold of one arm: trained on its training part, measured on its test part."""
    started = time.process_time()
    record: dict[str, Any] = {"task": task.name, "arm": arm, "fold": fold.name, "test": fold.test.tolist()}
    if arm == "regression":
        x, labels = torch.from_numpy(task.inputs()), torch.from_numpy(task.labels.astype(np.int64))
        record |= {"right": regression(x, labels, fold.train, fold.test).astype(int).tolist()}
        return record | {"processor_seconds": round(time.process_time() - started, 1)}
    model = classify.fit(
        task.network,
        task.draw,
        task.labels,
        fold.train,
        task.plan,
        backends.select("cpu"),
        folder / f"{task.name}-{arm}-{fold.name}.safetensors",
        lambda line: print(task.name, arm, fold.name, json.dumps(line), file=sys.stderr, flush=True),
    )
    scores = classify.evaluate(model, task.draw, task.labels, fold.test)
    record |= {"right": scores.correct.astype(int).tolist(), "counts": scores.counts._asdict()}
    record |= {"network": configs.to_dict(task.network), "plan": configs.to_dict(task.plan)}
    record["parameters"] = sum(p.numel() for p in model.parameters())
    return record | {"processor_seconds": round(time.process_time() - started, 1)}


def wilson(right: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    share, z2 = right / total, Z * Z
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total))
    return middle - half, middle + half


def joules(counts: Counts, arm: str, samples: int) -> dict[str, float]:
    """Per sample: median and 90 % interval of what the counts cost."""
    if arm == "spiking":
        total = inference.spiking(sum(counts.synaptic_ops), counts.updates, sum(counts.spikes[1:]), counts.spikes[0])
    else:
        total = inference.dense(sum(counts.synapses) * counts.steps)
    return {"median": total.median / samples, "lo": total.lo / samples, "hi": total.hi / samples}


def summary(records: list[dict[str, Any]], by_fold: bool) -> dict[str, Any]:
    """One arm over its finished folds."""
    right, total = sum(sum(r["right"]) for r in records), sum(len(r["right"]) for r in records)
    found: dict[str, Any] = {"accuracy": right / total, "samples": total, "wilson": wilson(right, total)}
    found["folds"] = {r["fold"]: float(np.mean(r["right"])) for r in records}
    if by_fold and len(records) > 1:
        units = [np.array([[sum(r["right"]), len(r["right"])]], float) for r in records]
        sums = statistics.resampled_sums(units)
        found["over_folds"] = statistics.interval(sums[0] / sums[1])
    counted = [Counts(**r["counts"]) for r in records if "counts" in r]
    if counted:
        counts = classify.add(counted)
        arm = records[0]["arm"]
        found["parameters"] = records[0]["parameters"]
        if arm == "spiking":
            found["spikes"] = [n / total for n in counts.spikes]
            found["synaptic_ops"] = sum(counts.synaptic_ops) / total
            found["spikes_per_synapse"] = sum(counts.synaptic_ops) / (sum(counts.synapses) * counts.steps)
        found["macs" if arm == "graded" else "macs_if_dense"] = sum(counts.synapses) * counts.steps / total
        found["joules"] = joules(counts, arm, total)
    found["processor_seconds"] = [r["processor_seconds"] for r in records]
    return found


def difference(one: list[dict[str, Any]], other: list[dict[str, Any]], by_fold: bool) -> dict[str, Any]:
    """Accuracy of one arm less that of another on the samples that both were tested on."""
    folds = {r["fold"]: r for r in other}
    units = []
    for r in one:
        if r["fold"] in folds:
            gap = np.array(r["right"], float) - np.array(folds[r["fold"]]["right"], float)
            table = np.stack([gap, np.ones_like(gap)], 1)
            units += [table] if by_fold else list(table[:, None])
    sums = statistics.resampled_sums(units)
    total = np.concatenate(units).sum(0)
    return {"points": 100 * total[0] / total[1], "interval": [100 * v for v in statistics.interval(sums[0] / sums[1])]}


def report(records: list[dict[str, Any]], task: str) -> dict[str, Any]:
    """All finished folds of a task."""
    by_fold = task == "spoken-digits"
    arms = {arm: [r for r in records if r["task"] == task and r["arm"] == arm] for arm in ARMS}
    found = {arm: summary(rows, by_fold) for arm, rows in arms.items() if rows}
    for other in ARMS[1:]:
        if arms["spiking"] and arms[other]:
            found[f"spiking - {other}"] = difference(arms["spiking"], arms[other], by_fold)
    images = [r for r in records if r["task"] == "mnist" and r["arm"] == "spiking"]
    if task == "nmnist" and images and arms["spiking"]:
        found["events - images"] = difference(arms["spiking"], images, by_fold)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=list(presets_tasks.TASKS))
    parser.add_argument("--out", type=Path, required=True, help="finished folds lie here")
    parser.add_argument("--folds", nargs="*", help="only these (default: all)")
    parser.add_argument("--arms", nargs="*", choices=ARMS, default=ARMS)
    options = parser.parse_args()
    for arm in options.arms:
        task = presets_tasks.load(options.task, "graded" if arm == "graded" else "spiking")
        for fold in task.folds:
            path = options.out / f"{task.name}-{arm}-{fold.name}.json"
            if not path.is_file() and (not options.folds or fold.name in options.folds):
                atomic.write_text(path, json.dumps(measure(task, arm, fold, options.out)) + "\n")
    records = [json.loads(path.read_text()) for path in sorted(options.out.glob("*-*.json"))]
    found = report(records, options.task)
    for arm, row in found.items():
        print(arm, json.dumps(row), file=sys.stderr)
    print(
        json.dumps(
            {"benchmark": "spiking_tasks", "task": options.task, "machine": _machine.describe(), **found}, indent=1
        )
    )


if __name__ == "__main__":
    main()
