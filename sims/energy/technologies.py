"""Technology tables: energy constants as data, each with value, interval, unit, basis, evidence and source."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from neuro.errors import FormatError, UsageError, nearest

SCHEMA = "neuro.technology/1"
FOLDER = Path(__file__).parent / "tables"
UNITS = ("pJ",)
BASES = ("PerTerm", "AllIn")
EVIDENCE = ("silicon", "silicon_fit", "presilicon", "vendor", "simulated", "textbook")


@dataclasses.dataclass(frozen=True)
class Constant:
    """One energy per event. ``lo`` and ``hi`` are its 5 and 95 % points."""

    id: str  # e.g. "loihi1.synop"
    platform: str
    kind: str  # what is counted: synaptic_op, neuron_update, spike, message, mac
    value: float
    lo: float
    hi: float
    unit: str
    node_nm: float | None
    vdd: float | None
    basis: str  # PerTerm: other terms must be added; AllIn: nothing may be added on top
    includes: tuple[str, ...]
    evidence: str
    source: dict[str, Any]
    note: str

    @property
    def sigma(self) -> float:
        """Spread of ln(value): the interval of a log-normal holds 90 %."""
        return math.log(self.hi / self.lo) / 3.29


@dataclasses.dataclass(frozen=True)
class Technology:
    """A platform's constants, the spread that all of them share, and what it has no price for."""

    platform: str
    name: str
    setup_sigma: float
    setup_source: str
    constants: tuple[Constant, ...]
    unpriced: tuple[tuple[str, str], ...]  # (term, why)

    def constant(self, kind: str) -> Constant:
        """The constant of a kind of event."""
        return next(c for c in self.constants if c.kind == kind)


def load(path: Path) -> Technology:
    """Read and check one table.

    Raises:
        FormatError: another schema, a missing key, a source that is empty, or lo <= value <= hi broken.
    """
    again = "Correct the table; every constant needs its source."
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        constants = tuple(Constant(**row | {"includes": tuple(row["includes"])}) for row in data["constants"])
        unpriced = tuple((row["id"], row["why"]) for row in data["unpriced"])
        technology = Technology(
            data["platform"], data["name"], data["setup_sigma"], data["setup_source"], constants, unpriced
        )
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise FormatError(f"{path}: not a technology table ({error}).", again) from error
    if data.get("schema") != SCHEMA:
        raise FormatError(f"{path}: got schema {data.get('schema')!r}, expected '{SCHEMA}'.", again)
    for constant in constants:
        ordered = 0 < constant.lo <= constant.value <= constant.hi
        known = constant.unit in UNITS and constant.basis in BASES and constant.evidence in EVIDENCE
        if not (ordered and known and constant.source.get("paper") and constant.source.get("url")):
            raise FormatError(f"{path}: constant '{constant.id}' breaks the table's rules.", again)
    return technology


def technologies() -> dict[str, Technology]:
    """Every platform there is a table for."""
    found = [load(path) for path in sorted(FOLDER.glob("*.json"))]
    return {technology.platform: technology for technology in found}


def why(term: str) -> str:
    """Value, interval, source and grade of one constant, in words.

    Raises:
        UsageError: an unknown term, with the nearest one.
    """
    known = {constant.id: constant for t in technologies().values() for constant in t.constants}
    if term not in known:
        raise UsageError(f"neuro energy why: unknown term '{term}'.", nearest(term, list(known)))
    c = known[term]
    lines = [
        f"{c.id}: {c.value:g} {c.unit} per {c.kind.replace('_', ' ')}, 90 % between {c.lo:g} and {c.hi:g}",
        f"  includes  {', '.join(c.includes)}",
        f"  basis     {c.basis}",
        f"  evidence  {c.evidence}",
        f"  source    {', '.join(str(v) for v in c.source.values() if v)}",
        f"  note      {c.note}",
    ]
    return "\n".join(lines)
