"""Who agrees on what a NIR graph does: the conformance suite against ours, Brian2, snnTorch, norse and SpikingJelly.

    pip install --no-deps --target PEERS norse==1.1.0 spikingjelly==2.0.0 loguru SciencePlots nirtorch
    PYTHONPATH=PEERS python benchmarks/nir_conformance.py                        # prints one JSON object
    PYTHONPATH=PEERS python benchmarks/nir_conformance.py --write docs/nir.md    # puts the table there
    PYTHONPATH=PEERS python benchmarks/nir_conformance.py --check docs/nir.md    # exit code 4: the table is another one

Every graph of `sims.nir.conformance` is written as a file and read by each. The peers get theirs by `nir.read`, their own
importer and a dt of 1e-4 s where it takes one, and run step by step in float32 with their state handed on; once with a batch
axis of one and once without, and the better run counts. Spikes are compared one by one, potentials within 1e-4 of the
largest. Nothing in it is random or timed. A peer that is not installed is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _machine
import numpy as np
import torch

from neuro import atomic
from neuro import nir_graph as nir
from neuro.neurons import Neuron
from neuro.nir_modules import to_modules
from neuro.nir_network import NirNetwork
from sims.nir import run
from sims.nir.conformance import DT, NAMES, Case, case

BEGIN, END = "<!-- nir_conformance: begin -->\n", "<!-- nir_conformance: end -->\n"
SAID_NO = 4
Runner = Callable[[Path, Case], np.ndarray]


def layers(path: Path, of: Case) -> np.ndarray:
    """Layers of ours, of a chain."""
    x = torch.from_numpy(of.inputs).unsqueeze(1)
    for layer in to_modules(nir.read(path)):
        if isinstance(layer, Neuron):
            flat = x.reshape(len(x), 1, -1)
            x = layer.scan(flat, layer.init_state(1))[0].reshape(x.shape)
        else:
            x = layer(x.flatten(0, 1)).unflatten(0, (len(x), 1))
    return x[:, 0].numpy()


def network(path: Path, of: Case) -> np.ndarray:
    net = NirNetwork(nir.read(path))
    return net.scan(torch.from_numpy(of.inputs).unsqueeze(1), net.init_state(1))[0][:, 0].numpy()


def counted(path: Path, of: Case) -> np.ndarray:
    return run(nir.read(path), of.inputs)["output"]


def brian2(path: Path, of: Case) -> np.ndarray:
    from sims.circuits.nir_network import run as in_brian2

    return in_brian2(nir.read(path), of.inputs)["output"]


def peer(load: Callable[[Any], Any]) -> Runner:
    """A peer's importer as a runner: the better of a run with a batch axis and one without."""

    def runner(path: Path, of: Case) -> np.ndarray:
        import nir as theirs

        tries: list[np.ndarray | Exception] = []
        for batched in (True, False):
            made, state, found = load(theirs.read(path)), None, []
            try:
                for row in torch.from_numpy(of.inputs):
                    out, state = made(row.unsqueeze(0) if batched else row, state)
                    found.append(np.asarray(out.detach()).reshape(of.answer.values.shape[1:]))
                tries.append(np.stack(found))
            except Exception as error:  # noqa: BLE001 - whatever a peer raises is its answer
                tries.append(error)
        runs = [x for x in tries if isinstance(x, np.ndarray)]
        if not runs:
            raise _BreaksError(f"{type(tries[0]).__name__}: {tries[0]}")
        return min(runs, key=lambda x: int(differs(x, of).sum()))

    return runner


def snntorch(graph: Any) -> Any:
    from snntorch.import_nir import import_from_nir

    return import_from_nir(graph)


def norse(graph: Any) -> Any:
    from norse.torch import from_nir

    made = from_nir(graph, dt=DT)
    kept = dict(made.named_children())
    lost = [type(node).__name__ for name, node in graph.nodes.items() if name not in kept]
    lost = [kind for kind in lost if kind not in ("Input", "Output")]
    if lost:  # what is left has several beginnings, of which one is taken by its place in memory
        raise _DropsError(lost[0])
    return made


def spikingjelly(graph: Any) -> Any:
    from spikingjelly.activation_based.nir_exchange import import_from_nir

    return import_from_nir(graph, dt=DT)


RUNNERS: dict[str, tuple[str, Runner]] = {
    "layers": ("torch", layers),
    "network": ("torch", network),
    "sims.nir": ("numpy", counted),
    "Brian2": ("brian2", brian2),
    "snnTorch": ("snntorch", peer(snntorch)),
    "norse": ("norse", peer(norse)),
    "SpikingJelly": ("spikingjelly", peer(spikingjelly)),
}

PEERS = ("snnTorch", "norse", "SpikingJelly")


