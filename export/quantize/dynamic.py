"""int8: dynamic, per channel, the tied vocabulary matrix stored once.

Scheme (onnxruntime ``quantize_dynamic``): a weight column becomes int8 with its own scale, the activation in front of it
becomes uint8 with one scale per call, and the product is summed in int32. `remainders` adds bits where a threshold follows.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from export.onnx_graph import EMBEDDING
from export.quantize import remainders, rewrites, weights

MIDDLE = 128  # of the levels of a weight, where 0 is


def int8(step: Path) -> dict[str, Any]:
    """Quantize a float32 step graph in place -> what was done.

    Raises:
        NeuroError: less than 95 % of the weight bytes were quantized (a silent no-op is no quantization).
    """
    model = onnx.load(step)
    before = weights.size(model)
    rewrites.rewrite(model)
    weights.turn_embedding(model)
    found = weights.float_matrices(model)
    matrix = numpy_helper.to_array(found[EMBEDDING]) if EMBEDDING in found else None
    weights.put_on_grid(model)
    thick = {node.name for node in weights.thick_products(model)}
    thin = [node.name for node in model.graph.node if node.op_type == "MatMul" and node.name not in thick]
    turned, result = step.with_suffix(".turned.onnx"), step.with_suffix(".int8.onnx")
    try:
        onnx.save(model, turned)
        _quantize(turned, result, thin)
        quantized = onnx.load(result)
    finally:
        turned.unlink(missing_ok=True)
        result.unlink(missing_ok=True)
    split = remainders.second_activations(quantized)
    without_sign(quantized)
    account = finish(quantized, step, before, matrix)
    return {
        "recipe": "int8",
        "weights": "int8, symmetric, one scale per output channel (per token for the vocabulary matrix), as uint8 around 128",
        "activations": "uint8, one scale per call, found at run time: rows of a batch share it",
        "two_products": split,
        "rewrites": list(rewrites.NAMES),
        **account,
    }


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


def without_sign(model: onnx.ModelProto) -> None:
    """Store the int8 weights of integer products as uint8 around 128: the same numbers.

    Of uint8 times int8 an x86 processor without VNNI adds pairs of products in 16 bits, which overflow at large weights; of
    uint8 times uint8 none does.
    """
    products = [node for node in model.graph.node if node.op_type == "MatMulInteger"]
    read = {name for node in products for name in (node.input[1], *node.input[3:])}
    for tensor in model.graph.initializer:
        if tensor.name in read and tensor.data_type == TensorProto.INT8:
            levels = numpy_helper.to_array(tensor).astype(np.int16) + MIDDLE
            tensor.CopyFrom(numpy_helper.from_array(levels.astype(np.uint8), tensor.name))


def finish(model: onnx.ModelProto, step: Path, before: int, matrix: np.ndarray | None) -> dict[str, Any]:
    """Store the vocabulary matrix once, check the int8 graph and write it to ``step`` -> `weights.account`.

    Args:
        before: `weights.size` of the float32 graph.
        matrix: the vocabulary matrix in float32 [V,D]; None where there is none.

    Raises:
        NeuroError: less than 95 % of the weight bytes were quantized.
    """
    share_embedding(model, f"{weights.TURNED}_quantized", f"{weights.TURNED}_scale")
    rows, held = 0, {tensor.name: tensor for tensor in model.graph.initializer}
    if matrix is not None and f"{EMBEDDING}_quantized" in held:
        levels, scale = (
            numpy_helper.to_array(held[name]).astype(np.float32)
            for name in (f"{EMBEDDING}_quantized", f"{weights.TURNED}_scale")
        )
        rows = remainders.finer_rows(model, matrix, (levels - MIDDLE) * scale[:, None], remainders.SHARE["int8"])
    rewrites.sort_nodes(model)
    weights.drop_unread(model)
    account = weights.account("int8", before, model) | {"finer_rows": rows}
    onnx.checker.check_model(model)
    onnx.save(model, step)
    return account


def share_embedding(model: onnx.ModelProto, columns: str, scale: str) -> None:
    """Let look-ups read the readout's int8 matrix ``columns`` [D,V] with ``scale`` [V]: one matrix in the file, by rows."""
    graph = model.graph
    stored = next((tensor for tensor in graph.initializer if tensor.name == columns), None)
    if stored is None:
        return
    rows, last = f"{EMBEDDING}_quantized", f"{EMBEDDING}_last"
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(numpy_helper.to_array(stored).T), rows))
    graph.initializer.remove(stored)
    graph.initializer.append(numpy_helper.from_array(np.array([-1], dtype=np.int64), last))
    nodes = [helper.make_node("Transpose", [rows], [columns], f"{EMBEDDING}_turn", perm=[1, 0])]
    middle = f"{EMBEDDING}_middle"
    graph.initializer.append(numpy_helper.from_array(np.array(MIDDLE, np.float32), middle))

    def restored(levels: str, scales: str, made: str, name: str) -> list[onnx.NodeProto]:
        """uint8 rows and their scales, a number each -> float32."""
        return [
            helper.make_node("Cast", [levels], [f"{made}_cast"], f"{made}_widen", to=TensorProto.FLOAT),
            helper.make_node("Sub", [f"{made}_cast", middle], [f"{made}_levels"], f"{made}_shift"),
            helper.make_node("Unsqueeze", [scales, last], [f"{made}_scale_1"], f"{made}_column"),
            helper.make_node("Mul", [f"{made}_levels", f"{made}_scale_1"], [made], name),
        ]

    if rewrites.reads_every_row(graph):
        nodes += restored(rows, scale, rewrites.EVERY_ROW, f"{EMBEDDING}_restore")
    for node in graph.node:
        if node.op_type != "Gather" or node.input[0] != EMBEDDING:
            node.input[:] = [rewrites.EVERY_ROW if name == EMBEDDING else name for name in node.input]
            nodes.append(node)
            continue
        ids, out = node.input[1], node.output[0]
        nodes += [
            helper.make_node("Gather", [rows, ids], [f"{out}_uint8"], f"{out}_rows"),
            helper.make_node("Gather", [scale, ids], [f"{out}_scale"], f"{out}_scales"),
            *restored(f"{out}_uint8", f"{out}_scale", out, f"{ids}{remainders.LOOKED_UP}"),
        ]
    del graph.node[:]
    graph.node.extend(nodes)
