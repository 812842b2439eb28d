"""What is a text worth that was read before? A passage is shown, other text is read, and the passage is shown again.

A sample is one fresh stream over one place of the text:

    <bos> [warm-up] [A: the passage] [B: the gap, other text] [A again]

The warm-up is there because a cold stream pays more for the first showing: without it the second would look cheaper with no
memory at all. It is the text that follows the gap: the text before the passage would be its context in the first showing
and not in the second, which then looks dearer (by 3 % with the shipped model's memory off). Every part ends its span, so
both showings of A are cut into the same spans, and what A wrote is committed however short the gap is. Samples share no
token.

    word perplexity = exp(nats / words),   ratio = that of the second showing over that of the first

Words are counted as `neuro/evaluate/perplexity.py` does (one <eos> for each line); a line that a passage cuts counts by
the share of its tokens inside. The published protocol's flag of a line is left out: it is the same in both showings.

SHUFFLED reads the second showing with the memories that another sample's stream holds at the same point: as old, of as
many slots, written by the same brain, of another place of the same text. What it gains is not owed to having read A.

Intervals: a bootstrap over samples, and over blocks of 100 tokens (about a line of WikiText) within each; all arms and both
showings of a draw share both, so they are paired.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from neuro import plots
from neuro.brain import Brain
from neuro.errors import UsageError
from neuro.evaluate import arms, perplexity, statistics
from neuro.evaluate.parts import Parts
from neuro.evaluate.stream import Stream, evaluating
from neuro.state import BrainState, clone

# Tokens. Without it the first showing pays for a cold start: 4 % with the shipped model's memory off.
WARM_UP = 2000
BLOCK = 100  # tokens of a moving block
CLAIM = 5  # samples from which on a result is more than indicative
BINS = 20  # of the picture's curve over the passage


@dataclasses.dataclass(frozen=True)
class Protocol:
    """The settings of a run.

    Raises:
        UsageError: one of them is below 1.
    """

    length: int = 2000  # tokens of the passage
    gap: int = 8000  # tokens between its showings
    samples: int = 5
    seed: int = 0  # which places of the text, and the bootstrap
    warm_up: int = WARM_UP  # tokens read before the passage

    def __post_init__(self) -> None:
        for name in ("length", "gap", "samples", "warm_up"):
            if getattr(self, name) < 1:
                raise UsageError(
                    f"repeat: got {name} {getattr(self, name)}, expected at least 1.",
                    f"Leave it out for {getattr(type(self), name)}.",
                )

    @property
    def sample_tokens(self) -> int:
        """Tokens of the text that a sample uses."""
        return self.warm_up + self.length + self.gap


class Sample(NamedTuple):
    """One place of the text."""

    start: int  # token of the text at which the passage begins
    warm_up: list[int]  # what follows the gap
    passage: list[int]
    gap: list[int]
    words: np.ndarray  # [length] of each token of the passage


def samples(brain: Brain, raw: str, wikitext: bool, protocol: Protocol) -> list[Sample]:
    """Places of the text that share no token, in its order; which ones follows from the seed.

    Raises:
        UsageError: the text is too short for them.
    """
    ids: list[int] = []
    words: list[float] = []
    for line in raw.removesuffix("\n").split("\n"):
        line_ids, _ = perplexity.code_line(line, brain, wikitext)
        ids += line_ids
        words += [perplexity.words_of(line) / len(line_ids)] * len(line_ids)
    each = protocol.sample_tokens
    spare = len(ids) - protocol.samples * each
    if spare < 0:
        raise UsageError(
            f"repeat: got a text of {len(ids)} tokens, expected at least {protocol.samples * each} "
            f"({protocol.samples} samples of {protocol.warm_up} + {protocol.length} + {protocol.gap}).",
            "Give a longer text, or fewer samples, a shorter passage or a shorter gap.",
        )
    found = []
    skipped = np.sort(np.random.default_rng(protocol.seed).integers(0, spare + 1, protocol.samples))
    for number, skip in enumerate(skipped.tolist()):
        start = skip + number * each
        gap = start + protocol.length
        warm_up = gap + protocol.gap
        inside = np.array(words[start:gap])
        found.append(Sample(start, ids[warm_up : start + each], ids[start:gap], ids[gap:warm_up], inside))
    return found


def run(
    brain: Brain,
    raw: str,
    out: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    wikitext: bool = False,
    **settings: int,
) -> dict[str, Any]:
    """The suite: every arm of this brain over every sample, and SHUFFLED -> its JSON record.

    Args:
        raw: the file's text.
        out: where finished pieces, one of each arm and sample, are kept (`neuro.evaluate.parts`).
        say: told of the progress.
        wikitext: the text is in WikiText's word-token form.
        settings: fields of `Protocol`.

    Raises:
        UsageError: a setting below 1, or a text too short.
    """
    protocol = Protocol(**settings)
    places = samples(brain, raw, wikitext, protocol)
    parts = Parts(out, "repeat", brain, raw, {"wikitext": wikitext} | dataclasses.asdict(protocol), say)
    streams = Streams(brain, places)
    names = arms.of(brain)
    if arms.memories(brain) and len(places) > 1:
        names.insert(-1, "shuffled")
    shown: dict[str, list[dict[str, list[float]]]] = {}
    for arm in names:
        shown[arm] = [
            parts.get(
                f"{arm}-{number}",
                f"{arms.LABELS[arm]}, sample {number + 1} of {len(places)}",
                functools.partial(streams.shuffled if arm == "shuffled" else streams.shown, arm, number),
            )
            for number in range(len(places))
        ]
    rows = _rows(places, shown, protocol.seed)
    record: dict[str, Any] = {
        "wikitext": wikitext,
        **dataclasses.asdict(protocol),
        "starts": [place.start for place in places],
        "words": float(sum(place.words.sum() for place in places)),
        "indicative": protocol.samples < CLAIM,
        "arms": rows,
    }
    for row in rows:
        name = _ratio_name(brain, row["arm"])
        record |= {f"ratio_{name}": row["ratio"], f"ratio_{name}_interval": row["ratio_interval"]}
    record["shuffled_left_out"] = None
    if "shuffled" not in names:
        alone = "needs another sample" if arms.memories(brain) else "this brain has no memory"
        record["shuffled_left_out"] = alone
    return record


def table(record: dict[str, Any]) -> list[str]:
    """The record in words."""
    lines = [
        f"{record['samples']} passages of {record['length']} tokens, shown again after {record['gap']} others "
        f"(warm-up {record['warm_up']}); {record['words']:.0f} words; word perplexity, brackets: 95 %",
        f"{'':<22}  {'first':>9}  {'again':>9}  again / first               again, over memory off",
    ]
    for row in record["arms"]:
        both = (row["first_word_perplexity"], row["second_word_perplexity"])
        costs = "  ".join(f"{'not told':>9}" if cost is None else f"{cost:9.2f}" for cost in both)
        against = "" if row["over_off"] is None else _bracketed(row["over_off"], row["over_off_interval"])
        ratio = _bracketed(row["ratio"], row["ratio_interval"])
        lines.append(f"{arms.LABELS[row['arm']]:<22}  {costs}  {ratio:<26}  {against}".rstrip())
    real = record["arms"][0]
    if real["over_shuffled"] is not None:
        over = _bracketed(real["over_shuffled"], real["over_shuffled_interval"])
        lines.append(f"again, {arms.LABELS['real']} over {arms.LABELS['shuffled']}: {over}")
    if record["shuffled_left_out"]:
        lines.append(f"{arms.LABELS['shuffled']}: left out, {record['shuffled_left_out']}")
    if record["indicative"]:
        lines.append(f"indicative: a claim needs {CLAIM} samples")
    return lines


def picture(record: dict[str, Any], out: Path) -> Path | None:
    """The ratios, and what tokens cost along the passage; None without matplotlib."""
    rows = record["arms"]
    curves = {f"first, {arms.LABELS[rows[0]['arm']]}": rows[0]["first_nats_by_position"]}
    curves |= {f"again, {arms.LABELS[row['arm']]}": row["second_nats_by_position"] for row in rows}
    ratios = {
        arms.LABELS[row["arm"]]: (row["ratio"], row["ratio_interval"]) for row in rows if row["ratio"] is not None
    }
    return plots.repeated(ratios, curves, record["length"], out)


class Streams:
    """The streams of all samples. Keeps what each held, all memories on, before the second showing: SHUFFLED needs two."""

    def __init__(self, brain: Brain, places: list[Sample]) -> None:
        self.brain, self.places = brain, places
        self.held: dict[int, BrainState] = {}

    def shown(self, arm: str, number: int) -> dict[str, list[float]]:
        """Nats of each token of the passage in both showings."""
        first, state = self._until_second(arm, number)
        return {"first": first.tolist(), "second": self._second(arm, number, state)}

    def shuffled(self, arm: str, number: int) -> dict[str, list[float]]:
        """Nats of the second showing with the memories of the next sample's stream."""
        states = []
        for which in (number, (number + 1) % len(self.places)):
            if which not in self.held:  # its own piece was finished by an earlier run
                self._until_second("real", which)
            states.append(self.held[which])
        return {"second": self._second("real", number, arms.with_memories_of(*states))}

    def _until_second(self, arm: str, number: int) -> tuple[np.ndarray, BrainState]:
        place = self.places[number]
        with evaluating(self.brain):
            stream = Stream(self.brain, arms.ARMS[arm])
            stream.read([self.brain.tokenizer.bos_id, *place.warm_up])
            first = stream.read(place.passage)
            stream.read(place.gap)
        if arm == "real":
            self.held[number] = clone(stream.state)
        return first, stream.state

    def _second(self, arm: str, number: int, state: BrainState) -> list[float]:
        with evaluating(self.brain):
            return Stream(self.brain, arms.ARMS[arm], state).read(self.places[number].passage).tolist()


