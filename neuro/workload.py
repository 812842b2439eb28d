"""What a run did, as countable work: the torch-free contract between the brain, the energy model and the exporters.

Every number is an integer counted from the run (or a declared property of the model); nothing here is a joule. A run has
phases, for reading a text and writing one cost differently: `Workload.operations` and its like add them up.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from neuro.errors import FormatError, MissingError, UsageError

SCHEMA = "neuro.workload/2"
SIGNALS = ("binary", "graded", "dense")
OPERATIONS = ("mac", "accumulate", "elementwise", "transcendental", "compare")
STORES = ("weights", "state", "kv", "memory", "bus")
PHASES = ("prefill", "decode", "inference")
UNITS = ("token", "sample")


@dataclasses.dataclass(frozen=True)
class Population:
    """Spiking neurons that share one projection, with what they did.

    ``synaptic_ops`` is exactly the sum over neurons of spikes x fan-out, each neuron with its own. ``updates`` counts every
    neuron at every step.
    """

    name: str  # e.g. "cortex.layers.0.ffn"
    region: str
    neurons: int
    fan_out: int  # targets of a neuron; the most of any where they differ
    fan_in: int  # inputs of a neuron; the most of any where they differ
    input_signal: str  # what drives the neurons: "binary", "graded" or "dense"
    weight_bits: int  # width of one outgoing synapse on a chip
    spikes: int
    synaptic_ops: int
    updates: int
    products: int | None = None  # of a dense layer in its projection's place, once a token; None: unknown
    target: str = ""  # the population that its projection drives; empty: something that only adds up


@dataclasses.dataclass(frozen=True)
class Operation:
    """Arithmetic outside the spiking projections: how many of which kind, on which signal, in which region.

    ``effective`` are those with no zero among input and weight; of a "mac" on a binary signal the accumulations left, which
    are more than ``count`` where neurons fire several times in what counts once. None: nobody looked for zeros.
    """

    region: str
    name: str
    kind: str  # one of OPERATIONS
    signal: str  # one of SIGNALS
    count: int
    effective: int | None = None


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Bytes read from or written to a store: weights, carried state, keys and values, a memory's slots, or channels."""

    region: str
    name: str
    store: str  # one of STORES
    read_bytes: int
    written_bytes: int


Row = TypeVar("Row", Population, Operation, Traffic)
_SUMS = ("spikes", "synaptic_ops", "updates", "products", "count", "effective", "read_bytes", "written_bytes")


@dataclasses.dataclass(frozen=True)
class Phase:
    """One kind of work within a run. ``calls`` is how often the weights were read; ``seconds`` is wall time."""

    name: str  # one of PHASES
    tokens: int  # in `Workload.unit`
    calls: int
    seconds: float
    populations: tuple[Population, ...]
    operations: tuple[Operation, ...]
    traffic: tuple[Traffic, ...]
    passes: int | None = None  # of tokens through the weights, where a token takes several steps; None: one each

    @property
    def batch(self) -> int:
        """Tokens that share one reading of the weights."""
        return max(1, round((self.tokens if self.passes is None else self.passes) / max(1, self.calls)))

    @property
    def steps(self) -> int:
        """Passes of one token."""
        return 1 if self.passes is None else max(1, round(self.passes / max(1, self.tokens)))


