"""The whole training step on a CPU, on native and on portable operators (those that DirectML runs): the price of no scatter.

    python benchmarks/portable_step.py
    python benchmarks/portable_step.py --preset small --batch 4 --rounds 20

A step is forward, commit, backward, clipping and the optimizer over one span of every stream, in float32 without mixed
precision, on random tokens; the native arm learns with torch's AdamW, the portable one with its own. The arms start from
the same weights and take turns, in an order that is drawn each round; the time is this process's on the CPU. Prints one JSON
object: the median of each arm in ms, by part, and the ratio of each round's two steps: its median and quartiles.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import random
import statistics
import time

import _machine
import torch
from torch import Tensor

import backends
from backends import Backend, native, portable
from neuro import presets
from neuro.brain import Brain
from neuro.config import RunConfig
from neuro.state import BrainState
from neuro.train import objective, optimizer
from neuro.train.loop import clip_gradient

PARTS = ("forward and commit", "backward", "clipping", "optimizer")


class Arm:
    """A brain that learns on one table of operators."""

    def __init__(self, run: RunConfig, backend: Backend, seed: int) -> None:
        torch.manual_seed(seed)
        self.train, self.brain = run.train, Brain(run.brain, backend)
        self.adam = optimizer.make(self.brain, backend, run.train.learning_rate, run.train.weight_decay)
        self.fresh = torch.zeros(run.train.batch, dtype=torch.bool)
        self.state: BrainState = self.brain.init_state(run.train.batch)

    def step(self, tokens: Tensor) -> list[float]:
        """Learn from one window -> seconds of each of `PARTS`."""
        clock = [time.process_time()]
        before = objective.fresh_rows(self.state, self.brain.init_state(len(tokens)), self.fresh)
        loss = objective.window_loss(self.brain, tokens, before, self.train)
        self.adam.zero_grad(set_to_none=True)
        clock.append(time.process_time())
        loss.total.backward()
        clock.append(time.process_time())
        clip_gradient(self.brain.parameters(), self.train.clip_norm)
        clock.append(time.process_time())
        self.adam.step()
        clock.append(time.process_time())
        self.state = loss.state
        return [after - start for start, after in itertools.pairwise(clock)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="small", choices=("small", "tiny"))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=12, help="after one that is not counted")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    run = getattr(presets, args.preset)()
    train = dataclasses.replace(run.train, mixed_precision=False, batch=args.batch, spans_per_step=1)
    run, cpu = dataclasses.replace(run, train=train), dataclasses.replace(backends.select("cpu"), autocast=None)
    own = dataclasses.replace(cpu, ops=portable.OPS, scatter_free=True, torch_optimizers=False)
    arms = {
        "native": Arm(run, dataclasses.replace(cpu, ops=native.OPS), args.seed),
        "portable": Arm(run, own, args.seed),
    }
    shuffle = random.Random(args.seed)
    spent: dict[str, list[list[float]]] = {name: [] for name in arms}
    for number in range(args.rounds + 1):
        tokens = torch.randint(0, run.brain.vocab_size, (args.batch, run.brain.plasticity_span))
        for name in shuffle.sample(list(arms), len(arms)):
            seconds = arms[name].step(tokens)
            if number:
                spent[name].append(seconds)
    ratios = [sum(b) / sum(a) for a, b in zip(spent["native"], spent["portable"], strict=True)]
    record = {
        "machine": _machine.describe(),
        "preset": args.preset,
        "batch": args.batch,
        "tokens": args.batch * run.brain.plasticity_span,
        "rounds": args.rounds,
        "seed": args.seed,
        "process_ms": {
            name: {"step": round(1e3 * statistics.median(map(sum, rows)), 1)}
            | {part: round(1e3 * statistics.median(row[i] for row in rows), 1) for i, part in enumerate(PARTS)}
            for name, rows in spent.items()
        },
        "ratio": {
            "median": round(statistics.median(ratios), 3),
            "quartiles": [round(q, 3) for q in statistics.quantiles(ratios, n=4)[::2]],
        },
    }
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
