"""The ablation of parts in words, in Markdown and as a picture; the record is that of `neuro/evaluate/ablation_brain.py`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neuro.evaluate import ablation_parts, probes
from neuro.evaluate.ablation_parts import WHOLE
from neuro.evaluate.ablation_suites import MEASURES
from neuro.plots import ablation as plots


def table(record: dict[str, Any]) -> list[str]:
    """The record in words."""
    lines = [
        f"{record['seeds']} seeds, {record['config']['train']['steps']} steps each; what a part is worth in each measure, "
        "positive where it helps; brackets: 95 %; *: p < 0.05 after Holm"
    ]
    lines += _aligned([_heads(record), *_rows(record)])
    return lines + _closing(record)


def markdown(record: dict[str, Any]) -> list[str]:
    """The record as tables of Markdown: what parts are worth, and what the arms are."""
    told: list[str] = []
    for rows in ([_heads(record), *_rows(record)], [_arm_heads(record), *_arm_rows(record)]):
        told += ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
        told += ["| " + " | ".join(row) + " |" for row in rows[1:]] + [""]
    return told + _closing(record)


def picture(record: dict[str, Any], out: Path) -> Path | None:
    """What each part is worth in each measure, its interval and its seeds; None without matplotlib."""
    return plots.worth(
        {
            f"{measure}: {MEASURES[measure].words}": {
                _label(record, name): (
                    _scaled(measure, row["worth"]),
                    (_scaled(measure, row["interval"][0]), _scaled(measure, row["interval"][1])),
                    [_scaled(measure, value) for value in row["by_seed"]],
                )
                for name, row in found["worth"].items()
            }
            for measure, found in record["measures"].items()
        },
        out,
    )


def _heads(record: dict[str, Any]) -> list[str]:
    return ["part", *(f"{name} ({MEASURES[name].words})" for name in record["measures"])]


def _rows(record: dict[str, Any]) -> list[list[str]]:
    rows = [["whole brain, itself"]]
    for measure, found in record["measures"].items():
        value = found["values"][WHOLE]
        rows[0].append(_bracketed(measure, value["value"], value["interval"], signed=False))
    for name in record["arms"]:
        if name == WHOLE:
            continue
        cells = [_label(record, name)]
        for measure, found in record["measures"].items():
            row = found["worth"][name]
            star = " *" if row["p_holm"] < 0.05 else ""
            cells.append(_bracketed(measure, row["worth"], row["interval"], signed=True) + star)
        rows.append(cells)
    return rows


def _arm_heads(record: dict[str, Any]) -> list[str]:
    heads = ["arm", "without the part", "parameters", "feed-forward width"]
    if "energy" in record:
        heads += [f"{name}, mJ a token" for name in next(iter(record["energy"].values()))]
    return heads


def _arm_rows(record: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name, arm in record["arms"].items():
        row = [name, arm["without"] or "everything on", str(arm["parameters"]), str(arm["feedforward_width"])]
        if "energy" in record:
            row += [f"{1e3 * joules:.3g}" for joules in record["energy"][name].values()]
        rows.append(row)
    return rows


def _label(record: dict[str, Any], name: str) -> str:
    against = record["arms"][name]["against"]
    return name if against == WHOLE else f"{name} (against {against})"


def _scaled(measure: str, value: float) -> float:
    return 100 * value if MEASURES[measure].percent else value


def _bracketed(measure: str, value: float, bounds: Sequence[float], signed: bool) -> str:
    form = ("+" if signed else "") + (".1f" if MEASURES[measure].percent else ".3f")
    low, high = (_scaled(measure, bound) for bound in bounds)
    return f"{_scaled(measure, value):{form}} [{low:{form}}, {high:{form}}]"


def _closing(record: dict[str, Any]) -> list[str]:
    units = ", ".join(f"{name} {found['units']}" for name, found in record["measures"].items())
    lines = [f"units that are resampled: {units}; arms agree in parameters within {100 * ablation_parts.TOLERANCE:g} %"]
    if record["indicative"]:
        lines.append(f"indicative: a claim needs {probes.CLAIM} seeds, this has {record['seeds']}")
    return lines


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    wide = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, wide, strict=True)).rstrip() for row in rows]