def differs(found: np.ndarray, of: Case) -> np.ndarray:
    """bool [T, *shape]"""
    expected = of.answer.values
    if of.analog:
        return ~(np.abs(found - expected) <= 1e-4 * np.abs(expected).max())
    return found != expected


def outcome(runner: Runner, path: Path, of: Case) -> dict[str, Any]:
    """What became of a case: "equal", "differs" with the first step and both sums, "drops" a node, "refused" (on import) or
    "breaks" (when run) with the reason."""
    heard = _Heard()
    logging.getLogger().addHandler(heard)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            found = runner(path, of)
    except Exception as error:  # noqa: BLE001 - whatever a peer raises is its answer
        kind, text = type(error).__name__, " ".join(str(error).split())
        if isinstance(error, _DropsError):
            return {"is": f"drops {text}"}
        if isinstance(error, _BreaksError):
            return {"is": "breaks", "why": text[:110]}
        return {"is": "refused", "why": f"{kind}: {text}"[:110]}
    finally:
        logging.getLogger().removeHandler(heard)
    other = differs(found, of)
    record: dict[str, Any] = {"warned": heard.count > 0}
    if not other.any():
        return record | {"is": "equal"}
    first = int(other.reshape(len(other), -1).any(1).argmax())
    sums = [float(x.sum()) for x in (of.answer.values, found)]
    return record | {"is": "differs", "step": first, "expected": sums[0], "found": sums[1]}


class _BreaksError(Exception):
    """What was imported cannot be run."""


class _DropsError(Exception):
    """A node is left out of what was imported, and nothing is said."""


class _Heard(logging.Handler):
    """Counts what a peer warns of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1


def cell(row: dict[str, Any]) -> str:
    if row["is"] != "differs":
        return row["is"]
    said = "" if row["warned"] else ", silent"
    return f"step {row['step']}: {row['expected']:.0f} -> {row['found']:.0f}{said}"


def table(found: dict[str, dict[str, dict[str, Any]]], versions: dict[str, str]) -> str:
    """Markdown: the table, then why a peer refused."""
    heads = [f"{name} {versions[name]}".strip() for name in found]
    lines = [f"| graph | what it asks | {' | '.join(heads)} |", "|---" * (2 + len(heads)) + "|"]
    for name in NAMES:
        cells = [cell(rows[name]) for rows in found.values()]
        lines.append(f"| {name} | {case(name).about} | {' | '.join(cells)} |")
    lines.append("| **equal** | | " + " | ".join(_share(rows) for rows in found.values()) + " |")
    reasons = ["", "What the peers said where a graph was refused or broke:", ""]
    for runner, rows in found.items():
        if runner not in PEERS:
            continue
        by_reason: dict[str, list[str]] = {}
        for name, row in rows.items():
            if "why" in row:
                by_reason.setdefault(row["why"].replace("|", "/"), []).append(name)
        reasons += [f"- {runner}, {', '.join(names)}: `{why}`" for why, names in by_reason.items()]
    return "\n".join([*lines, *reasons]) + "\n"


def _share(rows: dict[str, dict[str, Any]]) -> str:
    return f"{sum(row['is'] == 'equal' for row in rows.values())} of {len(rows)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table between the marks of this page")
    parser.add_argument("--check", type=Path, metavar="PAGE", help="say no unless this page has the same table")
    args = parser.parse_args()
    torch.set_num_threads(1)
    here = {n: made for n, (package, made) in RUNNERS.items() if importlib.util.find_spec(package) is not None}
    found: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in here}
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            path = Path(folder) / f"{name}.nir"
            nir.write(case(name).graph, path)
            for runner, made in here.items():
                found[runner][name] = outcome(made, path, case(name))
            print(name, file=sys.stderr)
    versions = {name: _version(RUNNERS[name][0]) for name in found}
    text = table(found, versions)
    page = args.write or args.check
    old = page.read_text(encoding="utf-8") if page else ""
    before, _, rest = old.partition(BEGIN)
    new = before + BEGIN + text + END + rest.partition(END)[2] if page else ""
    if args.write:
        atomic.write_text(args.write, new)
    record = {"machine": _machine.describe(), "dt": DT, "missing": sorted(RUNNERS.keys() - here.keys())}
    print(json.dumps(record | {"versions": versions, "cases": found}, indent=1))
    # What is said may depend on versions below the peers'; what is so does not.
    rows = [[line for line in text.splitlines() if line.startswith("|")] for text in (old, new)]
    if args.check and rows[0] != rows[1]:
        print(f"{page}: the table is another one; run with --write {page} and look at what changed.", file=sys.stderr)
        return SAID_NO
    return 0


def _version(package: str) -> str:
    from importlib import metadata

    return metadata.version(package) if package in ("brian2", "snntorch", "norse", "spikingjelly") else ""


if __name__ == "__main__":
    sys.exit(main())
