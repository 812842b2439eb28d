"""Technology tables: constants and published runs as data, each with value, interval, unit, basis, evidence and source.

Units become SI when priced: joules, watts, seconds. A constant's ``kind`` is what is counted. ``basis`` says what may be added:

    PerTerm      the cost of one component; the table's other terms must be added
    Incremental  marginal, static power excluded; the other terms must be added
    AllIn        divides a whole by its events, so no event may be added; static power neither, where it is inside
    Static       watts, times the time
    Step         per time step or other unit of time, whatever happens in it
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from neuro.errors import FormatError, UsageError, nearest

SCHEMA = "neuro.technology/2"
FOLDER = Path(__file__).parent / "tables"
JOULES = {"pJ": 1e-12, "nJ": 1e-9, "uJ": 1e-6, "mJ": 1e-3, "J": 1.0, "pJ/B": 1e-12, "J/B": 1.0, "J/FLOP": 1.0}
WATTS = {"uW": 1e-6, "mW": 1e-3, "W": 1.0}
SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}
RATES = {"B/s": 1.0, "FLOP/s": 1.0, "Hz": 1.0, "1": 1.0}
UNITS = JOULES | WATTS | SECONDS | RATES
BASES = ("PerTerm", "AllIn", "Incremental", "Static", "Step")
EVIDENCE = ("silicon", "silicon_fit", "presilicon", "vendor", "simulated", "textbook")  # strongest first
MODELS = ("calls", "steps", "synops", "spikes", "decode", "events")
SCOPES = ("device", "board", "arithmetic")  # whose energy: the part and its memory, a board around it, operations alone
Z_90 = 3.29  # standard deviations between the 5 and the 95 % point of a normal distribution


@dataclasses.dataclass(frozen=True)
class Constant:
    """One energy, power, time or rate. Draws have ``value`` as median, and a 90 % interval as wide as ``hi / lo``."""

    id: str  # e.g. "loihi1.synop"
    platform: str
    kind: str  # what is counted: synaptic_op, neuron_update, spike, message, hop_ew, mac, static ...
    value: float
    lo: float
    hi: float
    unit: str
    node_nm: float | None
    vdd: float | None
    basis: str
    includes: tuple[str, ...]
    evidence: str
    source: dict[str, Any]
    note: str

    @property
    def sigma(self) -> float:
        """Standard deviation of ln(value)."""
        return math.log(self.hi / self.lo) / Z_90

    @property
    def si(self) -> float:
        """The value in joules, watts, seconds, or per second."""
        return self.value * UNITS[self.unit]

    @property
    def priced(self) -> bool:
        """Whether it adds joules: per event, or as watts over the time."""
        return self.unit in JOULES or self.unit in WATTS


@dataclasses.dataclass(frozen=True)
class Setup:
    """The log-normal factors of another board or software version: on all dynamic terms, and on static power."""

    sigma: float
    source: dict[str, Any]
    note: str
    static_sigma: float = 0.0


@dataclasses.dataclass(frozen=True)
class Unpriced:
    """A cost that exists and has no price here, so a total without it is a lower bound."""

    id: str
    why: str
    source: dict[str, Any]  # of the numbers in ``why``
    until: tuple[str, ...] = ()  # the kinds that price it once counted; "run" where published runs hold it


@dataclasses.dataclass(frozen=True)
class Run:
    """One published measurement: watts, inferences a second; counts of one inference, ``macs`` of one pass."""

    id: str
    network: str
    setup: str
    source: dict[str, Any]
    note: str
    session: str = ""  # runs measured in one go
    macs: float | None = None
    layers: float | None = None
    synops: float | None = None
    spikes: float | None = None
    batch: int = 1
    steps: int = 1
    total_w: float | None = None
    idle_w: float | None = None
    dynamic_w: float | None = None
    per_s: float | None = None
    window_s: float | None = None
    dynamic_mj: float | None = None

    @property
    def time_s(self) -> float | None:
        """Seconds per inference."""
        return 1 / self.per_s if self.per_s is not None else self.window_s

    @property
    def dynamic_j(self) -> float | None:
        """Joules per inference above idle."""
        if self.dynamic_mj is not None:
            return self.dynamic_mj * 1e-3
        power = self.dynamic_w
        if power is None and self.total_w is not None and self.idle_w is not None:
            power = self.total_w - self.idle_w
        return None if power is None or self.time_s is None else power * self.time_s

    @property
    def total_j(self) -> float | None:
        """Joules per inference, idle included."""
        power = self.total_w
        if power is None and self.dynamic_w is not None and self.idle_w is not None:
            power = self.dynamic_w + self.idle_w
        return None if power is None or self.time_s is None else power * self.time_s


@dataclasses.dataclass(frozen=True)
class Technology:
    """A platform's constants, the factors that all of them share, what it has no price for, and published runs."""

    platform: str
    name: str
    setup: Setup
    constants: tuple[Constant, ...]
    unpriced: tuple[Unpriced, ...]
    model: str = "events"
    scope: str = "device"
    common_sigma: float = 0.0  # of the factor all event energies of one platform share: their fit's own error
    runs: tuple[Run, ...] = ()
    whole_graph: bool = False  # whether one call of the host runs all layers, so that none has a launch to pay
    alternatives: tuple[tuple[str, ...], ...] = ()  # kinds of which one is counted in another's place

    def evidence_of(self, kinds: Collection[str]) -> str:
        """The weakest grade among the constants of these kinds; that of a measurement where there are none."""
        return weakest(c.evidence for c in self.constants if c.kind in kinds)

    def constant(self, kind: str) -> Constant:
        """The constant of this kind."""
        return next(c for c in self.constants if c.kind == kind)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What can be priced."""
        return tuple(c.kind for c in self.constants if c.priced)


def weakest(grades: Iterable[str]) -> str:
    """The weakest of these grades of evidence; that of a measurement where there are none."""
    return max(grades, key=EVIDENCE.index, default="silicon")


def load(path: Path) -> Technology:
    """Read and check one table.

    Raises:
        FormatError: another schema, a missing key, a source that is empty, lo <= value <= hi broken, an unknown unit or
            basis, an all-in constant beside others, or a run without inputs or measurements.
    """
    again = "Correct the table; every constant needs its source."
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        technology = Technology(
            data["platform"],
            data["name"],
            Setup(**data["setup"]),
            tuple(Constant(**row | {"includes": tuple(row["includes"])}) for row in data["constants"]),
            tuple(Unpriced(**row | {"until": tuple(row.get("until", ()))}) for row in data["unpriced"]),
            data.get("model", "events"),
            data.get("scope", "device"),
            data.get("common_sigma", 0.0),
            tuple(Run(**row) for row in data.get("runs", ())),
            bool(data.get("whole_graph", False)),
            tuple(map(tuple, data.get("alternatives", ()))),
        )
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise FormatError(f"{path}: not a technology table ({error}).", again) from error
    if data.get("schema") != SCHEMA:
        raise FormatError(f"{path}: got schema {data.get('schema')!r}, expected '{SCHEMA}'.", again)
    if technology.model not in MODELS or technology.scope not in SCOPES:
        raise FormatError(
            f"{path}: got model '{technology.model}' and scope '{technology.scope}', expected one of {', '.join(MODELS)} "
            f"and one of {', '.join(SCOPES)}.",
            again,
        )
    for constant in technology.constants:
        _check_constant(path, constant, again)
    _check_scopes(path, technology)
    for kind in (kind for group in technology.alternatives for kind in group):
        if kind not in technology.kinds:
            raise FormatError(f"{path}: got '{kind}' among the alternatives, which has no price.", again)
    for run in technology.runs:
        inputs = (run.macs, run.layers, run.synops, run.spikes)
        known = any(x is not None for x in inputs) and run.dynamic_j is not None
        if not (known and run.source.get("paper")):
            raise FormatError(f"{path}: run '{run.id}' lacks its inputs, its measurement or its source.", again)
    sources = {"setup": technology.setup.source} | {row.id: row.source for row in technology.unpriced}
    for name, source in sources.items():
        if not source.get("paper"):
            raise FormatError(f"{path}: '{name}' has no source.", again)
    return technology


def _check_constant(path: Path, constant: Constant, again: str) -> None:
    ordered = 0 < constant.lo <= constant.value <= constant.hi < math.inf
    known = constant.unit in UNITS and constant.basis in BASES and constant.evidence in EVIDENCE
    watts = (constant.unit in WATTS) == (constant.basis == "Static")
    if not (ordered and known and watts and constant.source.get("paper") and constant.source.get("url")):
        raise FormatError(f"{path}: constant '{constant.id}' breaks the table's rules.", again)


def _check_scopes(path: Path, technology: Technology) -> None:
    priced = [c for c in technology.constants if c.priced]
    for c in priced:
        others = [o for o in priced if o is not c and (o.basis != "Static" or "static" in c.includes)]
        if c.basis == "AllIn" and others:
            # A whole divided by its events already holds every other term: a sum would count them twice.
            raise FormatError(f"{path}: '{c.id}' is AllIn beside other constants.", "Keep it alone in its table.")


@functools.lru_cache(maxsize=8)
def _technologies(folder: Path) -> dict[str, Technology]:
    found = [load(path) for path in sorted(folder.glob("*.json"))]
    return {technology.platform: technology for technology in found}


def technologies() -> dict[str, Technology]:
    """Every platform there is a table for."""
    return dict(_technologies(FOLDER))


def technology(platform: str) -> Technology:
    """One platform's table.

    Raises:
        UsageError: an unknown platform, with the nearest one.
    """
    known = technologies()
    if platform not in known:
        raise UsageError(f"platform: got '{platform}', expected a known one.", nearest(platform, list(known)))
    return known[platform]


def why(term: str) -> str:
    """What is known about one term, in words: a constant, a run, a platform's "setup" factor, or an unpriced cost.

    Raises:
        UsageError: an unknown term, with the nearest one.
    """
    known: dict[str, list[str]] = {}
    for table in technologies().values():
        known |= {c.id: _constant_lines(c) for c in table.constants}
        known |= {run.id: _run_lines(run) for run in table.runs}
        known[f"{table.platform}.setup"] = _setup_lines(table)
        for row in table.unpriced:
            known.setdefault(f"{table.platform}.{row.id}", []).extend(_unpriced_lines(table, row))
    if term not in known:
        mine = [name for name in known if name.startswith((f"{term}.", f"{term}:"))]
        hint = f"Its terms: {', '.join(mine)}." if mine else nearest(term, list(known))
        raise UsageError(f"neuro energy why: unknown term '{term}'.", hint)
    return "\n".join(known[term])


def _constant_lines(c: Constant) -> list[str]:
    per = "" if c.basis == "Static" or c.unit in RATES or c.unit in SECONDS else " per"
    return [
        f"{c.id}: {c.value:g} {c.unit}{per} {c.kind.replace('_', ' ')}, likely between {c.lo:g} and {c.hi:g}",
        f"  includes  {', '.join(c.includes)}",
        f"  basis     {c.basis}",
        f"  evidence  {c.evidence}",
        f"  source    {_cite(c.source)}",
        f"  note      {c.note}",
    ]


def _run_lines(run: Run) -> list[str]:
    given = {k: v for k, v in dataclasses.asdict(run).items() if v is not None}
    for key in ("id", "network", "setup", "session", "source", "note"):
        del given[key]
    return [
        f"{run.id}: {run.network}, setup {run.setup}, measured",
        f"  row       {', '.join(f'{key} {value:g}' for key, value in given.items())}",
        f"  source    {_cite(run.source)}",
        f"  note      {run.note}",
    ]


def _setup_lines(technology: Technology) -> list[str]:
    return [
        f"{technology.platform}.setup: one factor on every constant of {technology.name}, log-normal around 1, "
        f"sigma {technology.setup.sigma:g} (static power: {technology.setup.static_sigma:g})",
        f"  source    {_cite(technology.setup.source)}",
        f"  note      {technology.setup.note}",
    ]


def _unpriced_lines(technology: Technology, row: Unpriced) -> list[str]:
    until = f" until counted as {', '.join(row.until)}" if row.until else ""
    return [
        f"{technology.platform}.{row.id}: unpriced{until}, so totals say '>='",
        f"  why       {row.why}",
        f"  source    {_cite(row.source)}",
    ]


def _cite(source: dict[str, Any]) -> str:
    return ", ".join(str(value) for value in source.values() if value)
