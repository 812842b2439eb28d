"""Chips as data: hard limits, topology, neuron and learning, each with unit, source and grade of evidence.

One JSON file a chip (schema neuro.chip/2). A row is

    {"value": ..., "unit": ..., "source": {"paper", "url", "file", "commit"}, "evidence": ..., "note": ...}

A value is a positive integer (0 only for delays), or a list of them, one a core or one an option. What is not known has the
value null, neither source nor evidence, and a note that says why: nothing is guessed. A limit that a chip does not have is
not in its file. The grades, strongest first:

| grade | the value was |
|---|---|
| primary | read in the cited paper, file or documentation |
| vendor | claimed by the chip's maker without the mechanism behind it |
| second-hand | read in another text that quotes the cited one |
| inferred | computed from the cited one, as the note says |
| background | known and not read: the note asks for a check |
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from neuro.errors import FormatError, MissingError, UsageError, nearest

SCHEMA = "neuro.chip/2"
FOLDER = Path(__file__).parent
EVIDENCE = ("primary", "vendor", "second-hand", "inferred", "background")  # strongest first
KINDS = ("mesh", "single", "layers")
ORDERS = ("column", "row")
REQUIRED = ("cores", "compartments_per_core", "weight_bits", "state_bits", "delay_steps")
ZERO = ("delay_steps",)

UNITS = {
    "cores": "cores per chip",
    "cores_total": "cores per chip",
    "compartments_per_core": "compartments",
    "synapses_per_core": "synapses",
    "synapses_per_chip": "synapses",
    "synapse_bits_per_core": "bit",
    "synapse_words_per_core": "words",
    "synapse_word_bits": "bit",
    "synapse_header_bits": "bit",
    "synapses_per_block": "synapses",
    "synapse_memory_units_per_core": "units",
    "index_bits": "bit",
    "in_axons_per_core": "axons",
    "out_axons_per_core": "axons",
    "axon_list_words": "words",
    "fan_in": "synapses",
    "fan_out": "synapses",
    "fan_out_layers": "layers",
    "target_axons_per_neuron": "axons",
    "target_chips_per_neuron": "chips",
    "chip_reach": "chips",
    "tags": "tags",
    "weight_bits": "bit",
    "weight_exponent_max": "power of 2",
    "axon_types": "types",
    "type_weight_bits": "bit",
    "state_bits": "bit",
    "decay_bits": "bit",
    "threshold_bits": "bit",
    "bias_bits": "bit",
    "delay_steps": "steps",
    "delay_bits": "bit",
    "spikes_per_step": "spikes",
    "output_spikes_per_step": "spikes",
    "events_per_step": "events",
    "spike_payload_bits": "bit",
    "event_bits": "bit",
    "compartment_configs_per_core": "configurations",
    "threshold_configs_per_core": "configurations",
    "synapse_configs_per_core": "configurations",
    "crossbar_rows": "axons",
    "crossbar_cols": "neurons",
    "hidden_neurons": "neurons",
    "input_channels": "channels",
    "output_neurons": "neurons",
    "input_expansion_neurons": "neurons",
    "output_expansion_neurons": "neurons",
    "synapse_states_per_neuron": "states",
    "aliases_per_neuron": "neurons",
    "synapse_types": "types",
    "kernel_words_per_core": "words",
    "bias_words_per_core": "words",
    "kernel_side": "pixels",
    "stride_options": "pixels",
    "padding_max": "pixels",
    "pooling_options": "pixels",
    "channels_per_layer": "channels",
    "input_side": "pixels",
    "output_side": "pixels",
    "dtcm_bytes_per_core": "byte",
    "sram_bytes_per_core": "byte",
    "sdram_bytes_per_chip": "byte",
    "router_entries_per_chip": "entries",
    "links_per_chip": "links",
    "chips_per_board": "chips",
}
"""Every limit a chip's file may state, with its unit."""

_SOURCE, _ROW = {"paper", "url", "file", "commit"}, {"value", "unit", "source", "evidence", "note"}
_TEXT = _ROW - {"unit"}
_TOPOLOGY = {"kind", "cols", "rows", "cores_per_tile", "order", "source", "evidence", "note"}
_AGAIN = "Correct the chip's file; every number needs its unit, source and evidence, and what is not known a note why."


