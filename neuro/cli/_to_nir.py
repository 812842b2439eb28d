"""neuro export --to nir: the spiking parts of a brain, or a classifier that neuro train wrote, as NIR files."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuro.cli import _model, refuse

if TYPE_CHECKING:
    from export.nir_graph import Part


def run(args: argparse.Namespace) -> int:
    """Write the files and print what is in them, or as JSON."""
    from export import nir_graph

    parts = _parts(args)
    rows = []
    for part, path in zip(parts, nir_graph.write(parts, args.out), strict=True):
        told, shapes = part.graph.metadata, part.graph.shapes
        row: dict[str, Any] = {"file": str(path), "part": part.name, "bytes": path.stat().st_size}
        row |= {"input": shapes["input"][0], "output": shapes["output"][1], "nodes": len(part.graph.nodes)}
        rows.append(row | {key: told[key] for key in ("dt", "reset", "threshold_rule")})
    if args.json:
        print(json.dumps({"schema": "neuro.export.nir/1", "model": args.model, "parts": rows}))
        return 0
    for row in rows:
        ports = " -> ".join("x".join(map(str, row[key])) for key in ("input", "output"))
        rule = f"reset {row['reset']}, fires {row['threshold_rule']} the threshold, dt {row['dt']:g} s"
        print(f"{row['file']}: {row['part']}, {ports}, {row['nodes']} nodes, {rule}")
    if not args.quiet:
        print("what comes in, goes out and was cut is in the metadata of each file")
        print(f"try: neuro energy {rows[0]['file']}")
    return 0


def _parts(args: argparse.Namespace) -> list[Part]:
    from export.nir_graph import Part, of_brain, of_module
    from neuro.cli._tasks import CLASSIFIER

    path = Path(args.model)
    file = path / CLASSIFIER if path.is_dir() else path
    if not file.is_file() or file.suffix != ".safetensors":
        return of_brain(_model.load(args.model, args))
    refuse(args, "export CLASSIFIER --to nir", ["set"])
    import backends
    from neuro.presets_tasks import STEP_MS
    from neuro.train import classify

    model, about = classify.load(file, backends.select("cpu"))
    return [Part("classifier", of_module(model, dt_ms=STEP_MS.get(str(about.get("task")), 1.0)))]
