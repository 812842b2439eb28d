"""Questions put to a running stream: what the suites `profile`, `dialogue`, `habit` and `babi` share.

An episode is a stream of steps: text that is read and committed, then questions about the stream so far. Each question is
asked on a fork, so that no answer changes what a later question finds; an episode that is to learn an answer reads it in
its next step. Of an answer is kept which of its tokens were not the likeliest (given the right ones before them, so none
wrong means that greedy decoding says it word for word), whether its first token beat those of every other answer that
would fit, and its nats.

Arms: as `neuro/evaluate/arms.py`. SHUFFLED reads a question with the memories that the next episode's stream of the same
seed holds at the same step, all memories on: as old, of the same form, of other facts.

The unit of resampling is the episode, seeds are the outer level, and all arms of a draw share both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from neuro import plots, recall
from neuro.brain import Brain
from neuro.errors import UsageError
from neuro.evaluate import arms, statistics
from neuro.evaluate.parts import Parts
from neuro.evaluate.stream import Stream, evaluating
from neuro.state import BrainState

CLAIM = 5  # seeds from which on a result is more than indicative
SHOWN = ("real", "episodic", "procedural", "shuffled", "off")  # order of a table


class Question(NamedTuple):
    """Asked after what its stream has read."""

    label: str  # the condition it is counted under
    cue: list[int]
    answer: list[int]
    firsts: list[int]  # the first token of every answer that would fit, the right one among them
    support: Sequence[tuple[int, int]] = ()  # tokens [start, stop) of the stream that say the answer


class Step(NamedTuple):
    """Tokens that are read (the span ends with them), and what is asked then."""

    tokens: list[int]
    questions: list[Question]


class Answer(NamedTuple):
    """How one question was answered."""

    wrong: list[int]  # of each token of the answer: 1 where another token was likelier
    first: int  # 1: its first token was the likeliest of `Question.firsts`
    nats: float  # surprise at the whole answer
    support: float | None = (
        None  # share of what the episodic memory recalls at the cue's end that is of `Question.support`
    )


Episode = list[Step]
Found = dict[str, list[list[list[Answer]]]]  # of each arm: seeds, episodes, questions


def question(brain: Brain, label: str, cue: str, answer: str, options: Sequence[str]) -> Question:
    """A question in the model's tokens; each answer brings its own space."""
    encode = brain.tokenizer.encode
    return Question(label, encode(cue), encode(answer), sorted({encode(option)[0] for option in (*options, answer)}))


def ask(brain: Brain, state: BrainState, kept: Sequence[str], asked: Question) -> Answer:
    """The answer from this state, which stays as it is.

    Args:
        state: after a commit.
        kept: memories that a commit inside the question keeps.
    """
    stream = Stream(brain, kept, state)
    logits = stream.predict(asked.cue)[-1:]
    support = None
    if asked.support and "episodic" in kept and brain.config.hippocampus.enabled:
        read = recall.explain(brain, stream.state, brain.config.hippocampus.top_k)
        support = sum(r.share for r in read if any(start <= r.origin < stop for start, stop in asked.support))
    if len(asked.answer) > 1:
        logits = torch.cat([logits, stream.predict(asked.answer[:-1])])
    logits = logits.double()
    answer = torch.tensor(asked.answer, device=logits.device)
    firsts = logits[0, torch.tensor(asked.firsts, device=logits.device)]
    return Answer(
        (logits.argmax(-1) != answer).int().tolist(),
        int(asked.firsts[int(firsts.argmax())] == asked.answer[0]),
        float(F.cross_entropy(logits, answer, reduction="sum")),
        support,
    )


