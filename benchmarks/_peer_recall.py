"""The recall half of `transformer_peers.py`: the mixture of the preset `mqar`, and the published test points."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import _memory_transformer as peers
import _peer_runs as runs_of
import _peer_training as training
import numpy as np
import torch

import neuro
from neuro import config, tasks
from neuro.config import RunConfig
from neuro.errors import CheckError
from neuro.evaluate import recall
from neuro.train.examples import Examples

RATES = (1e-2, 3e-3)
# What an MQAR row is read in, and the memory that holds the longest row of the test.
MQAR = {"xl": (256, (256, 0), (1024, 0)), "compressive": (64, (64, 64), (64, 256))}


def on_mqar(options: argparse.Namespace, kept: runs_of.Kept) -> dict[str, Any]:
    """The preset's mixture, and the published test points."""
    trial = math.ceil(options.mqar_steps * options.trial)
    sets = [
        f"train.steps={options.mqar_steps}",
        f"train.eval_every={trial}",
        "train.eval_tokens=4096",
        f"train.seed={options.seed}",
    ]
    runs = {rate: config.load("mqar", [*sets, f"train.learning_rate={rate}"]) for rate in RATES}
    run = runs[RATES[0]]
    t, source = run.train, run.data.train

    def learned() -> dict[str, Any]:
        if options.mqar_brain is None:
            return runs_of.trained_brain(runs, options.out / "mqar-brain", trial)
        return {"folder": str(options.mqar_brain / "model"), "rate": rate_of(options.mqar_brain, run), "rates": {}}

    found = {"brain": kept.once("mqar-brain", learned)}
    brain = neuro.load(found["brain"]["folder"], "cpu", sets=["brain.hippocampus.slots=512"]).eval()
    results = {
        "brain": kept.once(
            "mqar-test-brain",
            lambda: [r.accuracy for r in recall.evaluate(brain, rows=options.rows, chosen=("real",))],
        )
    }
    found["brain"] |= {
        "parameters": sum(brain.parameter_counts().values()),
        "elements": recall.state_elements(brain)["state"],
    }
    memories = {kind: trained for kind, (_, trained, _) in MQAR.items()}
    sizes = runs_of.peer_sizes(brain, memories)
    for kind, size in sizes.items():
        segment, _, longest = MQAR[kind]
        path = options.out / f"mqar-{kind}.safetensors"

        def held_out(model: peers.MemoryTransformer, segment: int = segment) -> float:
            return training.held_out_answers(model, source, t.eval_tokens, t.seed, segment)

        def learn(kind=kind, size=size, segment=segment, path=path, held_out=held_out) -> dict[str, Any]:
            examples = Examples(source, brain.config.vocab_size, t.batch, t.seed)
            return runs_of.trained_peer(kind, size, examples, run, RATES, segment, trial, held_out, path)

        found[kind] = kept.once(f"mqar-{kind}", learn)
        model = training.grown(training.load(path), *longest)
        found[kind] |= {"memory": longest, "elements": training.elements(model.size)}
        results[kind] = kept.once(
            f"mqar-test-{kind}", lambda model=model, segment=segment: mqar_points(model, segment, options.rows)
        )
    return {"models": found, "points": list(recall.MQAR_BASED), "accuracy": results, "rows": options.rows}


def rate_of(folder: Path, run: RunConfig) -> float:
    """The learning rate of a finished run of the preset.

    Raises:
        CheckError: its steps, batch or seed are not this comparison's.
    """
    other = config.load(folder / "config.toml")
    for name in ("steps", "batch", "seed"):
        got, expected = getattr(other.train, name), getattr(run.train, name)
        if got != expected:
            raise CheckError(
                f"{folder}: got train.{name} {got}, expected {expected} as the peers have.",
                "Give a run of the same steps, batch and seed, or leave --mqar-brain out.",
            )
    return other.train.learning_rate


def mqar_points(model: peers.MemoryTransformer, segment: int, rows: int) -> list[float]:
    """Accuracy at each published point, on the rows that `neuro.evaluate.recall` draws."""
    found = []
    for source in recall.MQAR_BASED:
        (task,) = tasks.parse(source, model.size.vocab)
        random = np.random.default_rng([0, *tasks.spelled(task).encode()])
        right = []
        for part in np.array_split(np.arange(rows), min(rows // 2, -(-rows // recall.ROWS_AT_ONCE))):
            right.append(training.answers(model, task.rows(random, len(part), model.size.vocab), segment).right)
        found.append(float(torch.cat(right).double().mean()))
    return found
