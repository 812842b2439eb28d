"""neuro doctor: what is here, what is not, and what its absence costs."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from importlib import metadata
from typing import Any

Row = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none of its own."""


def run(args: argparse.Namespace) -> int:
    probes: dict[str, Callable[[], list[Row]]] = {
        "system": _system,
        "packages": _packages,
        "backends": _backends,
        "extras": _extras,
        "energy": _energy,
        "models": _models,
    }
    report: dict[str, list[Row]] = {}
    for section, probe in probes.items():
        try:
            report[section] = probe()
        except Exception as error:  # noqa: BLE001 - a doctor that dies of what it finds helps nobody
            report[section] = [_row(section, False, f"{type(error).__name__}: {error}")]
    if args.json:
        print(json.dumps({"schema": "neuro.doctor/1"} | report))
        return 0
    for section, rows in report.items():
        print(section)
        for row in rows:
            print(f"  {'ok' if row['ok'] else '--'}  {row['name']:<12} {row['says']}")
    return 0


def _row(name: str, ok: bool, says: str) -> Row:
    return {"name": name, "ok": ok, "says": says}


def _system() -> list[Row]:
    from neuro.accounting import cpu_name

    rows = [_row("python", True, platform.python_version()), _row("system", True, platform.platform())]
    rows.append(_row("processor", True, cpu_name()))
    for name in ("torch", "numpy", "safetensors", "tokenizers", "onnx", "onnxruntime", "onnxscript"):
        try:
            rows.append(_row(name, True, metadata.version(name)))
        except metadata.PackageNotFoundError:
            rows.append(_row(name, False, "not installed; install neuro-hybrid again, whole"))
    return rows


def _packages() -> list[Row]:
    from neuro import _siblings
    from neuro.errors import MissingError

    rows = [_row(name, bool(origin), origin or "not found") for name, origin in _siblings.origins().items()]
    try:
        _siblings.check()
    except MissingError as error:
        rows.append(_row("siblings", False, f"{error.what} {error.do}"))
    return rows


def _backends() -> list[Row]:
    import backends

    chosen = backends.select("auto")
    rows = [_row(row.name, row.ok, row.reason) for row in backends.available()]
    return [*rows, _row("auto", True, f"{chosen.name}: {chosen.reason}; {chosen.ops.name} operators")]


def _extras() -> list[Row]:
    from neuro.extras import EXTRAS, installed

    rows = []
    for extra, (packages, cost) in EXTRAS.items():
        missing = [package for package in packages if not installed(package)]
        says = f"without {', '.join(missing)}: {cost} (pip install 'neuro-hybrid[{extra}]')"
        rows.append(_row(extra, not missing, says if missing else "installed"))
    return rows


def _energy() -> list[Row]:
    from sims.energy.measured import RaplMeter

    ok, reason = RaplMeter().available()
    return [_row("rapl", ok, reason)]


def _models() -> list[Row]:
    from neuro import folder

    names = folder.shipped()
    return [_row(name, True, str(folder.SHIPPED / name)) for name in names] or [
        _row("none", False, "no model is shipped")
    ]
