"""The suite ``profile``: facts a user states once, asked again after 1k to 64k tokens of another text.

    <bos> [20 facts] [256 tokens of the text] [some facts again: changed, or contradicted] [the text] ? [the text] ? ...

Three kinds of fact: **stated** once; **updated**, where the user says a new value, which counts from then on;
**contradicted**, where somebody else says another value, which never counts. Every fact is asked at every distance, in
the **same words** (the statement up to its value, on a line of its own both times) and **reworded**. The distance counts
tokens of the text since the last statement. Answers that would fit: the values of that form.

The text in between is a file. Items are of the held-out templates (`neuro/evaluate/templates.py`) unless asked otherwise.
What an arm is, and what is resampled: `neuro/evaluate/probes.py`. differs: the issue's bar (exact match at 16k tokens) is
meant for questions in the same words; rewording is reported beside it because a memory that finds only the same words is
a memory of word sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from neuro.brain import Brain
from neuro.errors import UsageError
from neuro.evaluate import arms, probes
from neuro.evaluate import templates as forms
from neuro.evaluate.parts import Parts
from neuro.evaluate.probes import Episode, Found, Question, Step
from neuro.evaluate.templates import Fact, Templates
from neuro.plots import suites as plots

NEAREST, FACTOR = 1024, 4  # tokens of the first distance; each further one is so many times as far
PAUSE = 256  # tokens between the facts and what changes them
EPISODES = 2  # users of a seed
KINDS = {"stated": 0.6, "updated": 0.2, "contradicted": 0.2}  # shares of the facts
WORDINGS = ("same words", "reworded")


def run(
    brain: Brain,
    raw: str,
    out: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    gap: int = 16384,
    seeds: int = 3,
    episodes: int = EPISODES,
    seed: int = 0,
    templates: str = "held-out",
) -> dict[str, Any]:
    """The suite -> its JSON record.

    Args:
        raw: the text between facts and questions.
        out: where finished pieces, one of each arm and seed, are kept.
        gap: the largest distance, tokens.
        seeds: how many; from ``seed`` on.
        episodes: users of each seed, each with a place of the text.
        templates: "held-out" or "tuning".

    Raises:
        UsageError: a number below 1, an unknown set, or a text that is too short.
    """
    settings: dict[str, Any] = {"gap": gap, "seeds": seeds, "episodes": episodes, "seed": seed, "templates": templates}
    asked, found = measured(brain, raw, out, say, **settings)
    rows = probes.cells([q.label for q in asked], [1 / len(q.firsts) for q in asked], found, seed)
    extent = probes.facts_of(brain, seeds, episodes)
    facts = len(forms.named(templates).facts)
    return settings | extent | {"facts": facts, "distances": distances(gap), "rows": rows}


class Measured(NamedTuple):
    """Answers before anything is summed."""

    asked: list[Question]  # of one episode; all have the same labels in the same order
    found: Found


def measured(
    brain: Brain,
    raw: str,
    out: Path | None,
    say: Callable[[str], None],
    *,
    gap: int,
    seeds: int,
    episodes: int,
    seed: int,
    templates: str,
) -> Measured:
    """The answers of every arm; arguments and errors as `run`."""
    probes.at_least("profile", seeds=seeds, episodes=episodes, gap=gap)
    chosen = forms.named(templates)
    ids = brain.tokenizer.encode(raw)
    far = distances(gap)
    need = episodes * (PAUSE + far[-1])
    if len(ids) < need:
        raise UsageError(
            f"profile: got a text of {len(ids)} tokens, expected at least {need} ({episodes} episodes of {PAUSE} + "
            f"{far[-1]}).",
            "Give a longer text, a smaller --gap or fewer --episodes.",
        )
    settings = {"gap": gap, "episodes": episodes, "templates": templates}
    parts = Parts(out, "profile", brain, raw, settings, say)

    def make(number: int) -> list[Episode]:
        return made(brain, ids, far, episodes, number, chosen)

    found = probes.measure(brain, make, range(seed, seed + seeds), parts)
    return Measured([q for step in make(seed)[0] for q in step.questions], found)


def table(record: dict[str, Any]) -> list[str]:
    """The record in words."""
    far = ", ".join(map(str, record["distances"]))
    return [
        f"{record['facts']} facts of {record['episodes']} users and {record['seeds']} seeds, stated once, asked after "
        f"{far} tokens of another text ({record['templates']} templates); brackets: 95 %",
        *probes.lines(record["rows"]),
        *probes.closing(record),
    ]


def picture(record: dict[str, Any], out: Path) -> Path | None:
    """Share word for word by distance, one panel for each kind and wording; None without matplotlib."""
    panels = {}
    for kind in KINDS:
        for wording in WORDINGS:
            panels[f"{kind}, {wording}"] = {
                arms.LABELS[arm]: [
                    (row["exact"], row["exact_interval"])
                    for row in record["rows"]
                    if row["arm"] == arm and row["label"].endswith(f"{kind}, {wording}")
                ]
                for arm in dict.fromkeys(row["arm"] for row in record["rows"])
            }
    panels = {name: curves for name, curves in panels.items() if any(curves.values())}
    return plots.panels(record["distances"], panels, "tokens of another text", "share word for word", out)


def distances(gap: int) -> list[int]:
    """Tokens of another text after which is asked: up to ``gap``, which is the last."""
    found = [NEAREST]
    while found[-1] * FACTOR < gap:
        found.append(found[-1] * FACTOR)
    return [*(far for far in found if far < gap), gap]


def made(
    brain: Brain, ids: Sequence[int], far: Sequence[int], episodes: int, seed: int, chosen: Templates
) -> list[Episode]:
    """The episodes of a seed: each a user with values of their own, over a place of the text that no other one reads."""
    random = np.random.default_rng([seed, 101])
    each = PAUSE + far[-1]
    spare = int(random.integers(0, len(ids) - episodes * each + 1))
    return [
        _episode(brain, ids[spare + n * each : spare + (n + 1) * each], far, random, chosen) for n in range(episodes)
    ]


def _episode(
    brain: Brain, between: Sequence[int], far: Sequence[int], random: np.random.Generator, chosen: Templates
) -> Episode:
    encode = brain.tokenizer.encode
    order = [chosen.facts[i] for i in random.permutation(len(chosen.facts))]
    values = [[str(v) for v in random.permutation(fact.values)[:2]] for fact in order]
    kinds = _kinds(len(order))
    said = "\n".join(f"{fact.said} {own}." for fact, (own, _) in zip(order, values, strict=True))
    later, asked = [], []
    for fact, (own, other), kind in zip(order, values, kinds, strict=True):
        if kind != "stated":
            before = str(random.choice(chosen.changed if kind == "updated" else chosen.wrongly))
            later.append(f"{before}\n{fact.said} {other}.")
        asked.append((fact, other if kind == "updated" else own, kind))
    steps = [
        Step([brain.tokenizer.bos_id, *encode(f"{said}\n")], []),
        Step([*between[:PAUSE], *encode("\n" + "\n".join(later) + "\n")], []),
    ]
    read = PAUSE
    for distance in far:
        until = PAUSE + distance
        questions = [_question(brain, distance, wording, *item) for wording in WORDINGS for item in asked]
        steps.append(Step(list(between[read:until]), questions))
        read = until
    return steps


def _question(brain: Brain, distance: int, wording: str, fact: Fact, value: str, kind: str) -> Question:
    cue = fact.said if wording == WORDINGS[0] else fact.reworded
    label = f"{distance}: {kind}, {wording}"
    return probes.question(brain, label, f"\n{cue}", f" {value}", [f" {option}" for option in fact.values])


def _kinds(count: int) -> list[str]:
    """The kind of each of so many facts, in their shares."""
    of = {kind: round(share * count) for kind, share in KINDS.items() if kind != "stated"}
    return ["stated"] * (count - sum(of.values())) + [kind for kind, number in of.items() for _ in range(number)]
