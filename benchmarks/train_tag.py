"""Fit the tag of a model's hippocampus to what stored pairs were worth (`neuro.train.usefulness`).

    python benchmarks/train_tag.py small --data $NEURO_DATA --out FOLDER

Streams of 8,192 tokens of WikiText-2 train, one after the other from its beginning. Every other number of the model stays bit
for bit. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path

import _machine
import torch

import backends
from neuro import config, folder, text
from neuro.brain import Brain
from neuro.config import BrainConfig
from neuro.evaluate import perplexity
from neuro.train import usefulness

LENGTH = 2 * usefulness.HORIZON


def rebuilt(model: str, sets: list[str]) -> Brain:
    """The model with ``sets``, which may add parts: its own weights wherever they fit."""
    before, where = folder.load(model, "cpu"), folder.locate(model)
    kept = config.from_dict(BrainConfig, folder.read_record(where)["brain"], "config.json brain")
    brain = Brain(config.apply_sets(kept, sets), backends.select("cpu")).eval()
    brain.tokenizer, brain.seen = before.tokenizer, before.seen
    folder.adopt_weights(brain, where)
    return brain


def tagged(model: str, sets: list[str]) -> Brain:
    """The model with a tag, and ``sets``."""
    return rebuilt(model, ["hippocampus.tag=true", *sets])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True, help="folder with wikitext-2/")
    parser.add_argument("--out", required=True, help="folder to write the model into")
    parser.add_argument("--streams", type=int, default=24)
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    brain, judge = tagged(options.model, []), tagged(options.model, [f"hippocampus.slots={LENGTH}"])
    raw = text.read_text(options.data / "wikitext-2" / "train.txt.gz")
    lines = itertools.chain.from_iterable(text.articles(raw.split("\n")))
    coded = itertools.chain.from_iterable(perplexity.code_line(line, brain, True)[0] for line in lines)
    ids = list(itertools.islice(coded, options.streams * LENGTH))
    judged = usefulness.measure(judge, torch.tensor(ids).reshape(options.streams, LENGTH))
    own = brain.state_dict()
    for name, tensor in judge.state_dict().items():
        if ".tag." in name:
            own[name].copy_(tensor)
    about = folder.read_record(folder.locate(options.model))["about"]
    folder.save(brain, options.out, about | {"tag": {"streams": options.streams, "pairs": judged}})
    seconds = round(time.process_time() - began)
    print(json.dumps({"machine": _machine.describe(), "pairs": judged, "cpu_seconds": seconds}))


if __name__ == "__main__":
    main()
