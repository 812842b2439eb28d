"""The suite ``habit``: a new rule, shown 1 to 32 times, and the errors at each showing.

    ... chatter ... Please bring the mirror to the palace. (falcon:palace:mirror)
    ... chatter ... I need the wheel at the garden. (falcon:garden:wheel)

Every episode draws a grammar of its own: the tool's name, the brackets, what joins the parts and their order. A showing is
a request in one of several forms about a thing and a place, and the call that answers it. Errors are counted before it is
learned: a token of the call that is not the likeliest, given the right ones before it. **Form** tokens are those that the
grammar alone decides (brackets, name, joints): the habit. The rest, **arguments**, copy the request.

Between showings lie chatter and at least as many tokens as the working memory's window holds, so that what carries the
rule from one to the next is a memory (or the recurrence, which the arm OFF has too). ``halves`` is the share of the form
errors of the first showing that the eighth still has, the issue's bar for the procedural memory alone: at most 0.5.

Grammars are of the held-out templates unless asked otherwise; arms and resampling as in `neuro/evaluate/probes.py`.
SHUFFLED is the memory of another grammar, shown as often.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from neuro.brain import Brain
from neuro.evaluate import arms, probes, statistics
from neuro.evaluate import templates as forms
from neuro.evaluate.parts import Parts
from neuro.evaluate.probes import Episode, Found, Question, Step
from neuro.evaluate.templates import Templates
from neuro.plots import suites as plots

SHOWINGS = 32
EIGHTH = 8
EPISODES = 4  # grammars of a seed


def run(
    brain: Brain,
    raw: str,
    out: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    seeds: int = 3,
    episodes: int = EPISODES,
    seed: int = 0,
    templates: str = "held-out",
) -> dict[str, Any]:
    """The suite -> its JSON record. It reads no text.

    Args:
        out: where finished pieces, one of each arm and seed, are kept.
        seeds, episodes: every episode of a seed has a grammar of its own.
        templates: "held-out" or "tuning".

    Raises:
        UsageError: a number below 1, or an unknown set.
    """
    settings: dict[str, Any] = {"seeds": seeds, "episodes": episodes, "seed": seed, "templates": templates}
    found, masks = measured(brain, out, say, **settings)
    extent = probes.facts_of(brain, seeds, episodes)
    return {"showings": SHOWINGS} | settings | extent | {"rows": errors(found, masks, seed)}


class Measured(NamedTuple):
    """Answers before anything is summed, and which of their tokens are form."""

    found: Found
    masks: list[list[list[bool]]]  # seeds, episodes, the tokens of all answers


def measured(
    brain: Brain,
    out: Path | None,
    say: Callable[[str], None],
    *,
    seeds: int,
    episodes: int,
    seed: int,
    templates: str,
) -> Measured:
    """The answers of every arm; arguments and errors as `run`."""
    probes.at_least("habit", seeds=seeds, episodes=episodes)
    chosen = forms.named(templates)
    settings = {"showings": SHOWINGS, "episodes": episodes, "templates": templates}
    parts = Parts(out, "habit", brain, "", settings, say)
    shown = {number: grammars(brain, chosen, episodes, number) for number in range(seed, seed + seeds)}
    found = probes.measure(brain, lambda number: [episode for episode, _ in shown[number]], list(shown), parts)
    return Measured(found, [[mask for _, mask in shown[number]] for number in shown])


def table(record: dict[str, Any]) -> list[str]:
    """The record in words: form errors at showings 1, 2, 4, ... and what is left of the first one's at the eighth."""
    shown = [number for number in (1, 2, 4, 8, 16, 32) if number <= record["showings"]]
    told = [
        f"errors in what a new grammar decides, %, at its n-th showing ({record['episodes']} grammars of each of "
        f"{record['seeds']} seeds, {record['templates']} templates); brackets: 95 %",
        f"{'':<22}  "
        + "  ".join(f"{f'n = {number}':<13}" for number in shown)
        + "  left at the 8th      over memory off",
    ]
    for row in record["rows"]:
        curve = [_percent(row["form"][number - 1], row["form_interval"][number - 1]) for number in shown]
        told.append(
            (
                f"{arms.LABELS[row['arm']]:<22}  "
                + "  ".join(f"{cell:<13}" for cell in curve)
                + f"  {probes.spelled(row, 'halves'):<19}  "
                + (probes.spelled(row, "form_over_off") if "form_over_off" in row else "")
            ).rstrip()
        )
    told.append("over memory off: form errors of showings 2 to 32, a share; arguments are in the record")
    return told + probes.closing(record)


def picture(record: dict[str, Any], out: Path) -> Path | None:
    """Errors by showing, of the form and of the arguments; None without matplotlib."""
    x = list(range(1, record["showings"] + 1))
    chosen = [number for number in (1, 2, 4, 8, 16, 32) if number <= record["showings"]]
    panels = {
        title: {
            arms.LABELS[row["arm"]]: [(row[name][n - 1], row[f"{name}_interval"][n - 1]) for n in x if n in chosen]
            for row in record["rows"]
        }
        for title, name in (("what the grammar decides", "form"), ("what the request says", "arguments"))
    }
    return plots.panels(chosen, panels, "showing", "share of tokens wrong", out)


