"""The parts of a brain that an ablation takes away, and the same brain without one at equal parameters.

A part is a region, a memory, a kind of layer or a rule; what stands in its place is what the configuration has for that.
Where a brain without a part has other parameters, the width of its feed-forwards is moved until the counts agree within
`TOLERANCE`: a larger model is not to look like a useful part, nor a smaller one like a useless one. differs: what the
width is moved by makes the feed-forwards stronger; a part is compared with feed-forwards of its size, not with nothing.

Controllers differ only while they may not write everything, so they are compared with each other at a quarter of the
writes: ``controller.surprise`` with the whole brain, the others with ``controller.surprise``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

from neuro.brain import Brain
from neuro.config import BrainConfig, apply_sets
from neuro.errors import UsageError, nearest

WHOLE = "whole"
TOLERANCE = 0.005  # of the whole brain's parameters
SHARE = 4  # controllers are compared where they may write one token in so many of what the whole brain may


class Part(NamedTuple):
    """What is taken away."""

    words: str  # what the brain is without it
    sets: Callable[[BrainConfig], list[str]]  # overrides of the brain's configuration
    has: Callable[[BrainConfig], bool]  # whether a brain has it
    against: str = WHOLE  # the arm that it is compared with


def _off(region: str) -> Callable[[BrainConfig], list[str]]:
    return lambda brain: [f"{region}.enabled=false"]


def _on(region: str) -> Callable[[BrainConfig], bool]:
    return lambda brain: getattr(brain, region).enabled


def _all(field: str, kind: str) -> Callable[[BrainConfig], list[str]]:
    return lambda brain: [f"cortex.{field}=" + ",".join([kind] * len(brain.cortex.mixers))]


def _layers(place: int, kind: str) -> Callable[[BrainConfig], bool]:
    """Whether layers have that kind of mixer (0) or feed-forward (1), and another may stand there."""
    return lambda brain: brain.cortex.encoding == "dense" and any(layer[place] == kind for layer in brain.cortex.layers)


def _writes(controller: str) -> Callable[[BrainConfig], list[str]]:
    def sets(brain: BrainConfig) -> list[str]:
        writes = max(1, brain.hippocampus.writes_per_span // SHARE)
        return [f"hippocampus.controller={controller}", f"hippocampus.writes_per_span={writes}"]

    return sets


_EPISODIC = _on("hippocampus")
PARTS: dict[str, Part] = {
    "hippocampus": Part("no episodic memory", _off("hippocampus"), _EPISODIC),
    "procedural": Part("no fast weights", _off("procedural"), lambda brain: brain.fast_rank > 0),
    "cortex.spiking": Part("dense feed-forwards for spiking", _all("feedforwards", "dense"), _layers(1, "spiking")),
    "cortex.window": Part("recurrence in place of windows", _all("mixers", "recurrence"), _layers(0, "window")),
    "cortex.recurrence": Part("windows in place of recurrence", _all("mixers", "window"), _layers(0, "recurrence")),
    "thalamus": Part("no gate and no routing", _off("thalamus"), _on("thalamus")),
    "amygdala": Part("no affect, salience 1/2", _off("amygdala"), _on("amygdala")),
    "endocrine": Part("hormones at rest", _off("endocrine"), _on("endocrine")),
    "controller.surprise": Part("a quarter of the writes: surprise", _writes("surprise"), _EPISODIC),
    "controller.learned": Part("the same: learned", _writes("learned"), _EPISODIC, "controller.surprise"),
    "controller.random": Part("the same: random", _writes("random"), _EPISODIC, "controller.surprise"),
    "controller.periodic": Part("the same: periodic", _writes("periodic"), _EPISODIC, "controller.surprise"),
}


def chosen(names: str | None, brain: BrainConfig) -> list[str]:
    """Parts by their names or the first part of them, with what they are compared with, in the order of `PARTS`.

    Args:
        names: with commas between, in brackets or not; None is all that this brain has.
        brain: that they are taken from.

    Raises:
        UsageError: an unknown part, one that the brain does not have, or none at all.
    """
    if names is None:
        found = [name for name, part in PARTS.items() if part.has(brain)]
    else:
        found = []
        for asked in filter(None, (name.strip() for name in names.strip("[] ").split(","))):
            fits = [name for name in PARTS if name == asked or name.startswith(f"{asked}.")]
            if not fits:
                raise UsageError(f"--parts: got '{asked}', expected a part of the brain.", nearest(asked, [*PARTS]))
            there = [name for name in fits if PARTS[name].has(brain)]
            if not there:
                raise UsageError(f"--parts: got '{asked}', which this brain does not have.", f"Leave out {asked}.")
            found += there
    if not found:
        raise UsageError("--parts: got none, expected a part of the brain.", "Known: " + ", ".join(PARTS) + ".")
    needed = {*found, *(PARTS[name].against for name in found)}
    return [name for name in PARTS if name in needed]


class Arm(NamedTuple):
    """A brain to be trained, and how many parameters it has."""

    brain: BrainConfig
    parameters: int


def arm(name: str, whole: BrainConfig) -> Arm:
    """The brain without the part ``name``, of as many parameters as the whole one; with `WHOLE` that one itself.

    Raises:
        UsageError: no width of the feed-forwards makes the counts agree within `TOLERANCE`.
    """
    target = parameters(whole)
    if name == WHOLE:
        return Arm(whole, target)
    found = _widened(apply_sets(whole, PARTS[name].sets(whole)), target)
    if abs(found.parameters - target) > TOLERANCE * target:
        raise UsageError(
            f"ablation of {name}: got {found.parameters} parameters at best, expected {target} within "
            f"{100 * TOLERANCE:g} %.",
            "Take a larger brain, or leave out this part.",
        )
    return found


def parameters(brain: BrainConfig) -> int:
    """How many a brain has; the tied vocabulary matrix counts once."""
    return sum(Brain(brain).parameter_counts().values())


def _widened(brain: BrainConfig, target: int) -> Arm:
    """The same brain with the width of feed-forwards at which its count is closest to the target."""

    def at(width: int) -> Arm:
        wide = dataclasses.replace(brain, cortex=dataclasses.replace(brain.cortex, feedforward_width=max(1, width)))
        return Arm(wide, parameters(wide))

    width = brain.cortex.feedforward_width
    here = at(width)
    if here.parameters == target or not brain.cortex.layers:
        return here
    # Of a dense feed-forward two thirds of the width count, rounded down: linear in steps of 3.
    slope = (at(width + 3).parameters - here.parameters) / 3
    guess = round(width + (target - here.parameters) / slope)
    return min((at(guess + step) for step in range(-2, 3)), key=lambda arm: abs(arm.parameters - target))