@dataclasses.dataclass(frozen=True)
class Row:
    """One statement about a chip."""

    value: int | tuple[int, ...] | str | None
    unit: str
    source: dict[str, str | None] | None
    evidence: str | None
    note: str


@dataclasses.dataclass(frozen=True)
class Topology:
    """Where cores lie: a mesh of tiles, one router for all ("single"), or layers that send to each other."""

    kind: str
    cols: int | None = None
    rows: int | None = None
    cores_per_tile: int | None = None
    order: str | None = None  # "column": tile = rows x + y; "row": tile = cols y + x
    evidence: str | None = None
    note: str = ""

    def position(self, core: int) -> tuple[int, int]:
        """(x, y) of a core's tile; hops between cores are the distances in x and in y.

        Raises:
            MissingError: the chip's columns, rows or numbering are not known.
        """
        if self.cols is None or self.rows is None or self.cores_per_tile is None or self.order is None:
            raise MissingError(
                f"topology: the places of cores are not known: {self.note}", "Use a chip with known places."
            )
        tile = core // self.cores_per_tile
        if not 0 <= core or tile >= self.cols * self.rows:
            last = self.cols * self.rows * self.cores_per_tile - 1
            raise UsageError(f"topology: got core {core}, expected 0 to {last}.", "Number cores within one chip.")
        return divmod(tile, self.rows) if self.order == "column" else divmod(tile, self.cols)[::-1]


@dataclasses.dataclass(frozen=True)
class Chip:
    """A chip: ``limits`` are the known ones that are one number; ``rows`` are all of them with their sources."""

    chip: str
    name: str
    limits: dict[str, int]
    rows: dict[str, Row] = dataclasses.field(default_factory=dict)
    topology: Topology = Topology("single", 1, 1, 1, "column")
    neuron: Row | None = None
    learning: Row | None = None
    rules: dict[str, Row] = dataclasses.field(default_factory=dict)

    def limit(self, name: str) -> int:
        """A limit that is one number.

        Raises:
            UsageError: no such limit, or one that differs by core.
            MissingError: it is not known, with the reason.
        """
        if name in self.limits:
            return self.limits[name]
        row = self._row(name)
        if row.value is None:
            what = f"chip {self.chip}: '{name}' is not known: {row.note}"
            raise MissingError(what, "Choose another chip, or put the number with its source into the chip's file.")
        raise UsageError(f"chip {self.chip}: '{name}' is a list, expected one number.", "Read it with options().")

    def options(self, name: str) -> tuple[int, ...]:
        """A limit that is a list: one number a core, or the values to choose from; raises as `limit`."""
        row = self.rows.get(name)
        return row.value if row is not None and isinstance(row.value, tuple) else (self.limit(name),)

    def why(self, name: str) -> str:
        """What is known about a limit, in words; raises as `limit` where there is no such limit."""
        row = self._row(name)
        value = "not known" if row.value is None else f"{row.value} {row.unit}"
        lines = [f"{self.chip}.{name}: {value}"]
        if row.source is not None:
            lines += [f"  source    {', '.join(part for part in row.source.values() if part)}"]
            lines += [f"  evidence  {row.evidence}"]
        return "\n".join([*lines, f"  note      {row.note}"] if row.note else lines)

    def _row(self, name: str) -> Row:
        if name not in self.rows:
            raise UsageError(
                f"chip {self.chip}: got '{name}', which is no limit of it.", nearest(name, list(self.rows))
            )
        return self.rows[name]


def names(folder: Path = FOLDER) -> list[str]:
    """The chips there are files for."""
    return sorted(path.stem for path in folder.glob("*.json"))


