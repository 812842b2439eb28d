"""The gate of the profile ``dml``: every node must be one that ONNX Runtime's DirectML provider has.

A node that the provider lacks runs on the CPU between two copies, silently, so it is refused here. The table
``directml_operators.json`` is the provider's own documentation; it has no Scan, Loop, LinearAttention, GatherBlockQuantized,
Gelu or RMSNormalization of ai.onnx, and no Mod of int64. What a driver makes of the operators is not checked.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from export.manifest import nodes_of
from neuro.errors import CheckError

_FREE = ("Constant",)  # folded away before a provider is asked
_OPSETS = (
    18,
    20,
)  # of ai.onnx: older lacks the forms of Reduce and Split that we write, newer brings operators it lacks


@functools.cache
def table() -> dict[str, Any]:
    """The provider's operators: domain -> name -> (key of the first input's types, versions it has the operator of)."""
    loaded: dict[str, Any] = json.loads(Path(__file__).with_name("directml_operators.json").read_text(encoding="utf-8"))
    return loaded


def violations(model: onnx.ModelProto) -> list[str]:
    """What in ``model`` the provider cannot run, in words; empty when all of it can."""
    versions = {opset.domain or "ai.onnx": opset.version for opset in model.opset_import}
    found = []
    if not _OPSETS[0] <= versions.get("ai.onnx", 0) <= _OPSETS[1]:
        found.append(f"opset {versions.get('ai.onnx')} of ai.onnx")
    types = _element_types(model)
    for node in nodes_of(model.graph):
        domain = node.domain or "ai.onnx"
        if domain == "ai.onnx" and node.op_type in _FREE:
            continue
        kinds, since = table()["operators"].get(domain, {}).get(node.op_type, ("", ()))
        if not since:
            found.append(f"{domain}.{node.op_type}")
            continue
        if domain == "ai.onnx":
            schema = onnx.defs.get_schema(node.op_type, max_inclusive_version=versions["ai.onnx"], domain="")
            if schema.since_version not in since:
                found.append(f"{node.op_type} of opset {schema.since_version}")
        element = types.get(node.input[0]) if node.input else None
        if element and element not in table()["types"][kinds]:
            found.append(f"{node.op_type} of {element}")
    return sorted(set(found))


def check(path: Path) -> None:
    """Raises CheckError unless the provider has every node of the graph at ``path``."""
    found = violations(onnx.load(path))
    if found:
        raise CheckError(
            f"{path.name}: got {', '.join(found)}, expected operators of the DirectML provider only.",
            "Export with --profile cpu, or without what needs them.",
        )


def _element_types(model: onnx.ModelProto) -> dict[str, str]:
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {tensor.name: tensor.data_type for tensor in inferred.initializer}
    for value in (*inferred.input, *inferred.output, *inferred.value_info):
        types[value.name] = value.type.tensor_type.elem_type
    return {name: TensorProto.DataType.Name(kind).lower() for name, kind in types.items()}