def grammars(brain: Brain, chosen: Templates, episodes: int, seed: int) -> list[tuple[Episode, list[bool]]]:
    """Episodes of a seed, each with the mask of its answers' tokens over all showings: which of them are form."""
    random = np.random.default_rng([seed, 303])
    return [_episode(brain, chosen, random) for _ in range(episodes)]


def _episode(brain: Brain, chosen: Templates, random: np.random.Generator) -> tuple[Episode, list[bool]]:
    encode = brain.tokenizer.encode
    tool, joint = str(random.choice(chosen.tools)), str(random.choice(chosen.joints))
    opening, closing = chosen.brackets[random.integers(len(chosen.brackets))]
    swapped = bool(random.integers(2))
    steps: list[Step] = []
    mask: list[bool] = []
    before = [brain.tokenizer.bos_id]
    for _ in range(SHOWINGS):
        thing, place = str(random.choice(chosen.things)), str(random.choice(chosen.places))
        request = str(random.choice(chosen.orders)).format(thing=thing, place=place)
        first, second = (thing, place) if swapped else (place, thing)
        pieces = [(f"{opening}{tool}{joint}", True), (first, False), (joint, True), (second, False), (closing, True)]
        answer = [(token, form) for piece, form in pieces for token in encode(piece)]
        call = [token for token, _ in answer]
        # Only a token that can be wrong for want of the rule: all of the form.
        asked = Question("call", encode(request), call, call[:1])
        steps.append(Step([*before, *_between(brain, chosen, random)], [asked]))
        mask += [form for _, form in answer]
        before = [*asked.cue, *call, *encode("\n")]
    return steps, mask


def _between(brain: Brain, chosen: Templates, random: np.random.Generator) -> list[int]:
    """Chatter that is longer than the working memory's window."""
    tokens: list[int] = []
    while len(tokens) <= brain.config.cortex.window:
        tokens += brain.tokenizer.encode(forms.chatter(chosen, random) + "\n")
    return tokens


def errors(found: Found, masks: Sequence[Sequence[Sequence[bool]]], seed: int) -> list[dict[str, Any]]:
    """Of each arm: the share of wrong tokens at every showing, of form and of arguments, and what the eighth has left.

    Args:
        found: answers of every arm.
        masks: of each seed and episode, over the tokens of all its answers: form or not.
        seed: of the bootstrap.
    """
    names = list(found)
    groups = []
    for number in range(len(masks)):
        tables = [
            [
                np.concatenate(form_by_showing(answered, mask)).ravel()
                for answered, mask in zip(found[arm][number], masks[number], strict=True)
            ]
            for arm in names
        ]
        groups.append(np.concatenate(tables, 1))  # [episodes, arms x 4 x showings]
    total = np.concatenate(groups).sum(0)
    drawn = np.concatenate([total[:, None], statistics.nested_sums(groups, seed=seed)], 1)
    shaped = drawn.reshape(len(names), 4, -1, drawn.shape[1])
    rows = []
    later = {arm: shaped[n, 0, 1:].sum(0) / shaped[n, 1, 1:].sum(0) for n, arm in enumerate(names)}
    for number, arm in enumerate(names):
        form_wrong, form, argument_wrong, argument = shaped[number]
        row: dict[str, Any] = {"arm": arm}
        for name, values in (("form", form_wrong / form), ("arguments", argument_wrong / argument)):
            row[name] = values[:, 0].tolist()
            row[f"{name}_interval"] = [statistics.interval(draws) for draws in values[:, 1:]]
        with np.errstate(divide="ignore", invalid="ignore"):
            row |= probes.told("halves", (form_wrong[EIGHTH - 1] / form[EIGHTH - 1]) / (form_wrong[0] / form[0]))
        row |= probes.told("form_later", later[arm])
        if "off" in names and arm != "off":
            row |= probes.told("form_over_off", later[arm] - later["off"])
        rows.append(row)
    return rows


def form_by_showing(answered: Sequence[probes.Answer], mask: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
    """(wrong, all) tokens of every showing [2, showings]: of the form, and of the arguments."""
    counts, start = np.zeros((2, 2, len(answered))), 0
    for number, answer in enumerate(answered):
        wrong = np.array(answer.wrong, dtype=bool)
        form = np.array(mask[start : start + len(wrong)])
        start += len(wrong)
        for kind, chosen in enumerate((form, ~form)):
            counts[kind, :, number] = (wrong & chosen).sum(), chosen.sum()
    return counts[0], counts[1]


def _percent(value: float, interval: tuple[float, float]) -> str:
    return f"{100 * value:.0f} [{100 * interval[0]:.0f}, {100 * interval[1]:.0f}]"
