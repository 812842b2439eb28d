"""The suite ``dialogue``: what a user said in turn k, asked in turn k + 20.

    User: [chatter] [a fact]          Assistant: [a reply]            turns 1 to 20
    User: [chatter]                   Assistant: [a reply]
    ... turn k + 20 ...               Assistant: Your dog is called ?

A turn is the user's words and the reply; it is read and committed as `neuro run` does at the end of a turn. Every fact is
said once, in a turn of its own, and asked ``gap`` turns later in the assistant's words, on a fork; the dialogue goes on
without the answer. Facts and chatter are of the held-out templates unless asked otherwise; arms and resampling as in
`neuro/evaluate/probes.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from neuro.brain import Brain
from neuro.evaluate import probes
from neuro.evaluate import templates as forms
from neuro.evaluate.parts import Parts
from neuro.evaluate.probes import Episode, Step
from neuro.evaluate.templates import Templates


def run(
    brain: Brain,
    raw: str,
    out: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    gap: int = 20,
    seeds: int = 3,
    episodes: int = 4,
    seed: int = 0,
    templates: str = "held-out",
) -> dict[str, Any]:
    """The suite -> its JSON record. It reads no text.

    Args:
        out: where finished pieces, one of each arm and seed, are kept.
        gap: turns between a fact and its question.
        seeds, episodes: dialogues are episodes of a seed.
        templates: "held-out" or "tuning".

    Raises:
        UsageError: a number below 1, or an unknown set.
    """
    probes.at_least("dialogue", seeds=seeds, episodes=episodes, gap=gap)
    chosen = forms.named(templates)
    settings = {"gap": gap, "seeds": seeds, "episodes": episodes, "seed": seed, "templates": templates}
    parts = Parts(out, "dialogue", brain, "", {"gap": gap, "episodes": episodes, "templates": templates}, say)

    def make(number: int) -> list[Episode]:
        random = np.random.default_rng([number, 202])
        return [made(brain, chosen, gap, random) for _ in range(episodes)]

    found = probes.measure(brain, make, range(seed, seed + seeds), parts)
    first = make(seed)[0]
    asked = [q for step in first for q in step.questions]
    rows = probes.cells([q.label for q in asked], [1 / len(q.firsts) for q in asked], found, seed)
    tokens = sum(len(step.tokens) for step in first) / len(first)
    return (
        settings
        | probes.facts_of(brain, seeds, episodes)
        | {"facts": len(asked), "tokens_per_turn": tokens, "rows": rows}
    )


def table(record: dict[str, Any]) -> list[str]:
    """The record in words."""
    return [
        f"{record['facts']} facts a dialogue, {record['episodes']} dialogues of each of {record['seeds']} seeds, asked "
        f"{record['gap']} turns later, about {record['gap'] * record['tokens_per_turn']:.0f} tokens "
        f"({record['templates']} templates)",
        *probes.lines(record["rows"]),
        *probes.closing(record),
    ]


def picture(record: dict[str, Any], out: Path) -> Path | None:
    """Share word for word of each arm; None without matplotlib."""
    return probes.picture(record["rows"], out)


def made(brain: Brain, chosen: Templates, gap: int, random: np.random.Generator) -> Episode:
    """One dialogue: a turn for every fact, then turns without, until the last one has been asked."""
    encode = brain.tokenizer.encode
    order = [chosen.facts[i] for i in random.permutation(len(chosen.facts))]
    values = [str(random.choice(fact.values)) for fact in order]
    steps: list[Step] = []
    for turn in range(len(order) + gap):
        said = forms.chatter(chosen, random)
        if turn < len(order):
            said += f"\n{order[turn].said} {values[turn]}."
        start = [brain.tokenizer.bos_id] if turn == 0 else []
        before = turn - gap
        questions = []
        if before >= 0:
            fact = order[before]
            cue = f"User: {forms.chatter(chosen, random)}\nAssistant: {fact.told}"
            options = [f" {option}" for option in fact.values]
            questions = [probes.question(brain, f"{gap} turns later", cue, f" {values[before]}", options)]
        # The question comes in place of this turn's first words; the dialogue itself never asks.
        if steps:
            steps[-1] = Step(steps[-1].tokens, questions)
        steps.append(Step([*start, *encode(f"User: {said}\nAssistant: {random.choice(chosen.replies)}\n")], []))
    return steps
