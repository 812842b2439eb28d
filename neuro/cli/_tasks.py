"""Networks that classify or answer recorded spikes, behind ``neuro train TASK`` and ``neuro eval DIR``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuro.cli import _chips
from neuro.errors import UsageError, nearest

if TYPE_CHECKING:
    from torch import Tensor

    from backends import Backend
    from neuro.presets_tasks import Fold, Task

TASKS = ("nmnist", "mnist", "spoken-digits", "oxford")
CLASSIFIER, MAP = "classifier.safetensors", "spike_map.safetensors"


def trained_here(folder: Path) -> bool:
    """Whether `train` wrote this folder."""
    return (folder / CLASSIFIER).is_file() or (folder / MAP).is_file()


def train(args: argparse.Namespace) -> int:
    """Learn from all folds but one (or, of oxford, the one pair of trains), write the network and ``result.json``."""
    import backends
    from neuro import atomic
    from neuro import config as configs

    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size > 1:
        raise UsageError(
            f"train {args.config}: got {size} processes, expected one: a task of recorded spikes is not shared.",
            "Start it without torchrun.",
        )
    out, backend = Path(args.out or "run"), backends.select(args.backend)

    def say(record: dict[str, Any]) -> None:
        if not args.quiet and sys.stderr.isatty():
            text = "  ".join(f"{key} {value:.4g}" for key, value in record.items())
            sys.stderr.write(f"\r{text}\x1b[K")

    if args.config == "oxford":
        from neuro.train import spike_regression

        config = configs.apply_sets(spike_regression.RegressionConfig(seed=args.seed), args.set)
        x, target = _trains(backend)
        spike_regression.save(out / MAP, spike_regression.fit(x, target, config, backend, say), config)
    else:
        from neuro import presets_tasks
        from neuro.train import classify

        settings = _settings(args)
        task = presets_tasks.load(args.config, settings["neuron"])
        fold = _fold(task, settings["fold"])
        plan = configs.apply_sets(dataclasses.replace(task.plan, seed=args.seed), settings["plan"])
        network = dataclasses.replace(task.network, **settings["network"])
        rows = network, task.draw, task.labels, fold.train, plan, backend
        model = classify.fit(*rows, out / "checkpoint.safetensors", say)
        about = {"task": args.config, "neuron": settings["neuron"], "fold": fold.name, "plan": configs.to_dict(plan)}
        classify.save(out / CLASSIFIER, model, about)
    if not args.quiet and sys.stderr.isatty():
        sys.stderr.write("\n")
    record = measure(out, backend)
    atomic.write_text(out / "result.json", json.dumps(record, indent=1) + "\n")
    print(json.dumps(record) if args.json else "\n".join(table(record)))
    return 0


def evaluate(args: argparse.Namespace) -> int:
    """Measure what `train` wrote, again."""
    import backends
    from neuro import atomic

    given = [f"--{name}" for name in ("wikitext", "task", "articles", "length", "gap", "samples", "rows")]
    given = [name for name in given if getattr(args, name[2:])]
    given += [f"--suite {args.suite}"] * (args.suite != "perplexity") + ["a text"] * bool(args.text)
    if given:
        raise UsageError(f"neuro eval: got {given[0]}, expected none for a network of spikes.", "Leave it out.")
    record = measure(Path(args.model), backends.select(args.backend), args.chip)
    if args.out:
        atomic.write_text(Path(args.out) / "eval.json", json.dumps(record, indent=1) + "\n")
    print(json.dumps(record) if args.json else "\n".join(table(record)))
    return 0


def measure(folder: Path, backend: Backend, chip: str | None = None) -> dict[str, Any]:
    """What the network in ``folder`` does on the samples it did not learn from; of oxford, on the pair it learned.

    With a ``chip`` also what that chip's integers keep of it: a classifier's answers and spikes.
    """
    if not (folder / MAP).is_file():
        return _measure_classifier(folder, backend, chip)
    if chip:
        got = "neuro eval: got --chip for a map of spike trains, expected a classifier."
        raise UsageError(got, "Leave it out.")
    return _measure_map(folder, backend)


def table(record: dict[str, Any]) -> list[str]:
    """The record in words."""
    if record["task"] == "oxford":
        head = [
            f"oxford: van Rossum distance {record['distance']:.0f}; untrained {record['untrained']:.0f}, "
            f"silent {record['silent']:.0f}",
            f"spikes   {record['spikes']} of {record['target_spikes']} wanted, {record['hidden_spikes']} hidden",
        ]
    else:
        n = record["samples"]
        head = [f"{record['task']}, {record['neuron']}, fold {record['fold']}: {record['accuracy']:.2%} of {n} right"]
    if record["synaptic_ops"] is not None:
        head.append(f"synaptic operations   {record['synaptic_ops']:.0f} a sample")
    if "on_chip" in record:
        head += _chips.table(record["on_chip"])
    joules = record["joules"]
    return [
        *head,
        f"as dense layers       {record['macs']:.0f} multiply-accumulates a sample",
        f"modelled energy       {joules['median']:.3g} J a sample ({joules['lo']:.3g} to {joules['hi']:.3g}) on {joules['on']}",
    ]


def _measure_classifier(folder: Path, backend: Backend, chip: str | None) -> dict[str, Any]:
    from neuro import presets_tasks
    from neuro.train import classify

    model, about = classify.load(folder / CLASSIFIER, backend)
    task = presets_tasks.load(about["task"], about["neuron"])
    fold = _fold(task, about["fold"])
    scores = classify.evaluate(model, task.draw, task.labels, fold.test)
    n, counts = len(fold.test), scores.counts
    macs, spiking = sum(counts.synapses) * counts.steps, about["neuron"] == "spiking"
    record = {"schema": "neuro.task/1", **about, "samples": n, "accuracy": scores.accuracy, "macs": macs / n}
    record["spikes"] = [spikes / n for spikes in counts.spikes] if spiking else None
    record["synaptic_ops"] = sum(counts.synaptic_ops) / n if spiking else None
    if chip:
        record["on_chip"] = _chips.record(_chips.measure(model, task.draw, task.labels, fold.test, fold.train, chip))
    if spiking:
        total = sum(counts.synaptic_ops), counts.updates, sum(counts.spikes[1:]), counts.spikes[0]
        return record | {"joules": _spiking_joules(total, n)}
    return record | {"joules": _dense_joules(macs, n)}


def _measure_map(folder: Path, backend: Backend) -> dict[str, Any]:
    import torch

    from neuro import config as configs
    from neuro.train import spike_regression

    model, config = spike_regression.load(folder / MAP, backend)
    x, target = _trains(backend)

    def distance(spikes: Tensor) -> float:
        args = config.tau_distance_ms, config.dt_ms, backend.ops
        return float(spike_regression.van_rossum(spikes, target, *args))

    with torch.no_grad():
        out, hidden = model(x)
        untrained = spike_regression.fit(x, target, dataclasses.replace(config, steps=0), backend)
        first = untrained(x)[0]
    fired = [int(part.sum()) for part in (x, hidden, out)]
    operations = fired[0] * hidden.shape[2] + fired[1] * out.shape[2]
    updates = (hidden.shape[2] + out.shape[2]) * x.shape[0]
    synapses = x.shape[2] * hidden.shape[2] + hidden.shape[2] * out.shape[2]
    return {
        "schema": "neuro.task/1",
        "task": "oxford",
        "config": configs.to_dict(config),
        "distance": distance(out),
        "untrained": distance(first),
        "silent": distance(torch.zeros_like(target)),
        "spikes": fired[2],
        "target_spikes": int(target.sum()),
        "hidden_spikes": fired[1],
        "samples": 1,
        "synaptic_ops": operations,
        "macs": synapses * x.shape[0],
        "joules": _spiking_joules((operations, updates, fired[1] + fired[2], fired[0]), 1),
    }


def _spiking_joules(counts: tuple[int, int, int, int], samples: int) -> dict[str, Any]:
    from sims.energy import inference

    total = inference.spiking(*counts)
    return {"on": inference.CHIP} | {key: value / samples for key, value in dataclasses.asdict(total).items()}


def _dense_joules(macs: int, samples: int) -> dict[str, Any]:
    from sims.energy import inference

    total = inference.dense(macs)
    return {"on": inference.CPU} | {key: value / samples for key, value in dataclasses.asdict(total).items()}


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """``--set neuron=graded``, ``--set fold=2``, ``--set reset=hard``; every other key is of the plan."""
    from neuro.train.classify import Plan

    plan = [field.name for field in dataclasses.fields(Plan) if field.name != "seed"]
    found: dict[str, Any] = {"neuron": "spiking", "fold": None, "network": {}, "plan": []}
    for item in args.set:
        key, equals, value = item.partition("=")
        if equals and key == "seed":
            where = f"train {args.config}: got --set {item}"
            raise UsageError(f"{where}, expected --seed.", f"Write --seed {value}.")
        if equals and key in ("neuron", "fold"):
            found[key] = value
        elif equals and key == "reset":
            if value not in ("soft", "hard"):
                got = f"train {args.config}: got --set {item}, expected soft or hard."
                raise UsageError(got, nearest(value, ("soft", "hard")))
            found["network"] = {"reset": value}
        elif equals and key not in plan:
            known = ["fold", "neuron", "reset", *plan]
            raise UsageError(f"train {args.config}: got --set {key}, which is no key of it.", nearest(key, known))
        else:
            found["plan"].append(item)
    if found["network"] and found["neuron"] != "spiking":
        got = f"train {args.config}: got --set reset for graded neurons, which have none."
        raise UsageError(got, "Leave it out.")
    return found


def _fold(task: Task, name: str | None) -> Fold:
    names = [fold.name for fold in task.folds]
    if name is not None and name not in names:
        raise UsageError(f"fold: got '{name}', expected one of {', '.join(names)}.", nearest(name, names))
    return task.folds[0 if name is None else names.index(name)]


def _trains(backend: Backend) -> tuple[Tensor, Tensor]:
    import torch

    from neuro.sensors import oxford

    x, target = (torch.from_numpy(train).float().unsqueeze(1).to(backend.device) for train in oxford.load())
    return x, target
