"""Arms of an ablation compared: the same documents, several seeds, one table.

An arm is what each document cost in each seed. Differences are paired by document and seed; the bootstrap draws documents and
seeds (Efron and Tibshirani 1993), p is two-sided, the share of draws on the wrong side of zero doubled, and at least 2 / draws.
Of several comparisons the p are corrected together (Holm 1979, Scandinavian Journal of Statistics 6:65).

Two arms that agree to the last bit are one arm under two names: a switch that switches nothing. That raises a warning.
"""

from __future__ import annotations

import itertools
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuro.errors import UsageError
from neuro.evaluate.statistics import interval

DRAWS = 10000
FEWEST = 10  # documents below which no number is given


class TiedArmsWarning(UserWarning):
    """Two arms are equal to the last bit."""


def is_adapter(where: Path) -> bool:
    """Whether a folder is of a hippocampal adapter; told without transformers, of which there may be none."""
    try:
        record = json.loads((where / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("model_type") == "hippocampal_adapter"


def holm(p: Sequence[float]) -> list[float]:
    """p-values of one family, each corrected for the others; in the order given.

    Raises:
        UsageError: a value outside 0..1.
    """
    if any(not 0.0 <= value <= 1.0 for value in p):
        raise UsageError(f"holm: got {list(p)}, expected values in 0..1.", "Give p-values.")
    corrected, highest = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        highest = max(highest, min(1.0, (len(p) - rank) * p[index]))
        corrected[index] = highest
    return corrected


def compare(
    nats: Mapping[str, np.ndarray],
    words: np.ndarray,
    size_bytes: np.ndarray,
    reference: str,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """The table of an ablation.

    Args:
        nats: of each arm [S, N], what each of N documents cost in each of S seeds; one row for an arm without seeds.
        words: [N] of each document.
        size_bytes: [N] of each document.
        reference: the arm that each other is compared with.
        draws: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        documents, seeds, ``arms`` (bits_per_byte and word_perplexity with 95 % intervals, by_seed), ``differences``
        (nats per word saved by the reference over each other arm, interval, p, p_holm), ``tied`` pairs.

    Raises:
        UsageError: too few documents, an unknown reference, or arms of unequal shape.
    """
    count = len(words)
    if count < FEWEST:
        raise UsageError(
            f"ablation: got {count} documents, expected at least {FEWEST}.", "Give more documents: so few say nothing."
        )
    if reference not in nats:
        raise UsageError(f"ablation: got reference '{reference}', expected one of {', '.join(nats)}.", "Correct it.")
    seeds = max(len(arm) for arm in nats.values())
    for name, arm in nats.items():
        if arm.shape not in ((1, count), (seeds, count)) or len(size_bytes) != count:
            raise UsageError(
                f"ablation: arm '{name}' has shape {list(arm.shape)}, expected {[seeds, count]} or {[1, count]}.",
                "Run every arm on every document and seed.",
            )
    tied = [[a, b] for a, b in itertools.combinations(nats, 2) if bool(np.all(nats[a] == nats[b]))]
    for a, b in tied:
        warnings.warn(
            f"ablation: arms '{a}' and '{b}' tie exactly; one of them is not what it says", TiedArmsWarning, 2
        )
    random = np.random.default_rng(seed)
    documents = random.integers(0, count, (draws, count))
    chosen_seeds = random.integers(0, seeds, (draws, seeds))
    drawn_words, drawn_bytes = words[documents].sum(1), size_bytes[documents].sum(1)

    def per_draw(arm: np.ndarray) -> np.ndarray:
        whole = np.broadcast_to(arm, (seeds, count))
        weights = np.stack([(chosen_seeds == number).sum(1) for number in range(seeds)], 1) / seeds  # [draws, S]
        sums = np.stack([row[documents].sum(1) for row in whole], 1)
        return (weights * sums).sum(1)

    drawn = {name: per_draw(arm) for name, arm in nats.items()}
    arms = {}
    for name, arm in nats.items():
        total = arm.mean(0).sum()
        arms[name] = {
            "bits_per_byte": float(total / math.log(2) / size_bytes.sum()),
            "bits_per_byte_interval": interval(drawn[name] / math.log(2) / drawn_bytes),
            "word_perplexity": float(np.exp(total / words.sum())),
            "word_perplexity_interval": interval(np.exp(drawn[name] / drawn_words)),
            "by_seed": [float(np.exp(row.sum() / words.sum())) for row in arm],
        }
    differences: dict[str, dict[str, Any]] = {}
    chances: list[float] = []
    others = [name for name in nats if name != reference]
    for name in others:
        saved = (drawn[name] - drawn[reference]) / drawn_words
        wrong = min(float((saved <= 0).mean()), float((saved >= 0).mean()))
        chances.append(min(1.0, max(2 * wrong, 2 / draws)))
        differences[name] = {
            "nats_per_word": float((nats[name].mean(0) - nats[reference].mean(0)).sum() / words.sum()),
            "interval": interval(saved),
            "p": chances[-1],
        }
    for name, value in zip(others, holm(chances), strict=True):
        differences[name]["p_holm"] = value
    record: dict[str, Any] = {"documents": count, "seeds": seeds, "reference": reference}
    return record | {"arms": arms, "differences": differences, "tied": tied}


def table(record: dict[str, Any]) -> list[str]:
    """The record in words."""
    lines = [
        f"{record['documents']} documents, {record['seeds']} seeds; brackets: 95 %, bootstrap over documents and seeds",
        f"{'arm':<24}{'bits/byte':>10}{'word ppl':>10}  {'':<20}{record['reference']} saves, nats per word",
    ]
    for name, arm in record["arms"].items():
        low, high = arm["word_perplexity_interval"]
        line = (
            f"{name:<24}{arm['bits_per_byte']:>10.4f}{arm['word_perplexity']:>10.1f}  {f'[{low:.1f}, {high:.1f}]':<20}"
        )
        if name in record["differences"]:
            found = record["differences"][name]
            low, high = found["interval"]
            line += f"{found['nats_per_word']:.4f} [{low:.4f}, {high:.4f}], p {found['p_holm']:.4f} (Holm)"
        lines.append(line.rstrip())
    return lines + [f"exact tie: {a} and {b}" for a, b in record["tied"]]
