"""Perplexity of any text in one stream, by the published WikiText-2 protocol where asked for.

Every token is scored, batch 1, state and memory carried over the whole text, never reset at articles.

    word perplexity = exp(total nats / (words + one <eos> per line)),   bits per byte = total bits / bytes of the file

In a script without spaces a word is a line. What a float cannot hold of that is None; bits per byte are told all the same.

Bits per byte are of a lossless code, so a closed vocabulary has none.

A byte-BPE model codes the text losslessly ("open vocabulary"): with ``wikitext`` a line whose detokenized form gives the
line back exactly is coded in that form, any other line as it stands, and each non-blank line pays for the flag that says
which (share of other lines in the training split: 0.41 %). A word model (33,278 types) is "closed vocabulary". The two
are different quantities and never share a column.

Arms are compared article by article (or block by block): one resampling of the articles for all of them.

SHUFFLED says what of the gain is owed to this stream's own past. A second stream reads the second half of the text while
the first reads the first half. At each article's start both end their span, and the first goes on with what the
memories of the second hold: of the same domain, age, slot count, and written by the same brain, but of other articles. It
then reads the article with all memories on. So between SHUFFLED and REAL lies what the articles before were worth, and
between OFF and SHUFFLED what the article itself and a memory full of its like are worth. The halves share no token, so no
score depends on a token that its stream reads later. Other equal ages are not to be had: whoever has read as much of the
text before an article has read the same. Left out are the first article (its memories are empty) and the second half;
the other arms are compared with SHUFFLED on the same articles.

FOREIGN is stricter: after every commit the first stream holds what the second has stored so far, so that nothing it reads
from its memories, not even of the article at hand, is its own. Between FOREIGN and REAL lies all that is owed to this text.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from neuro import plots, text
from neuro.brain import Brain
from neuro.errors import UsageError
from neuro.evaluate import arms, statistics
from neuro.evaluate.parts import Parts
from neuro.evaluate.stream import Stream, evaluating
from neuro.tokenizer import Tokenizer

FLAG_PROBABILITY = 0.0041  # printed by benchmarks/prepare_corpus.py for the training split
BLOCK_LINES = 50  # of plain text; the unit of resampling where there are no articles


class Reads(Protocol):
    """What has a vocabulary."""

    @property
    def tokenizer(self) -> Tokenizer: ...


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
    word_perplexity: float | None  # None: beyond a float
    word_perplexity_interval: tuple[float, float] | None  # 95 %, bootstrap over articles (or blocks); None below two
    bits_per_byte: float | None  # None for a closed vocabulary: <unk> does not say which word it was
    nats_per_token: float
    units: int

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Score:
    """What the units of a text cost in one arm."""

    nats: list[float]  # of each unit, its flags included
    nats_per_token: float


def run(
    brain: Brain,
    raw: str,
    out: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    wikitext: bool = False,
    articles: int | None = None,
) -> dict[str, Any]:
    """The suite: every arm of this brain, their differences, and SHUFFLED -> its JSON record.

    Args:
        raw: the file's text.
        out: where finished arms are kept (`neuro.evaluate.parts`).
        say: told of the progress.
        wikitext: the text is in WikiText's word-token form.
        articles: only the first so many articles (or blocks).

    Raises:
        UsageError: nothing to score.
    """
    coded = first_units(raw, brain, wikitext, articles)
    parts = Parts(out, "perplexity", brain, raw, {"wikitext": wikitext, "articles": articles}, say)
    names = arms.of(brain)
    scores = {
        arm: Score(**parts.get(arm, f"scoring with {arms.LABELS[arm]}", functools.partial(scored, brain, coded, arm)))
        for arm in names
    }
    count = _shuffled_units(coded)
    record: dict[str, Any] = {
        "wikitext": wikitext,
        "arms": [_summary(brain, coded, arm, scores[arm]).to_dict() for arm in names],
        "changes": _changes(coded.words, {arm: score.nats for arm, score in scores.items()}, "off"),
        "shuffled": None,
        "shuffled_left_out": None,
        "by_unit": {"words": coded.words, "nats": {arm: score.nats for arm, score in scores.items()}},
    }
    if not arms.memories(brain):
        record["shuffled_left_out"] = "this brain has no memory"
    elif count < 3:
        kind = "articles" if wikitext else f"blocks of {BLOCK_LINES} lines"
        record["shuffled_left_out"] = f"needs 3 {kind} in the first half of the text, has {count}"
    else:
        nats = parts.get(
            "shuffled",
            f"scoring with {arms.LABELS['shuffled']}",
            lambda: _shuffled_nats(brain, coded, count).tolist(),
        )
        foreign = parts.get(
            "foreign",
            f"scoring with {arms.LABELS['foreign']}",
            lambda: _foreign_nats(brain, coded, count).tolist(),
        )
        here = slice(1, count)
        words = coded.words[here]
        every = {"real": scores["real"].nats, "off": scores["off"].nats, "shuffled": nats, "foreign": foreign}
        compared = {arm: cost[here] for arm, cost in every.items()}
        record["shuffled"] = {
            "units": len(words),
            "words": sum(words),
            "word_perplexity": {arm: _exponential(sum(cost) / sum(words))[0] for arm, cost in compared.items()},
            "changes_over_off": _changes(words, compared, "off"),
            "changes_over_shuffled": _changes(words, {arm: compared[arm] for arm in ("real", "shuffled")}, "shuffled"),
            "changes_over_foreign": _changes(words, {arm: compared[arm] for arm in ("real", "foreign")}, "foreign"),
        }
    return record


def table(record: dict[str, Any]) -> list[str]:
    """The record in words."""
    rows = record["arms"]
    first = rows[0]
    lines = [f"{first['words']} words, {first['tokens']} tokens, {first['vocabulary']} vocabulary, one stream, batch 1"]
    for row in rows:
        spread = "too few units for an interval"
        if row["word_perplexity_interval"] is not None:
            low, high = row["word_perplexity_interval"]
            spread = f"95 % {low:.2f} to {high:.2f}"
        if row["word_perplexity"] is None:
            told = f"not told: {row['nats'] / row['words']:,.0f} nats a word, the text has hardly a space"
        else:
            told = f"{row['word_perplexity']:8.2f}  ({spread}, {row['units']} articles or blocks)"
        line = f"{arms.LABELS[row['arm']]:<22}  word perplexity {told}"
        bits = row["bits_per_byte"]
        lines.append(line if bits is None else f"{line}  {bits:.4f} bits per byte")
    lines += [_change_line(arm, "off", change) for arm, change in record["changes"].items()]
    found = record["shuffled"]
    if found is None:
        return [*lines, f"{arms.LABELS['shuffled']}: left out, {record['shuffled_left_out']}"]
    costs = {arm: "not told" if cost is None else f"{cost:.2f}" for arm, cost in found["word_perplexity"].items()}
    each = ", ".join(f"{arms.LABELS[arm]} {cost}" for arm, cost in costs.items())
    lines.append(f"word perplexity of articles or blocks 2 to {found['units'] + 1}: {each}")
    for other in ("shuffled", "foreign"):
        lines.append(_change_line(other, "off", found["changes_over_off"][other]))
        lines.append(_change_line("real", other, found[f"changes_over_{other}"]["real"]))
    return lines


def picture(record: dict[str, Any], out: Path) -> Path | None:
    """Word perplexity of each arm, and along the text, where there is one to tell; None without matplotlib."""
    units = record["by_unit"]
    words = np.cumsum(units["words"])
    told = {row["arm"]: row for row in record["arms"] if row["word_perplexity"] is not None}
    with np.errstate(over="ignore"):
        curves = {arms.LABELS[arm]: np.exp(np.cumsum(units["nats"][arm]) / words) for arm in told}
    return plots.perplexities(
        {arms.LABELS[arm]: (row["word_perplexity"], row["word_perplexity_interval"]) for arm, row in told.items()},
        words,
        {name: np.where(np.isfinite(values), values, np.nan) for name, values in curves.items()},
        out,
    )


def code(raw: str, brain: Reads, wikitext: bool) -> Coded:
    """Token ids of a text, article by article (or block by block)."""
    lines = raw.removesuffix("\n").split("\n")
    if wikitext:
        units = list(text.articles(lines))
    else:
        units = [lines[i : i + BLOCK_LINES] for i in range(0, len(lines), BLOCK_LINES)]
    ids, words, flags = [], [], []
    for unit in units:
        coded = [code_line(line, brain, wikitext) for line in unit]
        ids.append([token for line_ids, _ in coded for token in line_ids])
        flags.append(sum(flag for _, flag in coded))
        words.append(sum(map(words_of, unit)))
    return Coded(ids, words, flags, len(raw.encode("utf-8")))


def code_line(line: str, brain: Reads, wikitext: bool) -> tuple[list[int], float]:
    """Token ids of a line, its line feed among them, and the nats of its flag."""
    coded, flag = line, 0.0
    if wikitext and brain.tokenizer.kind == "bpe":
        coded, natural = text.encode_line(line)
        if line.strip():
            flag = -math.log1p(-FLAG_PROBABILITY) if natural else -math.log(FLAG_PROBABILITY)
    return brain.tokenizer.encode(coded + "\n"), flag


def words_of(line: str) -> int:
    """Words of a line as the published protocol counts them, its <eos> among them."""
    return len(line.split()) + 1


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
    coded = first_units(raw, brain, wikitext, most_units)
    return _summary(brain, coded, arm, Score(**scored(brain, coded, arm)))


def first_units(raw: str, brain: Brain, wikitext: bool, most_units: int | None) -> Coded:
    coded = code(raw, brain, wikitext)
    if most_units is not None:
        raw_bytes = _bytes_of(raw, wikitext, most_units)
        coded = Coded(coded.ids[:most_units], coded.words[:most_units], coded.flag_nats[:most_units], raw_bytes)
    if not sum(map(len, coded.ids)):
        raise UsageError("perplexity: the text is empty.", "Give a text with at least one line.")
    return coded


def scored(brain: Brain, coded: Coded, arm: str) -> dict[str, Any]:
    """The fields of the arm's `Score`: what is kept of it on disk."""
    with evaluating(brain):
        stream = [brain.tokenizer.bos_id, *(i for unit in coded.ids for i in unit)]
        surprise = Stream(brain, arms.ARMS[arm]).read(stream)[1:]
    ends = np.cumsum([len(unit) for unit in coded.ids])
    nats = np.array([part.sum() for part in np.split(surprise, ends[:-1])]) + np.array(coded.flag_nats)
    return {"nats": nats.tolist(), "nats_per_token": float(surprise.mean())}


