"""What a training step costs: time and memory of one window, whole, in parts, with spans run again.

Every way is a process of its own (a fork, so POSIX alone) that takes the same steps; rounds of all ways follow each other,
so that what else the machine does falls on all alike. Time is the process's CPU time for a forward and a backward pass;
memory is how far the process grew beyond what it held before its first step.

    python benchmarks/training_step.py small --batch 4 --rounds 2 --steps 1
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import time

import torch
from _machine import describe

import backends
from neuro import presets
from neuro.brain import Brain
from neuro.config import apply_sets
from neuro.state import detach
from neuro.train import gradient
from neuro.train.distributed import Team

WAYS = {
    "whole": [],
    "4 parts": ["train.accumulate=4"],
    "spans again": ["train.checkpoint_activations=true"],
    "4 parts, spans again": ["train.accumulate=4", "train.checkpoint_activations=true"],
}
SEED = 0


def measure(preset: str, batch: int, steps: int, way: str) -> dict[str, object]:
    """Seconds of each step after the first, and MiB."""
    torch.manual_seed(SEED)
    run = apply_sets(presets.PRESETS[preset](), [f"train.batch={batch}", *WAYS[way]])
    brain = Brain(run.brain, backends.select("cpu")).train()
    state, length = brain.init_state(batch), run.train.spans_per_step * run.brain.plasticity_span
    before, seconds = _peak(), []
    for _ in range(steps + 1):
        tokens = torch.randint(0, run.brain.vocab_size, (batch, length))
        brain.zero_grad(set_to_none=True)
        start = time.process_time()
        state = detach(gradient.of_window(brain, tokens, state, run.train, None, Team()).state)
        seconds.append(time.process_time() - start)
    return {"seconds": seconds[1:], "mib": _peak() - before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("preset", nargs="?", default="small")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=1, help="measured in each round, after one that is not")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, list[dict]] = {way: [] for way in WAYS}
    for _ in range(args.rounds):
        for way in WAYS:  # a fresh fork each: what is freed in one does not lie ready in the next
            with multiprocessing.get_context("fork").Pool(1) as pool:
                found[way].append(pool.apply(measure, (args.preset, args.batch, args.steps, way)))
            print(way, found[way][-1], file=sys.stderr, flush=True)
    print(json.dumps({**describe(), "preset": args.preset, "batch": args.batch, "seed": SEED, "rounds": args.rounds}))
    print(
        "| way | CPU s a step: median (least to most) | ratio | MiB above the start (least to most) |\n|---|---|---|---|"
    )
    medians = {
        way: statistics.median(s for record in records for s in record["seconds"]) for way, records in found.items()
    }
    for way, records in found.items():
        seconds = [s for record in records for s in record["seconds"]]
        mib = [record["mib"] for record in records]
        times = f"{medians[way]:.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
        print(f"| {way} | {times} | {medians[way] / medians['whole']:.2f} | {min(mib):.0f} to {max(mib):.0f} |")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
