"""Perplexity of any text in one stream, by the published WikiText-2 protocol where asked for.

Every token is scored, batch 1, state and memory carried over the whole text, never reset at articles.

    word perplexity = exp(total nats / (words + one <eos> per line)),   bits per byte = total bits / bytes of the file

Bits per byte are of a lossless code, so a closed vocabulary has none.

A byte-BPE model codes the text losslessly ("open vocabulary"): with ``wikitext`` a line whose detokenized form gives the
line back exactly is coded in that form, any other line as it stands, and each non-blank line pays for the flag that says
which (share of other lines in the training split: 0.41 %). A word model (33,278 types) is "closed vocabulary". The two
are different quantities and never share a column.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import torch

from neuro import text
from neuro.brain import Brain
from neuro.errors import UsageError
from neuro.evaluate import arms
from neuro.session import Session

FLAG_PROBABILITY = 0.0041  # printed by benchmarks/prepare_corpus.py for the training split
BLOCK_LINES = 50  # of plain text; the unit of resampling where there are no articles


@dataclasses.dataclass(frozen=True)
class Coded:
    """A text as token ids, cut into resampling units."""

    ids: list[list[int]]  # of each unit
    words: list[int]  # of each unit, one <eos> per line included
    flag_nats: list[float]  # of each unit
    size_bytes: int


@dataclasses.dataclass(frozen=True)
class Perplexity:
    """What the text cost the model, in one arm."""

    arm: str  # one of `arms.ARMS`: which memories are kept; the others are emptied after every commit
    vocabulary: str  # "open" or "closed"
    tokens: int
    words: int
    nats: float
    word_perplexity: float
    word_perplexity_interval: tuple[float, float] | None  # 95 %, bootstrap over articles (or blocks); None below two
    bits_per_byte: float | None  # None for a closed vocabulary: <unk> does not say which word it was
    nats_per_token: float
    units: int

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def code(raw: str, brain: Brain, wikitext: bool) -> Coded:
    """Token ids of a text, article by article (or block by block)."""
    lines = raw.removesuffix("\n").split("\n")
    if wikitext:
        units = list(text.articles(lines))
    else:
        units = [lines[i : i + BLOCK_LINES] for i in range(0, len(lines), BLOCK_LINES)]
    ids, words, flags = [], [], []
    for unit in units:
        unit_ids: list[int] = []
        flag = 0.0
        for line in unit:
            coded = line
            if wikitext and brain.tokenizer.kind == "bpe":
                coded, natural = text.encode_line(line)
                if line.strip():
                    flag -= math.log1p(-FLAG_PROBABILITY) if natural else math.log(FLAG_PROBABILITY)
            unit_ids += brain.tokenizer.encode(coded + "\n")
        ids.append(unit_ids)
        words.append(sum(len(line.split()) + 1 for line in unit))
        flags.append(flag)
    return Coded(ids, words, flags, len(raw.encode("utf-8")))


def evaluate(
    brain: Brain, raw: str, wikitext: bool = False, arm: str = "real", most_units: int | None = None
) -> Perplexity:
    """Score a text.

    Args:
        raw: the file's text.
        wikitext: it is in WikiText's word-token form.
        arm: one of `arms.ARMS`.
        most_units: only the first so many articles (or blocks).

    Raises:
        UsageError: an unknown arm, or nothing to score.
    """
    if arm not in arms.ARMS:
        raise UsageError(f"perplexity: got arm '{arm}', expected one of {', '.join(arms.ARMS)}.", "Correct the arm.")
    coded = code(raw, brain, wikitext)
    if most_units is not None:
        raw_bytes = _bytes_of(raw, wikitext, most_units)
        coded = Coded(coded.ids[:most_units], coded.words[:most_units], coded.flag_nats[:most_units], raw_bytes)
    if not sum(map(len, coded.ids)):
        raise UsageError("perplexity: the text is empty.", "Give a text with at least one line.")
    stream = [brain.tokenizer.bos_id, *(i for unit in coded.ids for i in unit)]
    surprise = _surprises(brain, stream, arm)[1:]
    ends = np.cumsum([len(unit) for unit in coded.ids])
    nats = np.array([part.sum() for part in np.split(surprise, ends[:-1])]) + np.array(coded.flag_nats)
    words = np.array(coded.words)
    total = float(nats.sum())
    return Perplexity(
        arm=arm,
        vocabulary="open" if brain.tokenizer.kind == "bpe" else "closed",
        tokens=len(stream) - 1,
        words=int(words.sum()),
        nats=total,
        word_perplexity=math.exp(total / words.sum()),
        word_perplexity_interval=_interval(nats, words),
        bits_per_byte=total / math.log(2) / coded.size_bytes if brain.tokenizer.kind == "bpe" else None,
        nats_per_token=float(surprise.mean()),
        units=len(words),
    )


def _surprises(brain: Brain, stream: list[int], arm: str) -> np.ndarray:
    """Nats of every token of one stream (the first is 0: nothing predicts it), float64."""
    collected: list[np.ndarray] = []

    class Collect:
        def span(self, events, commit) -> None:
            collected.extend(event.surprise[0].cpu().numpy().astype(np.float64) for event in events)

    training = brain.training
    brain.eval()
    try:
        session = Session(brain, observers=[Collect()])
        span = brain.config.plasticity_span
        for start in range(0, len(stream), span):
            session.feed(torch.tensor([stream[start : start + span]]))
            session.state = arms.keep_only(session.state, arms.ARMS[arm])
        session.commit()
    finally:
        brain.train(training)
    return np.concatenate(collected)


def _interval(nats: np.ndarray, words: np.ndarray, draws: int = 1000, seed: int = 0) -> tuple[float, float] | None:
    if len(words) < 2:
        return None  # every draw of one unit is that unit: no width, and no certainty either
    rows = np.random.default_rng(seed).integers(0, len(words), (draws, len(words)))
    samples = np.exp(nats[rows].sum(1) / words[rows].sum(1))
    low, high = np.quantile(samples, [0.025, 0.975])
    return float(low), float(high)


def _bytes_of(raw: str, wikitext: bool, units: int) -> int:
    lines = raw.removesuffix("\n").split("\n")
    if not wikitext:
        return len("\n".join(lines[: units * BLOCK_LINES]).encode()) + 1
    kept = [line for article in list(text.articles(lines))[:units] for line in article]
    return len("\n".join(kept).encode()) + 1
