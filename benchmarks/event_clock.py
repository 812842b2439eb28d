"""What does it do to recall that keys hold how long ago the last event began? One strength after another, on the same weights.

    python benchmarks/event_clock.py small --data $NEURO_DATA --strengths 0 0.3

A clock is put into a trained model: an orthogonal matrix, not trained, of the given strength takes the rates of its time cells
to the key. Places and arms are those of `contiguity.py`: warm-up, passage, gap, the passage again; nats per token of what is
read once (text) and of the second showing with all memories, the episodic alone, none, and the memories of the next sample.
Differences from the first strength are paired; brackets: 95 % bootstrap over samples and blocks of 100 tokens. One set of
weights. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, cast

import _machine
import numpy as np
import torch
from sleep import blocked, read
from torch import nn

import neuro
from neuro import text
from neuro.brain import Brain
from neuro.config import apply_sets
from neuro.evaluate import arms, repeat
from neuro.regions.hippocampus import Hippocampus
from neuro.state import select_rows


def clocked(options: argparse.Namespace, strength: float) -> Brain:
    """The model with a clock in its keys."""
    trained = neuro.load(options.model)
    sets = [f"hippocampus.slots={options.slots}", f"hippocampus.time_cells={options.cells}"]
    brain = Brain(apply_sets(trained.config, sets), trained.backend).eval()
    brain.load_state_dict(trained.state_dict(), strict=False)
    brain.tokenizer = trained.tokenizer
    torch.manual_seed(options.seed)
    weight = cast(Hippocampus, brain.regions["hippocampus"]).time.weight
    nn.init.orthogonal_(weight, gain=strength)
    return brain


@torch.no_grad()
def measured(options: argparse.Namespace, raw: str, strength: float) -> dict[str, np.ndarray]:
    """Nats [samples, T] of each arm."""
    brain = clocked(options, strength)
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True, help="folder with wikitext-2/")
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.0, 0.3])
    parser.add_argument("--cells", type=int, default=24)
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--slots", type=int, default=2048)
    parser.add_argument("--length", type=int, default=300, help="tokens of the passage, and of the warm-up")
    parser.add_argument("--gap", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    raw = text.read_text(options.data / "wikitext-2" / "valid.txt.gz")
    found = {strength: measured(options, raw, strength) for strength in options.strengths}
    first = found[options.strengths[0]]
    report: dict[str, Any] = {
        "benchmark": "event_clock",
        "model": options.model,
        "machine": _machine.describe(),
        **{name: getattr(options, name) for name in ("cells", "samples", "slots", "length", "gap", "seed")},
        "nats": {s: {arm: round(float(t.mean()), 4) for arm, t in by.items()} for s, by in found.items()},
        f"less_{options.strengths[0]}": {
            s: {arm: blocked(list(t - first[arm])) for arm, t in by.items()}
            for s, by in found.items()
            if s != options.strengths[0]
        },
    }
    print(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
