"""int8 weights for ``step.onnx``: dynamic, per channel, the tied vocabulary matrix stored once; an error when too little
was quantized.

Scheme (onnxruntime ``quantize_dynamic``): a weight column becomes int8 with its own scale, the activation in front of it
becomes uint8 with one scale per call, and the product is summed in int32. Norms, gates, state and memories stay float.
"""

from __future__ import annotations

import logging
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from export.onnx_graph import EMBEDDING
from neuro.errors import NeuroError

RECIPES = ("int8",)
LEAST_SHARE = 0.95  # of the bytes of all weight matrices
_THIN = 16  # a matrix thinner than this is a gate or a hormone's effect: nothing to save, much to disturb
_TURNED = EMBEDDING + ".T"


def int8(step: Path) -> dict[str, Any]:
    """Quantize ``step.onnx`` in place -> what was done.

    Raises:
        NeuroError: less than 95 % of the weight bytes were quantized (a silent no-op is no quantization).
    """
    model = onnx.load(step)
    before = sum(math.prod(tensor.dims) for tensor in _float_matrices(model))
    _turn_embedding(model)
    weights = {tensor.name: tensor.dims for tensor in _float_matrices(model)}
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    thin = [node.name for node in products if min(weights.get(node.input[1], [0])) < _THIN]
    # The teaching signal's product is given the shared int8 rows afterwards; here it would get a second copy of them.
    left_out = [*thin, *(node.name for node in products if node.input[1] == EMBEDDING)]
    turned, result = step.with_suffix(".turned.onnx"), step.with_suffix(".int8.onnx")
    try:
        onnx.save(model, turned)
        _quantize(turned, result, left_out)
        quantized = onnx.load(result)
    finally:
        turned.unlink(missing_ok=True)
        result.unlink(missing_ok=True)
    _share_embedding(quantized)
    _drop_unread(quantized)
    left = {tensor.name: tensor.dims for tensor in _float_matrices(quantized)}
    share = 1.0 - sum(map(math.prod, left.values())) / before
    if share < LEAST_SHARE:
        raise NeuroError(
            f"quantize: {100 * share:.1f} % of the weight bytes became int8, expected at least {100 * LEAST_SHARE:.0f} %.",
            "Export without --quantize. Left in float: " + ", ".join(sorted(left)) + ".",
        )
    onnx.checker.check_model(quantized)
    onnx.save(quantized, step)
    return {
        "recipe": "int8",
        "weights": "int8, symmetric, one scale per output channel (per token for the vocabulary matrix)",
        "activations": "uint8, one scale per call, found at run time: rows of a batch share it",
        "share_of_weight_bytes": round(share, 4),
        "left_in_float": {name: list(dims) for name, dims in sorted(left.items())},
    }


def recipe_of(step: Path) -> str | None:
    """The recipe that a ``step.onnx`` was quantized by; None for a float graph."""
    kinds = {tensor.data_type for tensor in onnx.load(step).graph.initializer if len(tensor.dims) >= 2}
    return "int8" if TensorProto.INT8 in kinds else None


def _float_matrices(model: onnx.ModelProto) -> list[TensorProto]:
    return [t for t in model.graph.initializer if len(t.dims) >= 2 and t.data_type == TensorProto.FLOAT]


def _quantize(source: Path, result: Path, left_out: list[str]) -> None:
    root = logging.getLogger()  # the quantizer advises through it
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for category in (DeprecationWarning, FutureWarning):
                warnings.simplefilter("ignore", category)
            quantize_dynamic(
                source,
                result,
                op_types_to_quantize=["MatMul"],
                per_channel=True,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=left_out,
                extra_options={"MatMulConstBOnly": True},
            )
    finally:
        root.setLevel(level)


def _turn_embedding(model: onnx.ModelProto) -> None:
    """Make the transposed vocabulary matrix a weight of its own: the quantizer takes only constants."""
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Transpose" and node.input[0] == EMBEDDING:
            turned = np.ascontiguousarray(numpy_helper.to_array(weights[EMBEDDING]).T)
            graph.initializer.append(numpy_helper.from_array(turned, _TURNED))
            for reader in graph.node:
                reader.input[:] = [_TURNED if name == node.output[0] else name for name in reader.input]
            graph.node.remove(node)
            return


def _share_embedding(model: onnx.ModelProto) -> None:
    """Let the token look-up and the teaching signal read the readout's int8 rows: one matrix in the file."""
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    columns, scale = weights.get(f"{_TURNED}_quantized"), f"{_TURNED}_scale"
    if columns is None:
        return
    rows = f"{EMBEDDING}_quantized"
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(numpy_helper.to_array(columns).T), rows))
    graph.initializer.remove(columns)
    graph.initializer.append(numpy_helper.from_array(np.array([-1], dtype=np.int64), f"{EMBEDDING}_axis"))
    nodes = [helper.make_node("Transpose", [rows], [columns.name], f"{EMBEDDING}_turn", perm=[1, 0])]
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] == EMBEDDING:
            shares, out = node.input[0], node.output[0]
            nodes += [
                helper.make_node("Mul", [shares, scale], [f"{out}_scaled"], f"{out}_scale"),
                helper.make_node("Cast", [rows], [f"{out}_cast"], f"{out}_widen", to=TensorProto.FLOAT),
                helper.make_node("MatMul", [f"{out}_scaled", f"{out}_cast"], [out], node.name),
            ]
            continue
        if node.op_type != "Gather" or node.input[0] != EMBEDDING:
            nodes.append(node)
            continue
        ids, out = node.input[1], node.output[0]
        nodes += [
            helper.make_node("Gather", [rows, ids], [f"{out}_int8"], f"{out}_rows"),
            helper.make_node("Cast", [f"{out}_int8"], [f"{out}_cast"], f"{out}_widen", to=TensorProto.FLOAT),
            helper.make_node("Gather", [scale, ids], [f"{out}_scale"], f"{out}_scales"),
            helper.make_node("Unsqueeze", [f"{out}_scale", f"{EMBEDDING}_axis"], [f"{out}_scale_1"], f"{out}_column"),
            helper.make_node("Mul", [f"{out}_cast", f"{out}_scale_1"], [out], f"{out}_rescale"),
        ]
    del graph.node[:]
    graph.node.extend(nodes)


def _drop_unread(model: onnx.ModelProto) -> None:
    graph = model.graph
    read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:], graph.value_info[:]
    graph.initializer.extend(kept)