def _summary(brain: Brain, coded: Coded, arm: str, score: Score) -> Perplexity:
    nats, words = np.array(score.nats), np.array(coded.words)
    total = float(nats.sum())
    draws = None  # every draw of one unit is that unit: no width, and no certainty either
    if len(words) > 1:
        drawn_nats, drawn_words = statistics.resampled_sums(list(np.stack([nats, words], 1)[:, None]))
        draws = drawn_nats / drawn_words
    word_perplexity, interval = _exponential(total / words.sum(), draws)
    return Perplexity(
        arm=arm,
        vocabulary="open" if brain.tokenizer.kind == "bpe" else "closed",
        tokens=sum(map(len, coded.ids)),
        words=int(words.sum()),
        nats=total,
        word_perplexity=word_perplexity,
        word_perplexity_interval=interval,
        bits_per_byte=total / math.log(2) / coded.size_bytes if brain.tokenizer.kind == "bpe" else None,
        nats_per_token=score.nats_per_token,
        units=len(words),
    )


def _changes(words: list[int], nats: dict[str, list[float]], against: str) -> dict[str, Any]:
    """Relative change of word perplexity of every other arm against one, paired over the units."""
    if against not in nats:
        return {}
    columns = np.array([words, *nats.values()]).T  # [units, 1 + arms]
    drawn = statistics.resampled_sums(list(columns[:, None])) if len(words) > 1 else None
    found = {}
    base = list(nats).index(against) + 1
    for column, arm in enumerate(nats, 1):
        if arm != against:
            total = columns.sum(0)
            draws = None if drawn is None else (drawn[column] - drawn[base]) / drawn[0]
            ratio, spread = _exponential((total[column] - total[base]) / total[0], draws)
            found[arm] = {
                "change": None if ratio is None else ratio - 1,
                "interval": None if spread is None else (spread[0] - 1, spread[1] - 1),
            }
    return found


