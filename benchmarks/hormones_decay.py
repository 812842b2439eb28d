"""Do hormones that move how fast memories fade move anything? `endocrine.modulates_decay`, trained and not.

    python benchmarks/hormones_decay.py --data $NEURO_DATA

The shipped model `micro` with both memories' half-lives set to ``--half-life`` tokens, so that decay matters within a stream.
Every weight is frozen but the two decay modulations (ten numbers, from 0), which learn the main loss through the commits of
short streams of WikiText-2 train. Then streams of valid articles: REAL is what was learned, FROZEN has 0 (a token is a
token), SHUFFLED has the next row's hormones for decay alone, HELD their mean, which leaves a constant half-life. Nats per
token; a difference is the arm's less REAL's: positive, it helped. Intervals: paired bootstrap over rows, 95 %. Prints one
JSON object.
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
import prepare_corpus
import torch
from torch import Tensor

import neuro
from neuro import config, corpus
from neuro.brain import Brain
from neuro.config import HORMONES
from neuro.evaluate import statistics
from neuro.regions.base import DecayModulation

ARMS = ("real", "frozen", "shuffled", "held")


def articles(brain: Brain, path: Path, rows: int, tokens: int) -> Tensor:
    """[rows, tokens] beginnings of the first articles that are long enough."""
    found = []
    for text in prepare_corpus.wikitext(path)[0]:
        ids = corpus.encode([text], brain.tokenizer)[:tokens]
        if len(ids) == tokens:
            found.append(ids.astype(np.int64))
        if len(found) == rows:
            break
    return torch.from_numpy(np.stack(found))


def nats(brain: Brain, ids: Tensor) -> Tensor:
    """Of each token [B, T]."""
    state, found = brain.init_state(len(ids)), []
    for span in ids.split(brain.config.plasticity_span, 1):
        out = brain.scan(span, state)
        found.append(out.aux.surprise)
        state = brain.commit(out.state)[0]
    return torch.cat(found, 1)


def learn(brain: Brain, ids: Tensor, options: argparse.Namespace) -> list[DecayModulation]:
    moved = [module for module in brain.modules() if isinstance(module, DecayModulation)]
    for parameter in brain.parameters():
        parameter.requires_grad_(False)
    weights = [module.weight.requires_grad_(True) for module in moved]
    solver = torch.optim.Adam(weights, lr=options.rate)
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(options.seed))
    for step in range(options.steps):
        rows = order[torch.arange(step * options.batch, (step + 1) * options.batch) % len(ids)]
        loss = nats(brain, ids[rows]).mean()
        solver.zero_grad()
        loss.backward()
        solver.step()
        print(f"step {step + 1}: {loss.item():.4f}", file=sys.stderr, flush=True)
    return moved


class Changed:
    """Inside, every decay modulation reads the next row's hormones or, held, their mean over rows and time."""

    def __init__(self, moved: list[DecayModulation], arm: str, means: list[Tensor]) -> None:
        self.moved, self.arm, self.means = moved, arm, means
        self.before = [module.weight.detach().clone() for module in moved]
        self.hooks: list[Any] = []

    def __enter__(self) -> None:
        for number, module in enumerate(self.moved):
            if self.arm == "frozen":
                module.weight.data.zero_()

            def hook(_: Any, given: tuple[Tensor, Tensor], number: int = number) -> tuple[Tensor, Tensor]:
                modulators, tokens = given
                if self.arm == "real" and number == 0:
                    self.means.append(modulators.mean(0))
                if self.arm == "shuffled":
                    modulators = modulators.roll(1, 0)
                if self.arm == "held":
                    modulators = torch.stack(self.means).mean(0).expand_as(modulators)
                return modulators, tokens

            self.hooks.append(module.register_forward_pre_hook(hook))

    def __exit__(self, *error: object) -> None:
        for module, weight, hook in zip(self.moved, self.before, self.hooks, strict=True):
            module.weight.data.copy_(weight)
            hook.remove()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    sets = ["endocrine.modulates_decay=true"]
    sets += [f"{memory}.half_life_tokens={options.half_life}" for memory in ("hippocampus", "procedural")]
    untouched = neuro.load(options.model)
    brain = Brain(config.apply_sets(untouched.config, sets))
    missing = brain.load_state_dict(untouched.state_dict(), strict=False).missing_keys
    assert all("decay_modulation" in name for name in missing), missing
    brain.tokenizer = untouched.tokenizer
    brain.eval()
    folder = options.data / "wikitext-2"
    moved = learn(
        brain, articles(brain, folder / "train.txt.gz", options.batch * options.steps, options.window), options
    )
    ids = articles(brain, folder / "valid.txt.gz", options.rows, options.tokens)
    each: dict[str, np.ndarray] = {}
    means: list[Tensor] = []
    with torch.no_grad():
        for arm in ARMS:
            with Changed(moved, arm, means):
                each[arm] = nats(brain, ids).double().numpy().sum(1)
    count = ids.shape[1]
    table = [np.array([[each[arm][row] for arm in ARMS]]) / count for row in range(len(ids))]
    draws, whole = statistics.resampled_sums(table) / len(ids), np.concatenate(table).mean(0)
    gaps = {
        arm: [float(whole[i] - whole[0]), *statistics.interval(draws[i] - draws[0])] for i, arm in enumerate(ARMS) if i
    }
    names = [name for name, module in brain.named_modules() if isinstance(module, DecayModulation)]
    learned = {
        name: dict(zip(HORMONES, [round(x, 3) for x in module.weight[0].tolist()], strict=True))
        for name, module in zip(names, moved, strict=True)
    }
    return {
        "nats": float(whole[0]),
        "less real": gaps,
        "weights": learned,
        "hormones": torch.stack(means).mean(0).tolist(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with wikitext-2/")
    parser.add_argument("--model", default="micro")
    parser.add_argument("--half-life", type=float, default=128.0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--window", type=int, default=192, help="tokens of a stream that is learned from")
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--tokens", type=int, default=384, help="of each valid article")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.process_time()
    found = measure(options) | {"processor_seconds": round(time.process_time() - started, 1)}
    settings = {name: value for name, value in vars(options).items() if name != "data"}
    print(json.dumps({"benchmark": "hormones_decay", "machine": _machine.describe(), "settings": settings, **found}))


if __name__ == "__main__":
    main()
