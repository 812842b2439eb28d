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
EVIDENCE = ("silicon", "silicon_fit", "presilicon", "vendor", "simulated", "textbook")  # strongest first
Z_90 = 3.29  # standard deviations between the 5 and the 95 % point of a normal distribution


@dataclasses.dataclass(frozen=True)
class Constant:
    """One energy per event. Draws have ``value`` as median, and a 90 % interval as wide as ``hi / lo``."""

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
        """Standard deviation of ln(value)."""
        return math.log(self.hi / self.lo) / Z_90


@dataclasses.dataclass(frozen=True)
class Setup:
    """The log-normal factor that all constants of a platform share: another board, another software version."""

    sigma: float
    source: dict[str, Any]
    note: str


@dataclasses.dataclass(frozen=True)
class Unpriced:
    """A cost that exists and has no price here, so a total without it is a lower bound."""

    id: str
    why: str
    source: dict[str, Any]  # of the numbers in ``why``


@dataclasses.dataclass(frozen=True)
class Technology:
    """A platform's constants, the factor that all of them share, and what it has no price for."""

    platform: str
    name: str
    setup: Setup
    constants: tuple[Constant, ...]
    unpriced: tuple[Unpriced, ...]

    @property
    def weakest_evidence(self) -> str:
        """The weakest grade among the constants."""
        return max((c.evidence for c in self.constants), key=EVIDENCE.index)


def load(path: Path) -> Technology:
    """Read and check one table.

    Raises:
        FormatError: another schema, a missing key, a source that is empty, lo <= value <= hi broken, or an all-in
            constant beside others.
    """
    again = "Correct the table; every constant needs its source."
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        technology = Technology(
            data["platform"],
            data["name"],
            Setup(**data["setup"]),
            tuple(Constant(**row | {"includes": tuple(row["includes"])}) for row in data["constants"]),
            tuple(Unpriced(**row) for row in data["unpriced"]),
        )
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise FormatError(f"{path}: not a technology table ({error}).", again) from error
    if data.get("schema") != SCHEMA:
        raise FormatError(f"{path}: got schema {data.get('schema')!r}, expected '{SCHEMA}'.", again)
    for constant in technology.constants:
        ordered = 0 < constant.lo <= constant.value <= constant.hi < math.inf
        known = constant.unit in UNITS and constant.basis in BASES and constant.evidence in EVIDENCE
        if not (ordered and known and constant.source.get("paper") and constant.source.get("url")):
            raise FormatError(f"{path}: constant '{constant.id}' breaks the table's rules.", again)
        if constant.basis == "AllIn" and len(technology.constants) > 1:
            # Total power divided by events already holds every other term: a sum would count them twice.
            raise FormatError(
                f"{path}: '{constant.id}' is AllIn beside other constants.", "Keep it alone in its table."
            )
    sources = {"setup": technology.setup.source} | {row.id: row.source for row in technology.unpriced}
    for name, source in sources.items():
        if not source.get("paper"):
            raise FormatError(f"{path}: '{name}' has no source.", again)
    return technology


def technologies() -> dict[str, Technology]:
    """Every platform there is a table for."""
    found = [load(path) for path in sorted(FOLDER.glob("*.json"))]
    return {technology.platform: technology for technology in found}


def why(term: str) -> str:
    """What is known about one term, in words: a constant, a platform's common "setup" factor, or an unpriced cost.

    Raises:
        UsageError: an unknown term, with the nearest one.
    """
    known: dict[str, list[str]] = {}
    for technology in technologies().values():
        known |= {c.id: _constant_lines(c) for c in technology.constants}
        known[f"{technology.platform}.setup"] = _setup_lines(technology)
        known |= {f"{technology.platform}.{row.id}": _unpriced_lines(technology, row) for row in technology.unpriced}
    if term not in known:
        raise UsageError(f"neuro energy why: unknown term '{term}'.", nearest(term, list(known)))
    return "\n".join(known[term])


def _constant_lines(c: Constant) -> list[str]:
    return [
        f"{c.id}: {c.value:g} {c.unit} per {c.kind.replace('_', ' ')}, likely between {c.lo:g} and {c.hi:g}",
        f"  includes  {', '.join(c.includes)}",
        f"  basis     {c.basis}",
        f"  evidence  {c.evidence}",
        f"  source    {_cite(c.source)}",
        f"  note      {c.note}",
    ]


def _setup_lines(technology: Technology) -> list[str]:
    return [
        f"{technology.platform}.setup: one factor on every constant of {technology.name}, log-normal around 1, "
        f"sigma {technology.setup.sigma:g}",
        f"  source    {_cite(technology.setup.source)}",
        f"  note      {technology.setup.note}",
    ]


def _unpriced_lines(technology: Technology, row: Unpriced) -> list[str]:
    return [
        f"{technology.platform}.{row.id}: unpriced, so totals say '>='",
        f"  why       {row.why}",
        f"  source    {_cite(row.source)}",
    ]


def _cite(source: dict[str, Any]) -> str:
    return ", ".join(str(value) for value in source.values() if value)