def _exponential(exponent: float, draws: np.ndarray | None = None) -> tuple[float | None, statistics.Interval | None]:
    return statistics.exponential(np.append(exponent, [] if draws is None else draws))


def _change_line(arm: str, against: str, change: dict[str, Any]) -> str:
    of = f"{arms.LABELS[arm]} against {arms.LABELS[against]}"
    if change["change"] is None:
        return f"{of}: word perplexity not told"
    line = f"{of}: {100 * change['change']:+.1f} % word perplexity"
    if change["interval"] is None:
        return f"{line} (too few units for an interval)"
    low, high = change["interval"]
    return f"{line} (95 % {100 * low:+.1f} to {100 * high:+.1f})"


def _shuffled_units(coded: Coded) -> int:
    """How many units lie in the first half of the text: the second is at least as long."""
    ends = np.cumsum([len(unit) for unit in coded.ids])
    return int(np.searchsorted(2 * ends, ends[-1], side="right"))


def _shuffled_nats(brain: Brain, coded: Coded, count: int) -> np.ndarray:
    """Nats of the first ``count`` units, each begun with the memories of the stream in the second half."""
    everything = arms.ARMS["real"]
    others = [brain.tokenizer.bos_id, *(token for unit in coded.ids[count:] for token in unit)]
    nats = []
    with evaluating(brain):
        stream, donor = Stream(brain, everything), Stream(brain, everything)
        at = read = 0  # where the article begins in its stream, and what the other stream has read
        for number, unit in enumerate(coded.ids[:count]):
            if number:
                donor.read(others[read:at])
                read = at
                stream.state = arms.with_memories_of(stream.state, donor.state)
            tokens = unit if number else [brain.tokenizer.bos_id, *unit]
            nats.append(stream.read(tokens).sum() + coded.flag_nats[number])
            at += len(tokens)
    return np.array(nats)


