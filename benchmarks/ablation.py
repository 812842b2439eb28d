"""Texts for a small ablation of parts: articles of WikiText-2 to learn from, and the beginnings of others to measure on.

    python benchmarks/ablation.py --data $NEURO_DATA --out DIR

writes DIR/train/ (the first articles of the train split, natural English, one file each) and DIR/valid.txt (the first lines
of the first articles of the valid split, in WikiText's form: many short units rather than a few long ones), and prints the
command that trains, measures and writes the tables of docs/ablation.md. No line of the test split is read.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import prepare_corpus

from neuro import atomic, text

LEARNED, MEASURED, LINES = 240, 14, 12
SMALL = (
    "brain.d_model=64",
    "brain.cortex.mixers=recurrence,window",
    "brain.cortex.feedforwards=spiking,spiking",
    "brain.cortex.feedforward_width=256",
    "brain.hippocampus.place_cells=128",
    "brain.procedural.rank=8",
    "train.batch=32",
    "train.steps=160",
    "train.warmup_steps=10",
    "train.eval_every=160",
    "train.eval_tokens=2048",
)
ASKED = "--wikitext --suites perplexity,repeat,habit --length 400 --gap 600 --samples 4 --episodes 4 --seeds 2"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with wikitext-2/")
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    options = parser.parse_args()
    folder = options.data / "wikitext-2"
    documents, _ = prepare_corpus.wikitext(folder / "train.txt.gz")
    prepare_corpus.write_documents(options.out / "train", documents[:LEARNED])
    articles = list(text.articles(text.read_text(folder / "valid.txt.gz").removesuffix("\n").split("\n")))
    lines = [line for article in articles[:MEASURED] for line in article[:LINES]]
    atomic.write_text(options.out / "valid.txt", "\n".join(lines) + "\n")
    sets = " ".join(f"--set {item}" for item in (f"data.train={options.out / 'train'}", *SMALL))
    print(f"neuro eval ablation {options.out / 'valid.txt'} --suite ablation {ASKED} {sets} --out DIR")


if __name__ == "__main__":
    main()
