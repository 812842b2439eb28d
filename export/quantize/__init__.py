"""Recipes that make the float32 step graph smaller and quicker; each takes the path of one and replaces it.

int8         weights int8 per output channel, activations uint8 with one scale per call found at run time
int8-static  the same weights, activations uint8 with scales found beforehand on a text of the user's
int4         weights 4 bits in blocks of 32 inputs; activations int8 with one scale per block, inside the kernel; with a text
             of the user's the weights are rounded so that the products on it keep most

Norms, gates, state and memories stay float in all of them. Each is an error where less than 95 % of the weight bytes were
quantized: a quantizer that finds nothing says nothing. `rewrites` first makes the graph read less, whatever its weights' type.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto

from export.quantize import calibrated, compensated
from export.quantize.blocks import int4
from export.quantize.calibrated import Feed, calibration_ids, feeds, static
from export.quantize.dynamic import int8
from export.quantize.weights import LEAST_SHARE

__all__ = [
    "CALIBRATED", "LEAST_SHARE", "RECIPES", "Feed", "calibration_ids", "feeds", "int4", "int8", "recipe_of", "static",
]  # fmt: skip

RECIPES = ("int8", "int8-static", "int4")
CALIBRATED = {
    "int8-static": calibrated.TOKENS,
    "int4": compensated.TOKENS,
}  # which read a text, and how many tokens of it


def recipe_of(step: Path) -> str | None:
    """The recipe that a step graph was quantized by; None for a float graph."""
    graph = onnx.load(step).graph
    if any(node.op_type == "MatMulNBits" for node in graph.node):
        return "int4"
    stored = {
        tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.UINT8 and len(tensor.dims) > 1
    }
    if not stored:
        return None
    return (
        "int8"
        if any(node.op_type == "MatMulInteger" and node.input[1] in stored for node in graph.node)
        else "int8-static"
    )
