"""Chips as data, and whether spiking populations fit on them.

A population's neurons sit on source cores; its synapses sit where their targets are accumulated. A target keeps all its
inputs on one core, so a fan-in that no core can hold does not fit at all.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

from neuro.errors import FormatError, UsageError, nearest
from neuro.workload import Population

SCHEMA = "neuro.chip/1"
FOLDER = Path(__file__).parent
LIMITS = (
    "cores",
    "compartments_per_core",
    "synapse_bits_per_core",
    "in_axons_per_core",
    "out_axons_per_core",
    "weight_bits",
)


@dataclasses.dataclass(frozen=True)
class Chip:
    """A chip's hard limits."""

    chip: str
    name: str
    limits: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Placed:
    """Cores one population needs."""

    name: str
    source_cores: int
    target_cores: int
    problem: str  # why it does not fit at all; empty when it does


@dataclasses.dataclass(frozen=True)
class Fit:
    """Cores and chips for all populations."""

    chip: str
    cores: int
    chips: int  # 0 when something does not fit
    verdict: str
    rows: tuple[Placed, ...]


def load(name: str) -> Chip:
    """A chip by name.

    Raises:
        UsageError: unknown, with the nearest.
        FormatError: a limit is missing, not a positive integer, or has no source.
    """
    known = sorted(path.stem for path in FOLDER.glob("*.json"))
    if name not in known:
        raise UsageError(f"--chip: unknown chip '{name}'.", nearest(name, known))
    path = FOLDER / f"{name}.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    limits = data.get("limits", {})
    for key in LIMITS:
        row = limits.get(key, {})
        if not isinstance(row.get("value"), int) or row["value"] < 1 or not row.get("source", {}).get("paper"):
            raise FormatError(f"{path}: limit '{key}' has no value or no source.", "Give both in the chip's file.")
    return Chip(data["chip"], data["name"], {key: limits[key]["value"] for key in LIMITS})


def fit(populations: Sequence[Population], chip: Chip) -> Fit:
    """How many cores and chips the populations need, or why they do not fit."""
    rows = tuple(_place(population, chip) for population in populations)
    cores = sum(row.source_cores + row.target_cores for row in rows)
    chips = math.ceil(cores / chip.limits["cores"])
    broken = [row for row in rows if row.problem]
    if broken:
        return Fit(chip.chip, cores, 0, f"does not fit: {broken[0].name}: {broken[0].problem}", rows)
    if not rows:
        return Fit(chip.chip, 0, 0, "nothing to place: no spiking population", rows)
    noun = "chip" if chips == 1 else "chips"
    return Fit(chip.chip, cores, chips, f"needs {chips} {noun} ({cores} of {chips * chip.limits['cores']} cores)", rows)


def _place(population: Population, chip: Chip) -> Placed:
    limits = chip.limits
    if population.weight_bits > limits["weight_bits"]:
        return Placed(population.name, 0, 0, f"{population.weight_bits}-bit weights, at most {limits['weight_bits']}")
    if population.neurons > limits["in_axons_per_core"]:
        problem = f"a target has {population.neurons} inputs, a core takes {limits['in_axons_per_core']}"
        return Placed(population.name, 0, 0, problem)
    column_bits = population.neurons * population.weight_bits
    columns = min(limits["synapse_bits_per_core"] // column_bits, limits["compartments_per_core"])
    if columns == 0:
        problem = f"one target's {column_bits} synapse bits exceed a core's {limits['synapse_bits_per_core']}"
        return Placed(population.name, 0, 0, problem)
    targets = math.ceil(population.fan_out / columns)
    if targets > limits["out_axons_per_core"]:
        return Placed(population.name, 0, targets, f"a neuron would need {targets} axons")
    per_core = min(limits["compartments_per_core"], limits["out_axons_per_core"] // targets)
    return Placed(population.name, math.ceil(population.neurons / per_core), targets, "")
