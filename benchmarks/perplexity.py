"""Perplexity of a model on a text, memory on and off, with article-bootstrap intervals.

    python benchmarks/perplexity.py small $NEURO_DATA/wikitext-2/test.txt.gz --wikitext

Prints one JSON object. Deterministic: the only chance is the bootstrap's (seed 0, 1,000 draws).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import _machine

import neuro
from neuro import text
from neuro.evaluate import arms, perplexity


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text", type=Path)
    parser.add_argument("--wikitext", action="store_true")
    parser.add_argument("--articles", type=int)
    options = parser.parse_args()
    brain = neuro.load(options.model)
    raw = text.read_text(options.text)
    rows = []
    for arm in arms.of(brain):
        started = time.perf_counter()
        row = perplexity.evaluate(brain, raw, options.wikitext, arm, options.articles).to_dict()
        rows.append(row | {"seconds": round(time.perf_counter() - started, 1)})
    report = {
        "benchmark": "perplexity",
        "model": options.model,
        "text": options.text.name,
        "seed": 0,
        "machine": _machine.describe(),
        "arms": rows,
        "memory_drop_percent": 100 * (1 - rows[0]["word_perplexity"] / rows[-1]["word_perplexity"]),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
