"""The manifest of an export, and the part of it that lies inside each graph so that a lone file stays usable.

A graph's own part is the ``metadata_props`` of its file: producer and version, recipe, what a fresh stream holds, which
output becomes which input, and after how many tokens a span ends. `check` holds both against the graphs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import onnx

import neuro
from export import decoder, ports, recipes
from export.runtime import SCHEMA
from neuro import folder
from neuro.brain import Brain

# What each graph's file repeats of the manifest, under "neuro." and the same name.
# Who commits, and so learns: which runner by which graph.
LEARNS = {"run.py": "commit", "onnxruntime-genai": "decoder"}
PAST, PRESENT = "past_key_values", "present"  # the decoder's state
INSIDE = (
    "schema",
    "profile",
    "vocab_size",
    "plasticity_span",
    "prosody_channels",
    "bos",
    "never_written",
    "fingerprint",
)


def describe(
    brain: Brain, new: Path, recipe: str | None, profile: str, graphs: Sequence[str] | None = None
) -> dict[str, Any]:
    """The manifest of the graphs (all of the profile) that lie in ``new``, without what is measured."""
    tokenizer, octaves = brain.tokenizer, brain.config.endocrine.temperature_octaves
    return {
        "schema": SCHEMA,
        "neuro": neuro.__version__,
        "versions": {name: metadata.version(name) for name in ("torch", "onnx", "onnxruntime", "numpy")},
        "profile": profile,
        "learns": {
            runner: True for runner, graph in LEARNS.items() if graph in (graphs or recipes.graphs(profile, recipe))
        },
        "fingerprint": folder.fingerprint(brain),
        "vocab_size": brain.config.vocab_size,
        "plasticity_span": brain.config.plasticity_span,
        "prosody_channels": brain.config.prosody_channels,
        "bos": tokenizer.bos_id,
        "never_written": list(tokenizer.never_written),
        **({"temperature_octaves": octaves} if octaves else {}),  # a folder without it samples as it is told
        "state": [dataclasses.asdict(port) for port in ports.state_ports(brain)],
        "memory": ports.memory_ports(brain),
        "graphs": {
            name: _describe_graph(new, recipes.file_of(name, recipe))
            for name in graphs or recipes.graphs(profile, recipe)
        },
    }


def _describe_graph(new: Path, file: str) -> dict[str, Any]:
    model = onnx.load(new / file, load_external_data=False)
    into = [_describe_port(value) for value in model.graph.input]
    out = [_describe_port(value) for value in model.graph.output]
    props = {prop.key: prop.value for prop in model.metadata_props}
    given = {port["name"] for port in out}
    pairs = {name: ports.OUT + name.removeprefix(ports.INTO) for name in _state_names(into, out)}
    pairs |= {name: name.replace(PAST, PRESENT) for name in (port["name"] for port in into) if name.startswith(PAST)}
    pairs = {name: next_name for name, next_name in pairs.items() if next_name in given}
    return {
        "file": file,
        "bytes": (new / file).stat().st_size,
        "opset": {opset.domain or "ai.onnx": opset.version for opset in model.opset_import},
        "inputs": into,
        "outputs": out,
        "state": pairs,
        "constant": [p["name"] for p in into if p["name"].startswith(ports.INTO) and p["name"] not in pairs],
        **({"packed": json.loads(props[decoder.PACKED])} if decoder.PACKED in props else {}),
        "operators": dict(Counter(node.op_type for node in nodes_of(model.graph)).most_common()),
    }


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node, those inside Scan and If too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from nodes_of(attribute.g)


def _state_names(into: list[dict[str, Any]], out: list[dict[str, Any]]) -> list[str]:
    """State ports that the graph reads or writes, by their input name."""
    read = [port["name"] for port in into if port["name"].startswith(ports.INTO)]
    written = [ports.INTO + p["name"].removeprefix(ports.OUT) for p in out if p["name"].startswith(ports.OUT)]
    return list(dict.fromkeys(read + written))


def _describe_port(value: onnx.ValueInfoProto) -> dict[str, Any]:
    tensor = value.type.tensor_type
    return {
        "name": value.name,
        "dtype": onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name,
        "shape": [axis.dim_param or axis.dim_value for axis in tensor.shape.dim],
    }


def inside(manifest: dict[str, Any], graph: str, recipe: str | None) -> dict[str, str]:
    """What the file of ``graph`` says about itself, as ``metadata_props``; values that are no text are JSON."""
    entry = manifest["graphs"][graph]
    told = {"graph": graph, "recipe": recipe or "float32", "state": manifest["state"], "next": entry["state"]}
    told |= {key: manifest[key] for key in INSIDE} | ({"packed": entry["packed"]} if "packed" in entry else {})
    return {f"neuro.{key}": value if isinstance(value, str) else json.dumps(value) for key, value in told.items()}


def stamp(path: Path, told: dict[str, str]) -> None:
    """Write ``told`` and the producer into the graph at ``path``."""
    model = onnx.load(path, load_external_data=False)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, told)
    model.producer_name, model.producer_version = "neuro", neuro.__version__
    onnx.save(model, path)


def describe_file(path: Path) -> dict[str, Any]:
    """Its entry in the manifest."""
    with open(path, "rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
