"""What does it help that neighbours in time come along? One strength of contiguity after another, on the same weights.

    python benchmarks/contiguity.py small --data $NEURO_DATA --strengths 0 0.05 0.1 0.3
    python benchmarks/contiguity.py small --data $NEURO_DATA --strengths 0.1 --segments

Places of WikiText-2 valid as in `neuro eval --suite repeat`: warm-up, passage, gap, the passage again. Nats per token of what
is read once (text), and of the second showing with all memories, the episodic alone, none, and the memories of the next sample.
Differences from the first strength are paired; brackets: 95 % bootstrap over samples and blocks of 100 tokens. One set of
weights. --segments: each strength also within events alone, as surprise divides them. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _machine
import numpy as np
import torch
from sleep import blocked, read

import neuro
from neuro import text
from neuro.brain import Brain
from neuro.evaluate import arms, repeat
from neuro.state import select_rows


@torch.no_grad()
def shown_again(options: argparse.Namespace, raw: str, brain: Brain) -> dict[str, np.ndarray]:
    """Nats [samples, T] of each arm."""
    protocol = repeat.Protocol(options.length, options.gap, options.samples, options.seed, options.length)
    places = repeat.samples(brain, raw, True, protocol)
    once = torch.tensor([[brain.tokenizer.bos_id, *p.warm_up[:-1], *p.passage, *p.gap] for p in places])
    passage = torch.tensor([place.passage for place in places])
    nats, state = read(brain, brain.init_state(len(places)), once, arms.ARMS["real"])
    found = {"text": nats[:, 1:]}
    for arm in ("real", "episodic", "off"):
        found[arm] = read(brain, arms.keep_only(state, arms.ARMS[arm]), passage, arms.ARMS[arm])[0]
    others = arms.with_memories_of(state, select_rows(state, torch.roll(torch.arange(len(places)), 1)))
    return found | {"shuffled": read(brain, others, passage, arms.ARMS["real"])[0]}


def parser_of(doc: str | None, strengths: list[float], slots: int, length: int, gap: int) -> argparse.ArgumentParser:
    """Of a benchmark that compares strengths, with its own defaults."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True, help="folder with wikitext-2/")
    parser.add_argument("--strengths", type=float, nargs="+", default=strengths)
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--slots", type=int, default=slots)
    parser.add_argument("--length", type=int, default=length, help="tokens of the passage, and of the warm-up")
    parser.add_argument("--gap", type=int, default=gap)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def compared(benchmark: str, options: argparse.Namespace, made: dict[str, Callable[[], Brain]]) -> dict[str, Any]:
    """The record of a benchmark of the brains that are ``made``; differences are from the first."""
    torch.set_num_threads(1)
    raw = text.read_text(options.data / "wikitext-2" / "valid.txt.gz")
    found = {name: shown_again(options, raw, make()) for name, make in made.items()}
    start = next(iter(made))
    return {
        "benchmark": benchmark,
        "machine": _machine.describe(),
        **{name: value for name, value in vars(options).items() if name not in ("data", "strengths")},
        "nats": {s: {arm: round(float(t.mean()), 4) for arm, t in by.items()} for s, by in found.items()},
        f"less_{start}": {
            s: {arm: blocked(list(t - found[start][arm])) for arm, t in by.items()}
            for s, by in found.items()
            if s != start
        },
    }


def main() -> None:
    parser = parser_of(__doc__, [0.0, 0.05, 0.1, 0.3], slots=4096, length=1000, gap=2000)
    parser.add_argument("--segments", action="store_true", help="each strength above 0 within events as well")
    options = parser.parse_args()

    def made(strength: float, segments: bool) -> Brain:
        sets = [f"hippocampus.slots={options.slots}", f"hippocampus.contiguity={strength}"]
        sets += ["hippocampus.segments=true"] if segments else []
        return neuro.load(options.model, sets=sets).eval()

    brains: dict[str, Callable[[], Brain]] = {}
    for strength in options.strengths:
        brains[str(strength)] = functools.partial(made, strength, False)
        if options.segments and strength:
            brains[f"{strength} within events"] = functools.partial(made, strength, True)
    print(json.dumps(compared("contiguity", options, brains), indent=1))


if __name__ == "__main__":
    main()
