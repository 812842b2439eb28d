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
import functools
import json
from typing import cast

import torch
from contiguity import compared, parser_of
from torch import nn

import neuro
from neuro.brain import Brain
from neuro.config import apply_sets
from neuro.regions.hippocampus import Hippocampus


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


def main() -> None:
    parser = parser_of(__doc__, [0.0, 0.3], slots=2048, length=300, gap=400)
    parser.add_argument("--cells", type=int, default=24)
    options = parser.parse_args()
    made = {str(strength): functools.partial(clocked, options, strength) for strength in options.strengths}
    report = compared("event_clock", options, made)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
