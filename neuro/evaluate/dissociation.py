"""The suite ``dissociation``: take each memory away and see which of two abilities goes with it.

`profile` (facts in the same words, all kinds and distances) is to be the episodic memory's, `habit` (what a new grammar
decides, showings 2 to 32) the procedural memory's. Each cell is what the whole model loses when one memory is emptied at
every commit: of the facts said word for word, of the form tokens got right, as a share; the other memory stays. A **double
dissociation** is both abilities losing more without their own memory than without the other, with intervals away from
zero. What the table shows is printed whatever it is.

Arms, resampling: `neuro/evaluate/probes.py`. The two abilities are measured on the same seeds, in streams of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from neuro.brain import Brain
from neuro.errors import UsageError
from neuro.evaluate import arms, habit, probes, profile, statistics
from neuro.plots import grouped

LESIONS = {"episodic": "procedural", "procedural": "episodic"}  # what is taken away: the arm that keeps the other


def run(
    brain: Brain,
    raw: str,
    out: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    gap: int = 16384,
    seeds: int = 3,
    episodes: int | None = None,
    seed: int = 0,
    templates: str = "held-out",
) -> dict[str, Any]:
    """Both suites and the table of what each lesion costs -> its JSON record.

    Args:
        raw: the text between the facts of `profile` and their questions.
        out: where finished pieces are kept; those of `profile` and `habit` with the same settings are used again.
        gap, seeds, episodes, templates: of both suites; episodes of None is each suite's own number.

    Raises:
        UsageError: a brain without both memories, or what the two suites refuse.
    """
    if len(arms.memories(brain)) < 2:
        has = ", ".join(arms.memories(brain)) or "none"
        raise UsageError(
            f"dissociation: got a brain whose memories are: {has}; expected an episodic and a procedural one.",
            "Use a model that has both, or the suites profile and habit.",
        )
    shared: dict[str, Any] = {"seeds": seeds, "seed": seed, "templates": templates}
    counts = {"profile": episodes or profile.EPISODES, "habit": episodes or habit.EPISODES}
    facts = profile.measured(brain, raw, out, say, gap=gap, episodes=counts["profile"], **shared)
    rules = habit.measured(brain, out, say, episodes=counts["habit"], **shared)
    extent = {"seeds": seeds, "indicative": seeds < probes.CLAIM, "shuffled_left_out": None}
    return {"gap": gap, **shared, "episodes": counts, **extent, **lesions(facts, rules, seed)}


def lesions(facts: profile.Measured, rules: habit.Measured, seed: int) -> dict[str, Any]:
    """Of each lesion: what is lost of either ability; and of each ability: how much more one lesion costs than the other."""
    chosen = [n for n, q in enumerate(facts.asked) if q.label.endswith(profile.WORDINGS[0])]
    names = ("real", *LESIONS)
    of_facts = [
        np.array([[_told(facts.found[arm][s][e], chosen) for arm in names] for e in range(len(facts.found["real"][s]))])
        for s in range(len(facts.found["real"]))
    ]
    of_rules = [
        np.array(
            [
                [_kept(rules.found[arm][s][e], rules.masks[s][e]) for arm in names]
                for e in range(len(rules.found["real"][s]))
            ]
        )
        for s in range(len(rules.found["real"]))
    ]
    losses, more = [], []
    for ability, right, tables in (("profile", "episodic", of_facts), ("habit", "procedural", of_rules)):
        flat = [table.reshape(len(table), -1) for table in tables]
        total = np.concatenate(flat).sum(0)
        drawn = np.concatenate([total[:, None], statistics.nested_sums(flat, seed=seed)], 1)
        share = {arm: drawn[2 * n] / drawn[2 * n + 1] for n, arm in enumerate(names)}
        cost = {lesion: share["real"] - share[left] for lesion, left in LESIONS.items()}
        losses.append({"ability": ability, **probes.told("whole", share["real"])})
        for lesion, values in cost.items():
            losses[-1] |= probes.told(f"lost_without_{lesion}", values)
        other = next(lesion for lesion in LESIONS if lesion != right)
        more.append({"ability": ability, "carrier": right, **probes.told("more", cost[right] - cost[other])})
    double = all(row["more_interval"][0] > 0 for row in more)
    return {"losses": losses, "carriers": more, "double_dissociation": double}


def table(record: dict[str, Any]) -> list[str]:
    """The record in words."""
    counts = ", ".join(f"{ability} {count}" for ability, count in record["episodes"].items())
    lines = [
        f"{record['seeds']} seeds; episodes of each: {counts}; brackets: 95 %",
        f"{'':<34}  {'whole':<20}  {'lost without':<20}  {'lost without':<20}",
        f"{'':<34}  {'':<20}  {'the episodic':<20}  {'the procedural':<20}",
    ]
    said = {"profile": f"facts word for word, to {record['gap']} tokens", "habit": "what a new grammar decides"}
    for row in record["losses"]:
        cells = [probes.spelled(row, name) for name in ("whole", *(f"lost_without_{lesion}" for lesion in LESIONS))]
        lines.append(f"{said[row['ability']]:<34}  " + "  ".join(f"{cell:<20}" for cell in cells).rstrip())
    for row in record["carriers"]:
        lines.append(f"{row['ability']}: losing the {row['carrier']} memory costs {probes.spelled(row, 'more')} more")
    lines.append(f"double dissociation: {'yes' if record['double_dissociation'] else 'no'}")
    return lines + probes.closing(record)


def picture(record: dict[str, Any], out: Path) -> Path | None:
    """What each lesion costs of each ability; None without matplotlib."""
    bars = {
        f"without the {lesion} memory": [
            (row[f"lost_without_{lesion}"], row[f"lost_without_{lesion}_interval"]) for row in record["losses"]
        ]
        for lesion in LESIONS
    }
    return grouped([row["ability"] for row in record["losses"]], bars, "share lost", out)


def _told(answered: list[probes.Answer], chosen: list[int]) -> list[float]:
    return [float(sum(not any(answered[n].wrong) for n in chosen)), float(len(chosen))]


def _kept(answered: list[probes.Answer], mask: list[bool]) -> list[float]:
    form, _ = habit.form_by_showing(answered, mask)
    wrong, count = form[:, 1:].sum(1)  # the first showing is nobody's ability
    return [float(count - wrong), float(count)]
