"""The runs of `transformer_peers.py`: finished pieces that are not made again, and rates of which the better one goes on."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _memory_transformer as peers
import _peer_training as training

import backends
from neuro import atomic
from neuro.brain import Brain
from neuro.config import RunConfig, apply_sets
from neuro.errors import UsageError
from neuro.train import loop
from neuro.train.examples import Examples
from neuro.train.streams import Streams


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Kept:
    """Finished pieces of one half of the comparison, one JSON file each.

    Raises:
        UsageError: the folder's pieces were made with other settings.
    """

    def __init__(self, out: Path, half: str, settings: dict[str, Any]) -> None:
        self.out, path = out, out / f"settings-{half}.json"
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else settings
        for key, value in settings.items():
            if found.get(key) != value:
                raise UsageError(
                    f"{path}: got {key} {found.get(key)}, expected {value} as asked for.",
                    "Choose another --out, or the settings of this one.",
                )
        atomic.write_text(path, json.dumps(settings))

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        path = self.out / f"{name}.json"
        if not path.exists():
            say(name)
            began = time.process_time()
            made = {"found": make(), "processor_seconds": round(time.process_time() - began, 1)}
            atomic.write_text(path, json.dumps(made))
        return json.loads(path.read_text(encoding="utf-8"))["found"]


def trained_brain(runs: dict[float, RunConfig], out: Path, trial: int) -> dict[str, Any]:
    """Every rate up to ``trial``, then the best on held-out text to the end -> its folder and what was measured."""

    def go(rate: float, until: int | None) -> dict[str, Any]:
        folder = out / f"{rate:g}"

        def report(record: dict[str, Any]) -> None:
            if record["event"] == "eval":
                say(f"  brain {rate:g}: {record}")
            if record["event"] == "step" and record["step"] == until:
                signal.raise_signal(signal.SIGINT)  # ends the run after its evaluation, with a checkpoint

        log = folder / "log.jsonl"
        done = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        if until is None or not done or done[-1]["step"] < until:
            try:
                loop.train(runs[rate], folder, backend="cpu", report=report)
            except KeyboardInterrupt:
                if until is None:
                    raise
            done = [json.loads(line) for line in log.read_text().splitlines()]
        evals = [record for record in done if record["event"] == "eval"]
        at = {record["step"]: record["valid_nats"] for record in evals}
        return {"folder": str(folder / "model"), "nats": at[until] if until else evals[-1]["valid_nats"]}

    nats = {f"{rate:g}": go(rate, trial)["nats"] for rate in runs}
    best = min(runs, key=lambda rate: nats[f"{rate:g}"])
    return go(best, None) | {"rates": nats, "rate": best}


def without_memories(runs: dict[float, RunConfig], parameters: int) -> dict[float, RunConfig]:
    """The same runs of a brain without memories, its feed-forwards so wide that it has about so many parameters."""

    def wide(run: RunConfig, width: int) -> RunConfig:
        off = [f"brain.{memory}.enabled=false" for memory in ("hippocampus", "procedural")]
        return apply_sets(run, [*off, f"brain.cortex.feedforward_width={width}"])

    def count(width: int) -> int:
        return sum(Brain(wide(some, width).brain, backends.select("cpu")).parameter_counts().values())

    some = next(iter(runs.values()))
    each = (count(303) - count(3)) / 300  # a dense one rounds two thirds of its width
    width = 3 + round((parameters - count(3)) / each)
    return {rate: wide(run, width) for rate, run in runs.items()}


def trained_peer(
    kind: str,
    size: peers.Size,
    windows: Streams | Examples,
    run: RunConfig,
    rates: tuple[float, ...],
    segment: int,
    trial: int,
    held_out: Callable[[peers.MemoryTransformer], float],
    path: Path,
) -> dict[str, Any]:
    model, nats = training.halved(size, windows, run.train, rates, segment, trial, held_out)
    training.save(path, model)
    best = min(nats, key=lambda rate: nats[rate])
    say(f"  {kind}: {nats}")
    return {"rates": nats, "rate": float(best), "nats": held_out(model), "parameters": training.count(model)}


def peer_sizes(brain: Brain, memories: dict[str, tuple[int, int]]) -> dict[str, peers.Size]:
    """Peers of the brain's width, layers and heads and, within what a hidden unit is, of its parameters."""
    c = brain.config.cortex
    parameters = sum(brain.parameter_counts().values())
    return {
        kind: training.fitted(
            peers.Size(brain.config.vocab_size, brain.config.d_model, len(c.mixers), c.heads, 1, memory, compressed),
            parameters,
        )
        for kind, (memory, compressed) in memories.items()
    }
