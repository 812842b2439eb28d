"""What every recipe does with the weight matrices of a step graph: find them, count them, account for what was done.

A matrix is an initializer of two axes in float32. K inputs, N outputs, V vocabulary, D model.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from export.onnx_graph import EMBEDDING
from neuro import rounding
from neuro.errors import NeuroError

LEAST_SHARE = 0.95  # of the bytes of all weight matrices
TURNED = EMBEDDING + ".T"
SCALES = "_scales"  # ends the name of the float scales that belong to a quantized matrix


def float_matrices(model: onnx.ModelProto) -> dict[str, TensorProto]:
    """Weight matrices in float32 by name."""
    return {
        tensor.name: tensor
        for tensor in model.graph.initializer
        if len(tensor.dims) >= 2 and tensor.data_type == TensorProto.FLOAT and not tensor.name.endswith(SCALES)
    }


def size(model: onnx.ModelProto) -> int:
    """Elements of all float matrices."""
    return sum(math.prod(tensor.dims) for tensor in float_matrices(model).values())


def thick_products(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """MatMul nodes whose right side is a weight matrix that is worth quantizing.

    A prefill's product with all rows of the vocabulary matrix is left: it gets the readout's rows, not a second copy.
    """
    found = float_matrices(model)
    found.pop(EMBEDDING, None)
    return [
        node
        for node in model.graph.node
        if node.op_type == "MatMul" and node.input[1] in found and min(found[node.input[1]].dims) >= rounding.THIN
    ]


def turn_embedding(model: onnx.ModelProto) -> None:
    """Make the transposed vocabulary matrix a weight [D,V] of its own: quantizers take only constants."""
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Transpose" and node.input[0] == EMBEDDING:
            turned = np.ascontiguousarray(numpy_helper.to_array(weights[EMBEDDING]).T)
            graph.initializer.append(numpy_helper.from_array(turned, TURNED))
            for reader in graph.node:
                reader.input[:] = [TURNED if name == node.output[0] else name for name in reader.input]
            graph.node.remove(node)
            return


def put_on_grid(model: onnx.ModelProto) -> None:
    """Round the matrices of `thick_products` to int8 by `neuro.rounding`, whose grid a quantizer then finds again."""
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    for name in {node.input[1] for node in thick_products(model)}:
        matrix = rounding.once(numpy_helper.to_array(held[name]).T, "int8").T
        held[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(matrix), name))


def drop_unread(model: onnx.ModelProto) -> None:
    """Remove initializers that nothing reads, and the shapes the quantizers leave behind."""
    graph = model.graph
    read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:], graph.value_info[:]
    graph.initializer.extend(kept)


def account(recipe: str, before: int, model: onnx.ModelProto) -> dict[str, Any]:
    """How much was quantized, for the manifest.

    Args:
        before: elements of the float matrices that there were.

    Raises:
        NeuroError: less than 95 % of the weight bytes are quantized.
    """
    left = {name: list(tensor.dims) for name, tensor in sorted(float_matrices(model).items())}
    share = 1.0 - sum(map(math.prod, left.values())) / max(1, before)
    if share < LEAST_SHARE:
        raise NeuroError(
            f"quantize: {100 * share:.1f} % of the weight bytes became {recipe}, "
            f"expected at least {100 * LEAST_SHARE:.0f} %.",
            "Export without --quantize. Left in float: " + ", ".join(left) + ".",
        )
    return {"share_of_weight_bytes": round(share, 4), "left_in_float": left}
