"""Trained ReLU networks as integrate-and-fire neurons: accuracy against steps, spikes, synaptic operations, joules.

    python benchmarks/ann_to_snn.py mlp --out DIR
    python benchmarks/ann_to_snn.py cnn --out DIR --epochs 4
    python benchmarks/ann_to_snn.py nmnist --out DIR

mlp and cnn learn MNIST (60,000 images; no image of the test set is looked at before the end) and are converted with 1,000
training images, without labels. Every image is a constant current: its products with the first layer (``macs``) are computed
once a sample and are not in the joules of the spikes. nmnist takes the graded networks that `benchmarks/spiking_tasks.py nmnist
--out DIR` left in DIR, fold by fold, and hands the converted ones the events themselves, six bins, shown once or more often.
Gaps are paired by sample, with a 95 % bootstrap interval over samples; joules are median, 5 and 95 % points a sample.
Prints one JSON object; the table goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import _machine
import numpy as np
import torch

import backends
from neuro import presets_tasks
from neuro.convert import convert, held
from neuro.evaluate import statistics
from neuro.sensors import mnist
from neuro.spiking_classifier import ClassifierConfig, LayerConfig, SpikingClassifier
from neuro.train import classify
from neuro.train.classify import Draw, Plan, Scores
from sims.energy import inference

NETWORKS: dict[str, tuple[tuple[int, ...], tuple[LayerConfig, ...]]] = {
    "mlp": ((784,), (LayerConfig(512), LayerConfig(256))),
    "cnn": ((1, 28, 28), (LayerConfig(16, (5, 5), 2), LayerConfig(48, (3, 3), 2), LayerConfig(128))),
}
STEPS = (1, 2, 4, 8, 16, 32)
CALIBRATION = 1000
CPU = backends.select("cpu")


def row(ann: Scores, snn: Scores, analog: bool) -> dict[str, Any]:
    """One number of steps. ``analog``: the input is a current, whose products are computed once a sample."""
    n, counts = len(ann.correct), snn.counts
    gap = ann.correct.astype(float) - snn.correct
    sums = statistics.resampled_sums(list(np.stack([gap, np.ones(n)], 1)[:, None]))
    operations, inputs = (0, 0) if analog else (counts.synaptic_ops[0], counts.spikes[0])
    operations += sum(counts.synaptic_ops[1:])
    energy = inference.spiking(operations, counts.updates, sum(counts.spikes[1:]), inputs)
    return {
        "accuracy": snn.accuracy,
        "points_lost": 100 * gap.mean(),
        "interval": [100 * value for value in statistics.interval(sums[0] / sums[1])],
        "spikes": sum(counts.spikes[1:]) / n,
        "synaptic_ops": operations / n,
        "macs": counts.synapses[0] if analog else 0,
        "joules": [value / n for value in (energy.median, energy.lo, energy.hi)],
    }


def joined(scores: list[Scores]) -> Scores:
    return Scores(np.concatenate([s.correct for s in scores]), classify.add([s.counts for s in scores]))


def twin(scores: Scores) -> dict[str, Any]:
    macs = sum(scores.counts.synapses)
    energy = inference.dense(macs)
    return {"accuracy": scores.accuracy, "macs": macs, "joules": [energy.median, energy.lo, energy.hi]}


def on_images(kind: str, out: Path, epochs: int, seed: int) -> dict[str, Any]:
    parts = [mnist.load(part) for part in mnist.PARTS]
    images = np.concatenate([part[0] for part in parts])
    labels = np.concatenate([part[1] for part in parts]).astype(np.int64)
    shape, layers = NETWORKS[kind]

    def draw(samples: np.ndarray, generator: np.random.Generator | None) -> torch.Tensor:
        return torch.from_numpy(images[samples]).float().div_(255).reshape(1, len(samples), *shape)

    def over(steps: int) -> Draw:
        return lambda samples, generator: held(draw(samples, generator), steps)

    started = time.process_time()
    config = ClassifierConfig(shape, layers, neuron="graded", decay=0.0)
    train, test = np.arange(60_000), np.arange(60_000, 70_000)
    plan = Plan(epochs=epochs, batch=100, seed=seed)
    ann = classify.fit(config, draw, labels, train, plan, CPU, out / f"{kind}-{seed}.safetensors", say)
    trained = time.process_time() - started
    exact = classify.evaluate(ann, draw, labels, test, 500)
    calibration = draw(np.random.default_rng(seed).choice(train, CALIBRATION, replace=False), None)
    found: dict[str, Any] = {"seed": seed, "epochs": epochs, "training_processor_seconds": round(trained, 1)}
    found |= {"ann": twin(exact), "steps": {}}
    for steps in STEPS:
        snn = convert(ann, calibration, steps)
        found["steps"][steps] = row(exact, classify.evaluate(snn, over(steps), labels, test, 500), True)
        say({"steps": steps, **found["steps"][steps]})
    return found


def on_events(out: Path) -> dict[str, Any]:
    graded, events = (presets_tasks.load("nmnist", neuron) for neuron in ("graded", "spiking"))

    def over(times: int) -> Draw:
        return lambda samples, generator: events.draw(samples, generator).repeat(times, 1, 1, 1, 1)

    def converted(ann: SpikingClassifier, train: np.ndarray, times: int) -> SpikingClassifier:
        return convert(ann, graded.draw(train, None), times * presets_tasks.NMNIST_BINS)

    exact: list[Scores] = []
    spiking: dict[int, list[Scores]] = {1: [], 2: [], 4: []}
    for fold in graded.folds:
        path = out / f"nmnist-graded-{fold.name}.safetensors"
        rows = graded.network, graded.draw, graded.labels, fold.train, graded.plan, CPU, path
        ann = classify.fit(*rows)  # trained before: read from its checkpoint
        exact.append(classify.evaluate(ann, graded.draw, graded.labels, fold.test))
        for times, scores in spiking.items():
            snn = converted(ann, fold.train, times)
            scores.append(classify.evaluate(snn, over(times), graded.labels, fold.test))
    whole = joined(exact)
    steps = {times * presets_tasks.NMNIST_BINS: row(whole, joined(s), False) for times, s in spiking.items()}
    return {"ann": twin(whole), "steps": steps}


def say(record: dict[str, Any]) -> None:
    print(json.dumps(record), file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=(*NETWORKS, "nmnist"))
    parser.add_argument("--out", type=Path, required=True, help="checkpoints lie here")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.network == "nmnist":
        found = on_events(options.out)
    else:
        found = on_images(options.network, options.out, options.epochs, options.seed)
    report = {"benchmark": "ann_to_snn", "network": options.network, "machine": _machine.describe(), **found}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
