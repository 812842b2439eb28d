"""The floor of WikiText-2: an interpolated Kneser-Ney trigram over the closed vocabulary of 33,278 words.

    python benchmarks/trigram.py $NEURO_DATA/wikitext-2

One absolute discount per order, estimated from the counts as n1 / (n1 + 2 n2) (Ney, Essen & Kneser 1994,
doi:10.1006/csla.1994.1001); the text is one stream with one <eos> per line. Nothing is tuned. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter, defaultdict
from pathlib import Path

import _machine

from neuro.text import read_text


def words(path: Path) -> list[str]:
    return [word for line in read_text(path).removesuffix("\n").split("\n") for word in (*line.split(), "<eos>")]


class KneserNey:
    """p(w | u, v): counts of trigrams, continuation counts below them, uniform at the bottom."""

    def __init__(self, stream: list[str]) -> None:
        trigrams = Counter(zip(stream, stream[1:], stream[2:], strict=False))
        bigrams: Counter[tuple[str, ...]] = Counter((v, w) for _, v, w in trigrams)
        unigrams: Counter[tuple[str, ...]] = Counter((w,) for _, w in bigrams)
        self.size = len(set(stream))
        self.orders = [self._order(counts) for counts in (unigrams, bigrams, trigrams)]

    @staticmethod
    def _order(counts: Counter) -> tuple[Counter, dict, dict, float]:
        total: dict = defaultdict(int)
        kinds: dict = defaultdict(int)
        for gram, count in counts.items():
            total[gram[:-1]] += count
            kinds[gram[:-1]] += 1
        once, twice = (sum(count == n for count in counts.values()) for n in (1, 2))
        return counts, total, kinds, once / (once + 2 * twice)

    def p(self, gram: tuple[str, ...]) -> float:
        """Probability of the last word after the ones before it."""
        found = 1.0 / self.size
        for order, (counts, total, kinds, discount) in enumerate(self.orders):
            part = gram[len(gram) - 1 - order :] if order < len(gram) else None
            if part is None or part[:-1] not in total:
                break
            mass = total[part[:-1]]
            found = max(counts[part] - discount, 0.0) / mass + discount * kinds[part[:-1]] / mass * found
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    model = KneserNey(words(folder / "train.txt.gz"))
    rows = {}
    for split in ("valid", "test"):
        stream = words(folder / f"{split}.txt.gz")
        nats = -sum(math.log(model.p(tuple(stream[max(0, i - 2) : i + 1]))) for i in range(len(stream)))
        rows[split] = {"words": len(stream), "word_perplexity": math.exp(nats / len(stream))}
    context = tuple(words(folder / "valid.txt.gz")[100:102])
    vocabulary = {gram[0] for gram in model.orders[0][0]}
    report = {
        "benchmark": "trigram",
        "machine": _machine.describe(),
        "vocabulary": model.size,
        "sum_of_probabilities_after_one_context": sum(model.p((*context, word)) for word in vocabulary),
        "splits": rows,
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
