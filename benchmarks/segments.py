"""Do event boundaries lie where one article ends and the next begins?

    python benchmarks/segments.py small --data $NEURO_DATA

The beginnings of articles of WikiText-2 valid, of random lengths, one after the other in one stream, memories on. A boundary
(`neuro.memory.segments`) is right when it lies within 24 tokens after a join; of each join one is. Half-lives and rise are
chosen on half of the streams by F1, figures are of the other half. Chance: the same boundaries, turned around their stream
by a random number of tokens, 1,000 times. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import _machine
import numpy as np
import torch
from sleep import read

import neuro
from neuro import text
from neuro.evaluate import arms, perplexity
from neuro.memory.segments import Segments

WITHIN = 24
FAST, SLOW, RISE = (2.0, 4.0, 8.0), (64.0, 256.0), (1.0, 1.5, 2.0, 2.5, 3.0)
Figures = tuple[float, float, float]


def figures(begun: np.ndarray, joins: list[np.ndarray]) -> Figures:
    """Precision, recall and F1 of boundaries [B,T] over all streams."""
    hits = found = wanted = 0
    for row, at in zip(begun, joins, strict=True):
        places = np.nonzero(row)[0]
        hits += sum(bool(((places >= join) & (places < join + WITHIN)).any()) for join in at)
        found, wanted = found + len(places), wanted + len(at)
    precision, recall = hits / max(1, found), hits / wanted
    return precision, recall, 2 * precision * recall / max(1e-9, precision + recall)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True, help="folder with wikitext-2/")
    parser.add_argument("--streams", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=2048, help="of each stream")
    options = parser.parse_args()
    torch.set_num_threads(1)
    brain = neuro.load(options.model, sets=["hippocampus.slots=2048"]).eval()
    raw = text.read_text(options.data / "wikitext-2" / "valid.txt.gz")
    random = np.random.default_rng(0)
    articles = itertools.cycle(perplexity.code(raw, brain, wikitext=True).ids)
    rows, joins = [], []
    for _ in range(options.streams):
        ids, at = [brain.tokenizer.bos_id], []
        while len(ids) < options.tokens:
            at.append(len(ids))
            ids += next(articles)[: int(random.integers(150, 350))]
        rows.append(ids[: options.tokens])
        joins.append(np.array([join for join in at if 64 < join < options.tokens - WITHIN]))
    nats, _ = read(brain, brain.init_state(len(rows)), torch.tensor(rows), arms.ARMS["real"])

    def boundaries(fast: float, slow: float, rise: float) -> np.ndarray:
        segments = Segments(fast, slow, rise, brain.ops)
        return segments.scan(torch.from_numpy(nats).float(), segments.init_state(len(nats)))[0].numpy()

    half = len(rows) // 2
    settings = max(
        itertools.product(FAST, SLOW, RISE), key=lambda given: figures(boundaries(*given)[:half], joins[:half])[2]
    )
    begun, judged = boundaries(*settings)[half:], joins[half:]
    turned = [
        figures(np.stack([np.roll(row, random.integers(options.tokens)) for row in begun]), judged) for _ in range(1000)
    ]
    names = ("precision", "recall", "f1")
    report = {
        "benchmark": "segments",
        "model": options.model,
        "machine": _machine.describe(),
        "streams": {"chosen on": half, "judged": len(judged)},
        "joins": sum(map(len, judged)),
        "boundaries": int(begun.sum()),
        "settings": dict(zip(("fast", "slow", "rise"), settings, strict=True)),
        "found": {name: round(x, 4) for name, x in zip(names, figures(begun, judged), strict=True)},
        "turned_mean": {name: round(float(x), 4) for name, x in zip(names, np.mean(turned, 0), strict=True)},
        "turned_97.5_%": {
            name: round(float(x), 4) for name, x in zip(names, np.quantile(turned, 0.975, 0), strict=True)
        },
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
