"""What does it help that the same words led to a stored moment? One setting of `hippocampus.phrase` after another.

    python benchmarks/phrases.py small --data $NEURO_DATA --distances 4096 16384 \\
        --settings 0.4,0.85,0.8,0,0 0.4,0.75,0.88,0,0 0.4,0.75,0.88,1,0 0.4,0.75,0.88,2,0

A setting is the phrase's strength, the weight of a token over that of the one after it, the cosine from which phrases are
alike, how much louder a surely known value is, and what is added to the gate's null (that of `small` was raised by 0.7 for
phrases, so 0,0.75,0.88,0,-0.7 is the model without). For each: nats a token of the first ``--tokens`` of
WikiText-2 valid with both memories (one stream, a session's commits), and `neuro eval --suite profile` on the tuning forms,
``--users`` users of seed 0: facts said word for word in the same words, with both memories on, another user's, and off.
No chance but the seed's; one set of weights, so for choosing and not for a claim. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import _machine
import numpy as np
import torch

import neuro
from neuro import text
from neuro.brain import Brain
from neuro.evaluate import arms, perplexity, probes, profile
from neuro.evaluate.stream import Stream, evaluating
from neuro.evaluate.templates import TUNING
from neuro.memory import phrases


def text_nats(brain: Brain, raw: str, tokens: int) -> float:
    coded = perplexity.code(raw, brain, True)
    ids = [brain.tokenizer.bos_id, *(i for unit in coded.ids for i in unit)][: tokens + 1]
    with evaluating(brain):
        return float(Stream(brain, arms.ARMS["real"]).read(ids)[1:].mean())


def facts(brain: Brain, raw: str, distances: list[int], users: int) -> dict[str, dict[str, float]]:
    """Share word for word in the same words, by distance and kind, of each arm."""
    episodes = profile.made(brain, brain.tokenizer.encode(raw), distances, users, 0, TUNING)
    labels = [asked.label for step in episodes[0] for asked in step.questions]
    found = probes.answers(brain, episodes, "real") | probes.answers(brain, episodes, "off")
    shares: dict[str, dict[str, float]] = {}
    for label in dict.fromkeys(label for label in labels if label.endswith("same words")):
        at = [number for number, name in enumerate(labels) if name == label]
        shares[label] = {
            arm: float(np.mean([not any(episode[number].wrong) for episode in by for number in at]))
            for arm, by in found.items()
        }
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True, help="folder with wikitext-2/ and books/")
    parser.add_argument(
        "--settings",
        nargs="+",
        default=["0,0.75,0.88,0,-0.7", "0.4,0.75,0.88,1,0"],
        metavar="PHRASE,KEPT,CLOSE,GAIN,NULL",
    )
    parser.add_argument("--tokens", type=int, default=8000)
    parser.add_argument("--distances", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--users", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    valid = text.read_text(options.data / "wikitext-2" / "valid.txt.gz")
    book = text.read_text(options.data / "books" / "alice_11.txt.gz")
    found: dict[str, Any] = {}
    for setting in options.settings:
        strength, phrases.KEPT, phrases.CLOSE, phrases.GAIN, null = map(float, setting.split(","))
        brain = neuro.load(options.model, sets=[f"hippocampus.phrase={strength}"]).eval()
        with torch.no_grad():
            brain.regions["hippocampus"].memory.null.bias += null
        nats = text_nats(brain, valid, options.tokens)
        found[setting] = {"text": round(nats, 4), "facts": facts(brain, book, options.distances, options.users)}
    about = {name: value for name, value in vars(options).items() if name not in ("data", "settings")}
    print(json.dumps({"benchmark": "phrases", "machine": _machine.describe(), **about, "found": found}, indent=1))


if __name__ == "__main__":
    main()
