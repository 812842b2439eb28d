"""The accuracy that trained spiking classifiers keep in the integers of Loihi 1 and of Xylo.

    python benchmarks/chip_accuracy.py train ARM --out DIR
    python benchmarks/chip_accuracy.py report --out DIR

An arm is a task, a reset and a chip. Run s of an arm trains with seed s on fold s less a tenth, the validation samples; scales
are chosen on 100 of those, so the test part is read once. Networks lie in DIR and are not trained again. Reported over the
runs' test samples together (each is in one fold): the share right in float32 and on the chip, with 95 % intervals (Wilson);
the chip's less float's, paired, with a bootstrap over samples; the share of samples with the same answer; per hidden layer
spikes in both, the share that meets (Jaccard: smaller over larger counts, step by step), and the share of neuron-steps that
are equal; what left the chip's ranges. Layers are compared in their own time. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import _machine
import numpy as np
import torch

import backends
from neuro import atomic, presets_tasks
from neuro import config as configs
from neuro.cli import _chips
from neuro.evaluate import statistics
from neuro.presets_tasks import Task
from neuro.sensors import cochlea, spoken_digits
from neuro.spiking_classifier import ClassifierConfig, LayerConfig
from neuro.train import classify

RUNS = 3
HELD_BACK = 10
XYLO_BINS, XYLO_BANDS, XYLO_WIDTH, XYLO_EPOCHS = 24, 16, 128, 20
Z = 1.959964


def preset(name: str, **changes: Any) -> Task:
    """A task of the presets with another network."""
    task = presets_tasks.load(name)
    return dataclasses.replace(task, network=dataclasses.replace(task.network, **changes))


def for_xylo(burst: int) -> Task:
    """Spoken digits through 16 bands: events count how many of four thresholds a band is above; 128 and 128 hidden neurons."""
    task = presets_tasks.load("spoken-digits")
    sounds = [cochlea.levels(take.samples, spoken_digits.RATE_HZ, XYLO_BANDS) for take in spoken_digits.load()]

    def draw(samples: np.ndarray, generator: np.random.Generator | None) -> torch.Tensor:
        rows = []
        for number in samples:
            sound, bend = sounds[number], 1.0
            if generator is not None:
                sound, bend = cochlea.varied(sound, generator), generator.uniform(0.7, 1.4)
            heard = cochlea.fibres(cochlea.resampled(sound, XYLO_BINS, bend), presets_tasks.THRESHOLDS_DB)
            rows.append(heard.sum(1))
        return torch.from_numpy(np.stack(rows, 1)).float()

    layers = (LayerConfig(XYLO_WIDTH), LayerConfig(XYLO_WIDTH))
    network = ClassifierConfig((XYLO_BANDS,), layers, decay=0.5, synapse_decay=0.5, burst=burst)
    plan = dataclasses.replace(task.plan, epochs=XYLO_EPOCHS)
    return dataclasses.replace(task, name="spoken-digits-16", draw=draw, network=network, plan=plan)


ARMS = {
    "spoken-digits-soft": (lambda: preset("spoken-digits"), "loihi1"),
    "spoken-digits-hard": (lambda: preset("spoken-digits", reset="hard"), "loihi1"),
    "nmnist-soft": (lambda: preset("nmnist"), "loihi1"),
    "nmnist-hard": (lambda: preset("nmnist", reset="hard"), "loihi1"),
    "spoken-digits-xylo": (lambda: for_xylo(31), "xylo_audio3"),
    "spoken-digits-xylo-single": (lambda: for_xylo(1), "xylo_audio3"),  # trained without the chip's bursts
}


def split(task: Task, run: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers of the samples to learn from, to choose on and to be measured on."""
    fold = task.folds[run]
    order = np.random.default_rng(run).permutation(fold.train)
    held = len(order) // HELD_BACK
    return np.sort(order[held:]), order[:held], fold.test


