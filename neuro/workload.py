"""What a run did, as countable work: the torch-free contract between the brain, the energy model and the exporters.

Every number is an integer counted from the run (or a declared property of the model); nothing here is a joule.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from neuro.errors import FormatError, MissingError, UsageError

SCHEMA = "neuro.workload/1"
SIGNALS = ("binary", "graded", "dense")
OPERATIONS = ("mac", "accumulate", "elementwise", "transcendental", "compare")
STORES = ("weights", "state", "memory")


@dataclasses.dataclass(frozen=True)
class Population:
    """Spiking neurons that share one projection, with what they did during the run.

    ``synaptic_ops`` is exactly the sum over neurons of spikes x fan-out. ``updates`` counts every neuron at every step.
    """

    name: str  # e.g. "cortex.layers.0.ffn"
    region: str
    neurons: int
    fan_out: int  # targets of each neuron (equal for all: a full projection)
    fan_in: int  # inputs of each neuron
    input_signal: str  # what drives the neurons: "binary", "graded" or "dense"
    weight_bits: int  # width of one outgoing synapse on a chip
    spikes: int
    synaptic_ops: int
    updates: int


@dataclasses.dataclass(frozen=True)
class Operation:
    """Arithmetic outside the spiking projections: how many of which kind, on which signal, in which region."""

    region: str
    name: str
    kind: str  # one of OPERATIONS
    signal: str  # one of SIGNALS
    count: int


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Bytes read from or written to a store: weights, carried state, or a memory's slots."""

    region: str
    name: str
    store: str  # one of STORES
    read_bytes: int
    written_bytes: int


@dataclasses.dataclass(frozen=True)
class Workload:
    """One run's work. ``tokens`` is prefill plus decode; ``seconds`` is wall time on ``hardware``."""

    model: str
    parameters: int
    tokens: int
    prefill_tokens: int
    spans: int
    seconds: float
    hardware: str
    backend: str
    populations: tuple[Population, ...]
    operations: tuple[Operation, ...]
    traffic: tuple[Traffic, ...]
    measured_joules: float | None = None  # read from a counter of the machine (RAPL) during the run, else None
    measured_source: str | None = None
    schema: str = SCHEMA

    def __post_init__(self) -> None:
        rows: tuple[Population | Operation | Traffic, ...] = (*self.populations, *self.operations, *self.traffic)
        for row in (self, *rows):
            where = "workload" if isinstance(row, Workload) else f"workload {type(row).__name__.lower()} '{row.name}'"
            for field in dataclasses.fields(row):
                value = getattr(row, field.name)
                if field.type == "int" and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
                    raise UsageError(
                        f"{where}: got {field.name}={value!r}, expected a count >= 0.",
                        "Count the run again; a count that cannot be made is an error, never 0.",
                    )
        for population in self.populations:
            if population.synaptic_ops != population.spikes * population.fan_out:
                raise UsageError(
                    f"workload population '{population.name}': got synaptic_ops={population.synaptic_ops}, "
                    f"expected spikes x fan_out = {population.spikes * population.fan_out}.",
                    "Synaptic operations are exactly spikes x fan-out; correct the counter.",
                )
        _one_of("operation kind", [row.kind for row in self.operations], OPERATIONS)
        _one_of("operation signal", [row.signal for row in self.operations], SIGNALS)
        _one_of("population input_signal", [row.input_signal for row in self.populations], SIGNALS)
        _one_of("traffic store", [row.store for row in self.traffic], STORES)
        if self.tokens < 1:
            raise UsageError("workload: got 0 tokens, expected at least 1.", "Run the model on some text first.")

    def to_json(self) -> str:
        """The workload as one JSON object, keys in field order."""
        return json.dumps(dataclasses.asdict(self), indent=1)


def from_json(text: str, where: str = "workload") -> Workload:
    """Read a workload written by `Workload.to_json`.

    Raises:
        FormatError: not JSON, another schema version, a missing or unknown key.
    """
    again = "Write it again with 'neuro run --out DIR'."
    try:
        data: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise FormatError(f"{where}: not JSON ({error}).", again) from error
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        got = data.get("schema") if isinstance(data, dict) else type(data).__name__
        raise FormatError(f"{where}: got schema {got!r}, expected '{SCHEMA}'.", again)
    try:
        rows: dict[str, type] = {"populations": Population, "operations": Operation, "traffic": Traffic}
        for key, row in rows.items():
            data[key] = tuple(row(**item) for item in data[key])
        load = Workload(**data)
    except (TypeError, KeyError) as error:
        raise FormatError(f"{where}: {error}.", again) from error
    measured = {} if load.measured_joules is None else {"measured_joules": load.measured_joules}
    for name, value in ({"seconds": load.seconds} | measured).items():
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


def _one_of(what: str, values: list[str], known: tuple[str, ...]) -> None:
    for value in values:
        if value not in known:
            raise UsageError(
                f"workload {what}: got '{value}', expected one of {', '.join(known)}.", "Correct the name."
            )