def _foreign_nats(brain: Brain, coded: Coded, count: int) -> np.ndarray:
    """Nats of the first ``count`` units, read with nothing but what the stream in the second half has stored so far."""
    everything, span = arms.ARMS["real"], brain.config.plasticity_span
    own, others = (
        [brain.tokenizer.bos_id, *(token for unit in units for token in unit)]
        for units in (coded.ids[:count], coded.ids[count:])
    )
    nats = []
    with evaluating(brain):
        stream, donor = Stream(brain, everything), Stream(brain, everything)
        for at in range(0, len(own), span):
            nats.append(stream.read(own[at : at + span]))
            donor.read(others[at : at + span])
            stream.state = arms.with_memories_of(stream.state, donor.state)
    ends = np.cumsum([len(unit) for unit in coded.ids[:count]])
    of_unit = [part.sum() for part in np.split(np.concatenate(nats)[1:], ends[:-1])]
    return np.array(of_unit) + np.array(coded.flag_nats[:count])


def _bytes_of(raw: str, wikitext: bool, units: int) -> int:
    lines = raw.removesuffix("\n").split("\n")
    if not wikitext:
        return len("\n".join(lines[: units * BLOCK_LINES]).encode()) + 1
    kept = [line for article in list(text.articles(lines))[:units] for line in article]
    return len("\n".join(kept).encode()) + 1