def answers(brain: Brain, episodes: Sequence[Episode], arm: str) -> dict[str, list[list[Answer]]]:
    """Every episode's answers under an arm; under REAL also under SHUFFLED, where there is another episode.

    The streams advance together, step by step, so only their latest states are held.
    """
    kept = arms.ARMS[arm]
    names = [arm, "shuffled"] if arm == "real" and len(episodes) > 1 and arms.memories(brain) else [arm]
    found: dict[str, list[list[Answer]]] = {name: [[] for _ in episodes] for name in names}
    with evaluating(brain):
        streams = [Stream(brain, kept) for _ in episodes]
        for steps in zip(*episodes, strict=True):
            for stream, step in zip(streams, steps, strict=True):
                if step.tokens:
                    stream.read(step.tokens)
            for number, step in enumerate(steps):
                own, other = streams[number].state, streams[(number + 1) % len(streams)].state
                for asked in step.questions:
                    found[arm][number].append(ask(brain, own, kept, asked))
                    if "shuffled" in found:
                        swapped = arms.with_memories_of(own, other)
                        found["shuffled"][number].append(ask(brain, swapped, kept, asked._replace(support=())))
    return found


def measure(
    brain: Brain,
    make: Callable[[int], list[Episode]],
    seeds: Sequence[int],
    parts: Parts,
    only: Sequence[str] | None = None,
) -> Found:
    """The answers of all arms and seeds.

    Args:
        make: the episodes of a seed; the same for the same seed.
        parts: keeps each seed's arm when it is done.
        only: these arms of the brain's; None is all.
    """
    found: Found = {}
    for arm in [arm for arm in arms.of(brain) if only is None or arm in only]:
        for number, seed in enumerate(seeds):
            piece = parts.get(
                f"{arm}-{seed}",
                f"{arms.LABELS[arm]}, seed {number + 1} of {len(seeds)}",
                lambda arm=arm, seed=seed: answers(brain, make(seed), arm),  # type: ignore[misc]
            )
            for name, episodes in piece.items():
                rows = [[Answer(*row) for row in episode] for episode in episodes]
                found.setdefault(name, []).append(rows)
    return {arm: found[arm] for arm in SHOWN if arm in found}


def cells(labels: Sequence[str], chances: Sequence[float], found: Found, seed: int) -> list[dict[str, Any]]:
    """Of each condition and arm: word for word, first choice, nats and their intervals, and what is over OFF and SHUFFLED.

    Args:
        labels: of an episode's questions, the same in every episode.
        chances: of naming the right first token by a guess, of an episode's questions (their mean is reported).
        found: answers of every arm.
        seed: of the bootstrap.
    """
    rows = []
    for label in dict.fromkeys(labels):
        chosen = [number for number, name in enumerate(labels) if name == label]
        chance = float(np.mean([chances[number] for number in chosen]))
        tables = {
            arm: [
                np.array([_sums([episode[number] for number in chosen]) for episode in episodes], dtype=float)
                for episodes in seeds
            ]
            for arm, seeds in found.items()
        }
        joined = [np.concatenate(groups, 1) for groups in zip(*tables.values(), strict=True)]  # [episodes, 4 arms]
        total = np.concatenate(joined).sum(0)
        drawn = np.concatenate([total[:, None], statistics.nested_sums(joined, seed=seed)], 1)
        of = {arm: drawn[4 * number + 1 : 4 * number + 4] / drawn[4 * number] for number, arm in enumerate(found)}
        for arm, (exact, first, nats) in of.items():
            row: dict[str, Any] = {"label": label, "arm": arm, "questions": int(total[0]), "chance": chance}
            row |= told("exact", exact) | told("first", first) | told("nats", nats)
            for other in ("off", "shuffled"):
                if other in of and arm not in ("off", "shuffled"):
                    row |= told(f"exact_over_{other}", exact - of[other][0])
                    row |= told(f"nats_over_{other}", nats - of[other][2])
            rows.append(row)
    return rows


def _sums(answered: Sequence[Answer]) -> list[float]:
    return [
        len(answered),
        sum(not any(answer.wrong) for answer in answered),
        sum(answer.first for answer in answered),
        sum(answer.nats for answer in answered),
    ]


def told(name: str, values: np.ndarray) -> dict[str, Any]:
    """A value [0] and the 95 % interval of its draws [1:]; draws without a value (0/0) are left out."""
    draws = values[1:][np.isfinite(values[1:])]
    value = float(values[0])
    interval = statistics.interval(draws) if len(draws) else None
    return {name: value if math.isfinite(value) else None, f"{name}_interval": interval}


def lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Tables in percent, brackets 95 %: right word for word with what the memories add, right first choice, nats."""
    names = list(dict.fromkeys(row["arm"] for row in rows))
    by_label: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        by_label.setdefault(row["label"], {})[row["arm"]] = row
    wide = max(map(len, by_label))
    heads = [HEADS[name] for name in names]
    added = [f"exact_over_{other}" for other in ("off", "shuffled") if f"exact_over_{other}" in rows[0]]
    over = [f"on - {HEADS[name.removeprefix('exact_over_')]}" for name in added]
    told = [f"{'word for word, %':<{wide}}  {_columns([*heads, *over])}"]
    for label, row in by_label.items():
        cells = [_percent(row[name], "exact") for name in names] + [_percent(row[names[0]], name) for name in added]
        told.append(f"{label:<{wide}}  {_columns(cells)}")
    told.append(f"{'first choice, % (nats)':<{wide}}  {_columns([*heads, 'chance'])}")
    for label, row in by_label.items():
        cells = [f"{_percent(row[name], 'first')} ({row[name]['nats']:.1f})" for name in names]
        chance = f"{100 * row[names[0]]['chance']:.0f}"
        told.append(f"{label:<{wide}}  {_columns([*cells, chance])}")
    return [line.rstrip() for line in told]


HEADS = {"real": "on", "episodic": "episodic", "procedural": "procedural", "shuffled": "another's", "off": "off"}


def _columns(cells: Sequence[str]) -> str:
    return "  ".join(f"{cell:<20}" for cell in cells)


def _percent(row: dict[str, Any], name: str) -> str:
    if row[f"{name}_interval"] is None:
        return "none" if row[name] is None else f"{100 * row[name]:.0f}"
    low, high = row[f"{name}_interval"]
    return f"{100 * row[name]:.0f} [{100 * low:.0f}, {100 * high:.0f}]"


def spelled(row: dict[str, Any], name: str) -> str:
    """A value of a row with its interval."""
    if row[name] is None:
        return "none"
    if row[f"{name}_interval"] is None:
        return f"{row[name]:.2f}"
    low, high = row[f"{name}_interval"]
    return f"{row[name]:.2f} [{low:.2f}, {high:.2f}]"


def closing(record: dict[str, Any]) -> list[str]:
    """The table's last lines: what stands for how much, and what is missing."""
    told = []
    if record["shuffled_left_out"]:
        told.append(f"{arms.LABELS['shuffled']}: left out, {record['shuffled_left_out']}")
    if record["indicative"]:
        told.append(f"indicative: a claim needs {CLAIM} seeds, this has {record['seeds']}")
    return told


def facts_of(brain: Brain, seeds: int, episodes: int) -> dict[str, Any]:
    """What every record of these suites says about its extent."""
    alone = None
    if not arms.memories(brain):
        alone = "this brain has no memory"
    elif episodes < 2:
        alone = "needs another episode"
    return {"seeds": seeds, "episodes": episodes, "indicative": seeds < CLAIM, "shuffled_left_out": alone}


def at_least(suite: str, least: int = 1, **numbers: int) -> None:
    """Raises UsageError for a number of items below ``least``."""
    for name, value in numbers.items():
        if value < least:
            raise UsageError(
                f"{suite}: got {value} {name}, expected at least {least}.", f"Leave out --{name}, or give more."
            )


def picture(rows: Sequence[dict[str, Any]], out: Path) -> Path | None:
    """Share of answers that were right word for word, by condition and arm; None without matplotlib."""
    places = list(dict.fromkeys(row["label"] for row in rows))
    bars = {
        arms.LABELS[arm]: [
            (row["exact"], row["exact_interval"] or (row["exact"],) * 2) for row in rows if row["arm"] == arm
        ]
        for arm in dict.fromkeys(row["arm"] for row in rows)
    }
    return plots.grouped(places, bars, "share of answers word for word", out)
