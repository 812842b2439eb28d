"""neuro doctor: what is here, what is not, and what its absence costs."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from importlib import metadata
from typing import Any

from neuro import _siblings
from neuro.errors import MissingError
from neuro.extras import EXTRAS, installed

Row = dict[str, Any]

COMMON: tuple[str, ...] = ()


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
            report[section] = [_row(section, False, f"{type(error).__name__}: {' '.join(str(error).split())}")]
    if args.json:
        print(json.dumps({"schema": "neuro.doctor/1"} | report))
        return 0
    width = max(len(row["name"]) for rows in report.values() for row in rows)
    for section, rows in report.items():
        print(section)
        for row in rows:
            print(f"  {'ok' if row['ok'] else '--'}  {row['name']:<{width}} {row['says']}")
    return 0


def _row(name: str, ok: bool, says: str) -> Row:
    return {"name": name, "ok": ok, "says": says}


def _guarded(name: str, says: Callable[[], str]) -> Row:
    """One row whose probe may fail on its own, without taking the section along."""
    try:
        return _row(name, True, says())
    except Exception as error:  # noqa: BLE001 - see run()
        return _row(name, False, f"{type(error).__name__}: {' '.join(str(error).split())}")


def _system() -> list[Row]:
    rows = [_row("python", True, platform.python_version()), _row("system", True, platform.platform())]
    rows.append(_guarded("processor", _processor))
    for name in ("torch", "numpy", "safetensors", "tokenizers", "onnx", "onnxruntime", "onnxscript"):
        try:
            rows.append(_row(name, True, metadata.version(name)))
        except metadata.PackageNotFoundError:
            rows.append(_row(name, False, "not installed; install neuro-hybrid again, whole"))
    return rows


def _processor() -> str:
    _siblings.check("backends")
    from backends.devices import cpu_name

    return cpu_name()


def _packages() -> list[Row]:
    rows = []
    for name, origin in _siblings.origins().items():
        if name == "neuro":
            rows.append(_row(name, True, origin))
            continue
        try:
            _siblings.check(name)
            rows.append(_row(name, True, origin))
        except MissingError as error:
            rows.append(_row(name, False, f"{error.what} {error.do}"))
    for name, others in _siblings.rivals().items():
        says = (
            f"{', '.join(others)} installs a package '{name}' too, over ours: uninstall it, then install neuro-hybrid"
        )
        rows.append(_row("rival", False, f"{says} again"))
    return rows


def _backends() -> list[Row]:
    _siblings.check("backends")
    import backends
    from backends.kernels import cpu, cuda, lif_numba, spikes

    def auto() -> str:
        chosen = backends.select("auto")
        return f"{chosen.name}: {chosen.reason}; {chosen.ops.name} operators"

    rows = [_row(row.name, row.ok, row.reason) for row in backends.available()]
    built, says = cpu.status()
    kernels = [_kernels(built, says), _spiking(built, lif_numba.here()), _events(*spikes.status())]
    return [*rows, *kernels, _triton(*cuda.status()), *_sims(), _guarded("auto", auto)]


def _kernels(built: bool, says: str) -> Row:
    if built:
        return _row("kernels", True, f"the time loops run in C++ on the CPU ({says})")
    cost = "the time loops run as torch operators, the affine recurrence 2 to 5 times slower on the CPU"
    return _row("kernels", False, f"{says}: {cost} (with a C++ compiler here, install neuro-hybrid again)")


def _spiking(built: bool, numba: bool) -> Row:
    """Which of its three forms the spiking loop takes on a CPU (benchmarks/lif.py measures what each costs)."""
    if built:
        return _row("spiking", True, "layers run in C++ on the CPU, training included: the quickest way")
    if numba:
        says = "layers run in numba on the CPU, training 1.2 times slower than in C++; constants that learn run as"
        return _row(
            "spiking", True, f"{says} torch operators; the first call of a rule compiles for some seconds, once"
        )
    says = "layers run as torch operators on the CPU, training 2.7 to 4.4 times slower than in C++"
    return _row("spiking", False, f"{says} (a C++ compiler, or pip install 'neuro-hybrid[numba]', helps)")


def _triton(active: bool, says: str) -> Row:
    if active:
        return _row("triton", True, f"the time loops run in Triton on the CUDA device ({says})")
    return _row("triton", False, f"{says}: on a CUDA device the time loops run as torch operators")


def _events(built: bool, says: str) -> Row:
    if built:
        return _row("event kernels", True, f"products with few spikes are event-driven on the CPU ({says})")
    cost = "products with spikes are dense, 9 to 16 times slower where 5 % fire"
    return _row("event kernels", False, f"{says}: {cost} (with a C++ compiler here, install neuro-hybrid again)")


def _sims() -> list[Row]:
    """What the simulators' own libraries are there for, and what each costs where it was not built."""
    try:
        _siblings.check("sims")
    except MissingError as error:
        return [_row("networks", False, error.what), _row("mapping", False, error.what)]
    from sims.mapping import native as mapping
    from sims.mapping.refine import PLAIN_SYNAPSES
    from sims.networks import native as networks

    rows = []
    for name, verb, (built, says), cost in (
        ("networks", "simulate", networks.status(), "runs in numpy, 10 to 90 times slower at 4,000 neurons"),
        ("mapping", "map", mapping.status(), f"keeps layer order beyond {PLAIN_SYNAPSES:,} synapses"),
    ):
        if built:
            rows.append(_row(name, True, f"neuro {verb} runs in C++ ({says})"))
        else:
            again = "with a C++ compiler here, install neuro-hybrid again"
            rows.append(_row(name, False, f"{says}: neuro {verb} {cost} ({again})"))
    return rows


def _extras() -> list[Row]:
    rows = []
    for extra, costs in EXTRAS.items():
        missing = [package for package in costs if not installed(package)]
        cost = ", ".join(dict.fromkeys(costs[package] for package in missing))
        says = f"without {', '.join(missing)}: {cost} (pip install 'neuro-hybrid[{extra}]')"
        rows.append(_row(extra, not missing, says if missing else "installed"))
    return rows


def _energy() -> list[Row]:
    _siblings.check("sims")
    from sims.energy.measured import RaplMeter

    ok, reason = RaplMeter().available()
    return [_row("rapl", ok, reason)]


def _models() -> list[Row]:
    _siblings.check("backends")
    from neuro import folder

    names = folder.shipped()
    return [_row(name, True, str(folder.SHIPPED / name)) for name in names] or [
        _row("none", False, "no model is shipped")
    ]