def _ratio_name(brain: Brain, arm: str) -> str:
    """REAL is named by what it keeps: both memories, the only one, or none."""
    if arm != "real":
        return arm
    on = arms.memories(brain)
    return "both" if len(on) == 2 else on[0] if on else "off"


def _rows(places: list[Sample], shown: dict[str, list[dict[str, list[float]]]], seed: int) -> list[dict[str, Any]]:
    """Of each arm: perplexities of both showings, their ratios, and the second showing over that of OFF and SHUFFLED."""
    names = list(shown)
    first = {arm: [np.array(piece.get("first", ())) for piece in pieces] for arm, pieces in shown.items()}
    first |= {"shuffled": first["real"]}  # the same stream up to there
    second = {arm: [np.array(piece["second"]) for piece in pieces] for arm, pieces in shown.items()}
    columns = [[place.words for place in places], [np.ones(len(place.words)) for place in places]]
    columns += [showing[arm] for arm in names for showing in (first, second)]
    units = [np.stack([column[number] for column in columns], 1) for number in range(len(places))]
    totals = np.concatenate([unit.sum(0, keepdims=True) for unit in units]).sum(0)
    # The value itself and its draws go through the same formulas: column 0 is the value.
    sums = np.concatenate([totals[:, None], statistics.resampled_sums(units, BLOCK, seed=seed)], 1)
    words, tokens = sums[:2]
    of = {arm: (sums[2 + 2 * number], sums[3 + 2 * number]) for number, arm in enumerate(names)}
    rows = []
    for arm in names:
        once, again = of[arm]
        row: dict[str, Any] = {"arm": arm}
        for unit, count in (("word", words), ("token", tokens)):
            row[f"first_{unit}_perplexity"] = statistics.exponential(once[:1] / count[:1])[0]
            row[f"second_{unit}_perplexity"] = statistics.exponential(again[:1] / count[:1])[0]
        row |= _told("ratio", (again - once) / words) | _told("token_ratio", (again - once) / tokens)
        for other in ("off", "shuffled"):
            over = arm != other and other in of
            row |= _told(f"over_{other}", (again - of[other][1]) / words if over else None)
        row["first_nats_by_position"] = _by_position(first[arm])
        row["second_nats_by_position"] = _by_position(second[arm])
        rows.append(row)
    return rows


def _told(name: str, exponents: np.ndarray | None) -> dict[str, Any]:
    """exp of a value [0] and its 95 % interval over the draws [1:]; None where there is none, or none to tell."""
    value, interval = (None, None) if exponents is None else statistics.exponential(exponents)
    return {name: value, f"{name}_interval": interval}


def _by_position(nats: list[np.ndarray]) -> list[float]:
    """Mean nats per token in equal parts of the passage, over the samples."""
    mean = np.mean(nats, 0)
    return [float(part.mean()) for part in np.array_split(mean, min(BINS, len(mean)))]


def _bracketed(value: float | None, interval: statistics.Interval | None) -> str:
    if value is None or interval is None:
        return "not told"
    return f"{value:.4f} [{interval[0]:.4f}, {interval[1]:.4f}]"