@dataclasses.dataclass(frozen=True)
class Workload:
    """One run's work, of a model that makes ``layers`` products with weights a call; commits are ``spans``."""

    model: str
    parameters: int
    layers: int
    spans: int
    hardware: str
    backend: str
    phases: tuple[Phase, ...]
    unit: str = "token"  # one of UNITS: what `tokens` counts
    measured_joules: float | None = None  # read from a counter of the machine (RAPL) during the run, else None
    measured_source: str | None = None
    uncounted: tuple[str, ...] = ()  # operators that did arithmetic nobody counted: all sums are then lower bounds
    schema: str = SCHEMA

    def __post_init__(self) -> None:
        rows: list[Population | Operation | Traffic] = []
        for phase in self.phases:
            rows += [*phase.populations, *phase.operations, *phase.traffic]
        everything: list[Any] = [self, *self.phases, *rows]
        for row in everything:
            where = "workload" if isinstance(row, Workload) else f"workload {type(row).__name__.lower()} '{row.name}'"
            for field in dataclasses.fields(row):
                value = getattr(row, field.name)
                counted = field.type == "int" or (field.type == "int | None" and value is not None)
                if counted and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
                    raise UsageError(
                        f"{where}: got {field.name}={value!r}, expected a count >= 0.",
                        "Count the run again; a count that cannot be made is an error, never 0.",
                    )
        for row in rows:
            if isinstance(row, Population) and row.synaptic_ops > row.spikes * row.fan_out:
                raise UsageError(
                    f"workload population '{row.name}': got synaptic_ops={row.synaptic_ops}, "
                    f"expected at most spikes x fan_out = {row.spikes * row.fan_out}.",
                    "Synaptic operations are the sum of spikes x fan-out; correct the counter.",
                )
            if isinstance(row, Operation) and row.signal != "binary" and (row.effective or 0) > row.count:
                raise UsageError(
                    f"workload operation '{row.name}': got effective={row.effective} of count={row.count}.",
                    "Those without a zero are some of all; correct the counter.",
                )
        _one_of("unit", [self.unit], UNITS)
        _one_of("phase", [phase.name for phase in self.phases], PHASES)
        _one_of("operation kind", [row.kind for row in rows if isinstance(row, Operation)], OPERATIONS)
        _one_of("operation signal", [row.signal for row in rows if isinstance(row, Operation)], SIGNALS)
        _one_of("population input_signal", [row.input_signal for row in rows if isinstance(row, Population)], SIGNALS)
        _one_of("traffic store", [row.store for row in rows if isinstance(row, Traffic)], STORES)
        if self.tokens < 1:
            raise UsageError("workload: got 0 tokens, expected at least 1.", "Run the model on some text first.")

    @property
    def tokens(self) -> int:
        """Of all phases."""
        return sum(phase.tokens for phase in self.phases)

    @property
    def seconds(self) -> float:
        """Wall time of all phases on ``hardware``."""
        return sum(phase.seconds for phase in self.phases)

    @property
    def populations(self) -> tuple[Population, ...]:
        """Each once, its counts added up over the phases."""
        return _merged(row for phase in self.phases for row in phase.populations)

    @property
    def operations(self) -> tuple[Operation, ...]:
        """Each once, its counts added up over the phases."""
        return _merged(row for phase in self.phases for row in phase.operations)

    @property
    def traffic(self) -> tuple[Traffic, ...]:
        """Each once, its bytes added up over the phases."""
        return _merged(row for phase in self.phases for row in phase.traffic)

    def phase(self, name: str) -> Phase | None:
        """The phase of that name, or None where the run had none."""
        return next((phase for phase in self.phases if phase.name == name), None)

    def to_json(self) -> str:
        """The workload as one JSON object, keys in field order."""
        return json.dumps(dataclasses.asdict(self), indent=1)


def of_schema(text: str, schema: str, where: str, again: str) -> dict[str, Any]:
    """The JSON object in ``text``, which says that it is of this schema.

    Raises:
        FormatError: it is not; with what to do (``again``).
    """
    try:
        data: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise FormatError(f"{where}: not JSON ({error}).", again) from error
    if not isinstance(data, dict) or data.get("schema") != schema:
        got = data.get("schema") if isinstance(data, dict) else type(data).__name__
        raise FormatError(f"{where}: got schema {got!r}, expected '{schema}'.", again)
    return data


def from_json(text: str, where: str = "workload") -> Workload:
    """Read a workload written by `Workload.to_json`.

    Raises:
        FormatError: not JSON, another schema version, a missing or unknown key.
    """
    again = "Write it again with 'neuro run --out DIR'."
    data = of_schema(text, SCHEMA, where, again)
    try:
        rows: dict[str, type] = {"populations": Population, "operations": Operation, "traffic": Traffic}
        phases = [
            phase | {key: tuple(row(**x) for x in phase[key]) for key, row in rows.items()} for phase in data["phases"]
        ]
        lists = {"phases": tuple(Phase(**phase) for phase in phases), "uncounted": tuple(data.get("uncounted", ()))}
        load = Workload(**data | lists)
    except (TypeError, KeyError) as error:
        raise FormatError(f"{where}: {error}.", again) from error
    measured = [] if load.measured_joules is None else [("measured_joules", load.measured_joules)]
    for name, value in [*(("seconds", phase.seconds) for phase in load.phases), *measured]:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise FormatError(f"{where}: got {name}={value!r}, expected a finite number >= 0.", again)
    return load


def read(path: str | Path) -> Workload:
    """Read ``run.json``.

    Raises:
        MissingError: no such file.
        FormatError: the file cannot be read or is no workload.
    """
    if not Path(path).exists():
        raise MissingError(f"{path}: no such file.", "Give the run.json that 'neuro run --out DIR' wrote.")
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: {error}.", "Give the run.json that 'neuro run --out DIR' wrote.") from error
    return from_json(text, str(path))


def _merged(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Rows that differ in nothing but their sums become one. A sum with an unknown part is unknown."""
    found: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        sums = {name: getattr(row, name) for name in _SUMS if hasattr(row, name)}
        key = tuple(value for name, value in vars(row).items() if name not in sums)
        if key in found:
            other = {name: getattr(found[key], name) for name in sums}
            sums = {n: None if x is None or other[n] is None else x + other[n] for n, x in sums.items()}
        found[key] = dataclasses.replace(row, **sums)
    return tuple(found.values())


def _one_of(what: str, values: list[str], known: tuple[str, ...]) -> None:
    for value in values:
        if value not in known:
            raise UsageError(
                f"workload {what}: got '{value}', expected one of {', '.join(known)}.", "Correct the name."
            )