def train(arm: str, folder: Path) -> None:
    """The arm's networks that are not in the folder yet."""
    task = ARMS[arm][0]()
    for run in range(RUNS):
        path = folder / f"{arm}-{run}.safetensors"
        if path.is_file():
            continue
        started = time.process_time()
        plan = dataclasses.replace(task.plan, seed=run)
        model = classify.fit(task.network, task.draw, task.labels, split(task, run)[0], plan, backends.select("cpu"))
        seconds = round(time.process_time() - started, 1)
        classify.save(path, model, {"arm": arm, "run": run, "plan": configs.to_dict(plan), "seconds": seconds})
        print(arm, run, seconds, file=sys.stderr, flush=True)


def measure(arm: str, run: int, folder: Path) -> dict[str, Any]:
    """One network of an arm on its test samples."""
    make, chip = ARMS[arm]
    task = make()
    model, about = classify.load(folder / f"{arm}-{run}.safetensors", backends.select("cpu"))
    _, calibration, test = split(task, run)
    started = time.process_time()
    found = _chips.measure(model, task.draw, task.labels, test, calibration, chip)
    found["right"] = {name: right.astype(int).tolist() for name, right in found["right"].items()}
    found["same_answer"] = found["same_answer"].astype(int).tolist()
    return found | {
        "run": run,
        "seconds": round(time.process_time() - started, 1),
        "training_seconds": about["seconds"],
    }


def wilson(right: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    share, z2 = right / total, Z * Z
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total))
    return middle - half, middle + half


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """An arm over its runs."""
    right = {name: np.concatenate([run["right"][name] for run in runs]) for name in ("float", "chip")}
    total = len(right["float"])
    found: dict[str, Any] = {"chip": runs[0]["chip"], "samples": total, "runs": len(runs)}
    for name, values in right.items():
        found[f"accuracy_{name}"] = float(values.mean())
        found[f"accuracy_{name}_95"] = wilson(int(values.sum()), total)
        found[f"accuracy_{name}_by_run"] = [float(np.mean(run["right"][name])) for run in runs]
    gap = right["chip"].astype(float) - right["float"]
    sums = statistics.resampled_sums(list(np.stack([gap, np.ones(total)], 1)[:, None]))
    found["points"] = 100 * float(gap.mean())
    found["points_95"] = [100 * value for value in statistics.interval(sums[0] / sums[1])]
    same = np.concatenate([run["same_answer"] for run in runs])
    found["same_answer"], found["same_answer_95"] = float(same.mean()), wilson(int(same.sum()), total)
    for name in runs[0]["layers"]:
        values = np.array([run["layers"][name] for run in runs])
        found[name] = (
            values.sum(0) if name.startswith("spikes") and values.dtype.kind == "i" else values.mean(0)
        ).tolist()
    found["cut"] = {name: sum(run["cut"][name] for run in runs) for name in runs[0]["cut"]}
    found["seconds"] = [run["seconds"] for run in runs]
    found["training_seconds"] = [run["training_seconds"] for run in runs]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "report"))
    parser.add_argument("arms", nargs="*", metavar="ARM", help=f"of {', '.join(ARMS)} (default: all)")
    parser.add_argument("--out", type=Path, required=True, help="networks and results lie here")
    options = parser.parse_args()
    arms = options.arms or list(ARMS)
    if not set(arms) <= set(ARMS):
        parser.error(f"got {', '.join(sorted(set(arms) - set(ARMS)))}, expected of {', '.join(ARMS)}")
    if options.what == "train":
        for arm in arms:
            train(arm, options.out)
        return
    found = {}
    for arm in arms:
        runs = []
        for run in range(RUNS):
            path = options.out / f"{arm}-{run}.json"
            if not path.is_file():
                atomic.write_text(path, json.dumps(measure(arm, run, options.out)) + "\n")
            runs.append(json.loads(path.read_text()))
        found[arm] = summary(runs)
    print(json.dumps({"benchmark": "chip_accuracy", "machine": _machine.describe(), "arms": found}, indent=1))


if __name__ == "__main__":
    main()