def load(name: str, folder: Path = FOLDER) -> Chip:
    """A chip by name.

    Raises:
        UsageError: unknown, with the known ones and the nearest.
        FormatError: another schema, or a statement that breaks the rules of its file.
    """
    known = names(folder)
    if name not in known:
        raise UsageError(f"chip: got '{name}', expected one of {', '.join(known)}.", nearest(name, known))
    path = folder / f"{name}.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA:
            got = f"{path}: got schema {data['schema']!r}, expected '{SCHEMA}'."
            raise FormatError(got, "Rewrite the chip's file.")
        rows = {key: _limit(path, key, row) for key, row in data["limits"].items()}
        for key in REQUIRED:
            if key not in rows:
                raise FormatError(f"{path}: limit '{key}' is missing.", "State it, or null with a note why.")
        limits = {key: row.value for key, row in rows.items() if isinstance(row.value, int)}
        neuron, learning = (_text(path, key, data[key]) for key in ("neuron", "learning"))
        rules = {key: _text(path, key, row) for key, row in data["rules"].items()}
        return Chip(
            data["chip"], data["name"], limits, rows, _topology(path, data["topology"]), neuron, learning, rules
        )
    except (OSError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"{path}: not a chip ({error!r}).", _AGAIN) from error


def _limit(path: Path, key: str, row: dict[str, Any]) -> Row:
    where = f"{path}: limit '{key}'"
    if key not in UNITS:
        raise FormatError(f"{where} is unknown.", nearest(key, list(UNITS)))
    if set(row) != _ROW:
        raise FormatError(f"{where} has {', '.join(sorted(row))}, expected {', '.join(sorted(_ROW))}.", _AGAIN)
    if row["unit"] != UNITS[key]:
        raise FormatError(f"{where} is in {row['unit']!r}, expected '{UNITS[key]}'.", _AGAIN)
    value = row["value"]
    if value is None:
        if row["source"] is not None or row["evidence"] is not None or not row["note"]:
            got = f"{where} has no value, expected a note why and neither source nor evidence."
            raise FormatError(got, _AGAIN)
        return Row(None, row["unit"], None, None, row["note"])
    least = 0 if key in ZERO else 1
    for number in value if isinstance(value, list) and value else [value]:
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise FormatError(f"{where} is {value!r}, expected integers from {least}, or null.", _AGAIN)
    _check_source(where, row)
    return Row(
        tuple(value) if isinstance(value, list) else value, row["unit"], row["source"], row["evidence"], row["note"]
    )


def _text(path: Path, key: str, row: dict[str, Any]) -> Row:
    where = f"{path}: '{key}'"
    if not _TEXT <= set(row) or not isinstance(row["value"], str) or not row["value"]:
        raise FormatError(f"{where} has no value in words.", _AGAIN)
    _check_source(where, row)
    return Row(row["value"], row.get("unit", ""), row["source"], row["evidence"], row["note"])


def _topology(path: Path, row: dict[str, Any]) -> Topology:
    where = f"{path}: topology"
    if set(row) != _TOPOLOGY or row["kind"] not in KINDS or row["order"] not in (None, *ORDERS):
        got = f"{where} has kind {row.get('kind')!r} and order {row.get('order')!r}"
        raise FormatError(f"{got}, expected one of {', '.join(KINDS)} and {', '.join(ORDERS)} or null.", _AGAIN)
    sizes = [row[key] for key in ("cols", "rows", "cores_per_tile")]
    if any(size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1) for size in sizes):
        raise FormatError(f"{where} has sizes {sizes}, expected integers from 1, or null.", _AGAIN)
    if None in sizes:
        if not row["note"]:
            raise FormatError(f"{where} has no sizes, expected a note why.", _AGAIN)
    else:
        _check_source(where, row)
    return Topology(**{key: value for key, value in row.items() if key != "source"})


def _check_source(where: str, row: dict[str, Any]) -> None:
    source = row["source"]
    if not isinstance(source, dict) or set(source) != _SOURCE or not source["paper"] or not source["url"]:
        raise FormatError(f"{where} has no source, expected one with paper and url.", _AGAIN)
    if row["evidence"] not in EVIDENCE:
        got = f"{where} has evidence {row['evidence']!r}, expected one of {', '.join(EVIDENCE)}."
        raise FormatError(got, _AGAIN)
