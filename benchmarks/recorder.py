"""What recording costs: processor time and bytes per step, and memory; and what it adds to a brain that reads a text.

    python benchmarks/recorder.py

Random spikes of a few rates, and spikes with float32 membranes, are recorded in blocks of 100 steps, and read back equal
before anything is timed; the floor is numpy's packbits of the same blocks alone (a copy, for membranes). A shipped model
then reads the same tokens with and without a recorder, in rounds of both. Times are of this process's processor, so that
other processes count little; the median of the rounds, and their extremes. The largest memory is what Python's allocators
gave out while recording. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _machine
import numpy as np
import torch

import neuro
from neuro import recorder
from neuro.brain import Brain
from neuro.recorder import Recorder, Recording
from neuro.session import Session

BLOCK = 100


def processor_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def spread(values: list[float], digits: int = 2) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), digits),
        "least": round(min(values), digits),
        "most": round(max(values), digits),
    }


def record(folder: Path, blocks: list[dict[str, np.ndarray]]) -> None:
    kinds = {name: "spikes" if name == "spikes" else "values" for name in blocks[0]}
    with Recorder(folder, kinds) as writer:
        for block in blocks:
            writer.add(block)


def floor(blocks: list[dict[str, np.ndarray]]) -> None:
    for block in blocks:
        for name, array in block.items():
            np.packbits(array.reshape(len(array), -1), axis=1) if name == "spikes" else array.copy()


def streams(neurons: int, rate: float, membranes: bool, steps: int, rounds: int, seed: int) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    blocks = []
    for _ in range(steps // BLOCK):
        block = {"spikes": (draw.random((BLOCK, 1, neurons)) < rate).astype(np.uint8)}
        if membranes:
            block["membrane"] = draw.standard_normal((BLOCK, 1, neurons)).astype(np.float32)
        blocks.append(block)
    writing, reading, least = [], [], []
    with tempfile.TemporaryDirectory() as place:
        tracemalloc.start()
        record(Path(place) / "checked", blocks)
        memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        checked = Recording(Path(place) / "checked")
        for name in blocks[0]:
            assert np.array_equal(checked.read(name), np.concatenate([block[name] for block in blocks]))
        size = sum(path.stat().st_size for path in checked.folder.iterdir())
        for number in range(rounds):
            folder = Path(place) / str(number)
            writing.append(1e6 * processor_seconds(lambda folder=folder: record(folder, blocks)) / steps)
            least.append(1e6 * processor_seconds(lambda: floor(blocks)) / steps)
            reading.append(1e6 * processor_seconds(lambda folder=folder: Recording(folder).read("spikes")) / steps)
    return {
        "neurons": neurons,
        "rate": rate,
        "membranes": membranes,
        "steps": steps,
        "bytes_per_step": round(size / steps, 1),
        "write_us_per_step": spread(writing),
        "floor_us_per_step": spread(least),
        "read_spikes_us_per_step": spread(reading),
        "largest_memory_mb": round(memory / 1e6, 1),
    }


def brains(model: str, tokens: int, rounds: int, seed: int) -> dict[str, Any]:
    """The same tokens, read at once and one at a time."""
    plain = neuro.load(model, "cpu")
    watched = neuro.load(model, "cpu", record_raster=True, record_membrane=True)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, plain.config.vocab_size, (1, tokens), generator=generator)
    found: dict[str, Any] = {"model": model, "tokens": tokens}
    for how, length in (("at_once", tokens), ("one_at_a_time", 1)):

        def read(brain: Brain, folder: Path | None, length: int = length) -> torch.Tensor:
            observers = [recorder.for_brain(folder, brain)] if folder else []
            session = Session(brain, observers=observers)
            for part in ids.split(length, 1):
                logits = session.feed(part)
            session.commit()
            for observer in observers:
                observer.flush()
            return logits

        times: dict[str, list[float]] = {"plain": [], "recorded": []}
        with tempfile.TemporaryDirectory() as place:
            assert torch.equal(read(plain, None), read(watched, Path(place) / "checked"))
            for number in range(rounds):
                folder = Path(place) / str(number)
                times["plain"].append(processor_seconds(lambda: read(plain, None)))
                times["recorded"].append(processor_seconds(lambda folder=folder: read(watched, folder)))
        ratios = [b / a for a, b in zip(times["plain"], times["recorded"], strict=True)]
        found[how] = {
            "plain_ms_per_token": spread([1e3 * x / tokens for x in times["plain"]], 3),
            "recorded_over_plain": spread(ratios, 3),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--model", default="small")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases = [(4000, 0.0005, False), (4000, 0.005, False), (4000, 0.08, False), (3072, 0.08, True)]
    record = {
        "schema": "neuro.benchmark.recorder/1",
        "machine": _machine.describe(),
        "seed": options.seed,
        "rounds": options.rounds,
        "streams": [streams(*case, options.steps, options.rounds, options.seed) for case in cases],
        "brain": brains(options.model, options.tokens, options.rounds, options.seed),
    }
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
