"""int4: weights of 4 bits in blocks of 32 inputs with a scale and a zero point each; the vocabulary matrix too, stored once.

    w = scale_b (q - zero_b),  q in 0..15,  b = one of ceil(K / 32) blocks of an output's K inputs

Products are ``com.microsoft.MatMulNBits`` at accuracy level 4 (the kernel rounds the activations to int8, one scale per block
and row); a token's row is ``GatherBlockQuantized`` of the same bytes. The grid is `neuro.rounding`'s; `remainders` adds bits to
frequent rows.
With a calibration text the levels are those that cost the products least on it (`compensated`); those of the vocabulary matrix
stay the nearest, since its rows are looked up too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export.onnx_graph import EMBEDDING
from export.quantize import remainders, rewrites, weights
from export.quantize.calibrated import Feed
from export.quantize.compensated import compensated, error_of, moments
from neuro.rounding import BLOCK, LEVELS, Blocks, read, rounded

_DOMAIN = "com.microsoft"


def int4(step: Path, calibration: Iterable[Feed] = ()) -> dict[str, Any]:
    """Quantize a float32 step graph in place -> what was done.

    Args:
        calibration: what the graph is given, token after token (`calibrated.feeds`); none rounds every weight to the nearest.

    Raises:
        NeuroError: less than 95 % of the weight bytes were quantized (products that are no MatMul are not seen).
    """
    model = onnx.load(step)
    graph, before = model.graph, weights.size(model)
    rewrites.rewrite(model)
    weights.turn_embedding(model)
    found, products = weights.float_matrices(model), weights.thick_products(model)
    fed = {node.input[1]: node.input[0] for node in products if node.input[1] != weights.TURNED}
    known, tokens = moments(model, sorted(set(fed.values())), calibration)
    errors: list[list[float]] = []  # of each product, plain and compensated
    for node in products:
        name = node.input[1]
        inputs, outputs = found[name].dims
        if f"{name}_q4" not in {tensor.name for tensor in graph.initializer}:
            matrix = numpy_helper.to_array(found[name]).T
            parts = plain = rounded(matrix)
            if known and name in fed:
                moment = known[fed[name]]
                parts = (compensated(matrix, plain, moment, LEVELS), *plain[1:])
                errors.append([error_of(read(levels, inputs), matrix, moment) for levels in (plain, parts)])
            _store(graph, name, parts)
        packed = [f"{name}_q4", f"{name}{weights.SCALES}", f"{name}_zeros"]
        product = helper.make_node(
            "MatMulNBits", [node.input[0], *packed], list(node.output), node.name, domain=_DOMAIN,
            K=inputs, N=outputs, bits=4, block_size=BLOCK, accuracy_level=4,
        )  # fmt: skip
        node.CopyFrom(product)
    _look_up(model)
    rows = 0
    if EMBEDDING in found:
        matrix = numpy_helper.to_array(found[EMBEDDING])
        rows = remainders.finer_rows(model, matrix, read(rounded(matrix), matrix.shape[1]), remainders.SHARE["int4"])
    rewrites.sort_nodes(model)
    weights.drop_unread(model)
    account = weights.account("int4", before, model) | {"finer_rows": rows}
    if tokens:
        plainly, better = np.mean(errors, 0).round(5).tolist()
        told = {"plain": plainly, "error-compensated": better}
        account |= {"calibration": {"tokens": tokens, "mean_error_of_a_product": told}}
    if all(opset.domain != _DOMAIN for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    onnx.checker.check_model(model)
    onnx.save(model, step)
    return {
        "recipe": "int4",
        "weights": f"4 bits, asymmetric, one float32 scale and one 4-bit zero point per {BLOCK} inputs of an output",
        "activations": "int8, one scale per block and row, inside the kernel",
        "rewrites": list(rewrites.NAMES),
        **account,
    }


def _store(graph: onnx.GraphProto, name: str, parts: Blocks) -> None:
    """Append packed rows: two levels a byte, the lower half first."""
    levels, scales, zeros = parts
    if zeros.shape[1] % 2:
        zeros = np.pad(zeros, ((0, 0), (0, 1)))
    for suffix, tensor in (
        ("_q4", levels[..., ::2] | levels[..., 1::2] << 4),
        (weights.SCALES, scales),
        ("_zeros", zeros[:, ::2] | zeros[:, 1::2] << 4),
    ):
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(tensor), f"{name}{suffix}"))


def _look_up(model: onnx.ModelProto) -> None:
    """Let look-ups read the readout's packed rows [V,C,16], which the kernel wants as [V,D/2]."""
    graph, packed, rows = model.graph, f"{weights.TURNED}_q4", f"{EMBEDDING}_rows"
    stored = next((tensor for tensor in graph.initializer if tensor.name == packed), None)
    if stored is None:
        return
    parts = [f"{weights.TURNED}{weights.SCALES}", f"{weights.TURNED}_zeros"]

    def gather(ids: str, out: str) -> onnx.NodeProto:
        return helper.make_node(
            "GatherBlockQuantized", [rows, ids, parts[0], parts[1]], [out], f"{ids}{remainders.LOOKED_UP}", domain=_DOMAIN,
            bits=4, block_size=BLOCK, gather_axis=0, quantize_axis=1,
        )  # fmt: skip

    tokens, blocks, half = stored.dims
    shape = f"{EMBEDDING}_shape"
    graph.initializer.append(numpy_helper.from_array(np.array([tokens, blocks * half], np.int64), shape))
    nodes = [helper.make_node("Reshape", [packed, shape], [rows], f"{EMBEDDING}_flat")]
    if rewrites.reads_every_row(graph):
        nodes += _restored(graph, stored.dims, packed, parts)
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] == EMBEDDING:
            nodes.append(gather(node.input[1], node.output[0]))
            continue
        node.input[:] = [rewrites.EVERY_ROW if name == EMBEDDING else name for name in node.input]
        nodes.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _restored(graph: onnx.GraphProto, dims: Sequence[int], packed: str, parts: list[str]) -> list[onnx.NodeProto]:
    """Every packed row in float32 as `rewrites.EVERY_ROW`, by ONNX's own operators: only those are run when a graph is loaded.

    Args:
        dims: V, C, 16 of the tensor ``packed``.
        parts: names of the scales [V,C] and of the zeros, two a byte.
    """
    at, ids = EMBEDDING, f"{EMBEDDING}.ids"
    constants = {"start": 0, "limit": dims[0], "delta": 1, "one": [1], "last": [-1], "blocks": [dims[1]], "zero": [0]}
    constants |= {"of_q": [dims[0], dims[1], BLOCK], "of_z": [dims[0], -1, 1], "of_all": [dims[0], dims[1] * BLOCK]}
    for name, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), f"{at}.{name}"))
    for name, factor in (("sixteenth", 1 / 16), ("sixteen", 16)):
        graph.initializer.append(numpy_helper.from_array(np.array(factor, np.float32), f"{at}.{name}"))
    counted = [f"{at}.{part}" for part in ("start", "limit", "delta")]
    nodes = [helper.make_node("Range", counted, [ids], f"{ids}.range")]
    for name, part in ((packed, "q"), (parts[1], "z")):
        own = f"{at}.{part}"
        nodes += remainders.named(
            *remainders.halves(name, own, f"{at}.sixteenth"),
            ("Unsqueeze", [f"{own}.lower", f"{at}.last"], f"{own}.first"),
            ("Unsqueeze", [f"{own}.upper", f"{at}.last"], f"{own}.second"),
            ("Concat", [f"{own}.first", f"{own}.second"], f"{own}.pairs"),
            ("Reshape", [f"{own}.pairs", f"{at}.of_{part}"], own),
        )
    nodes += remainders.named(
        ("Slice", [f"{at}.z", f"{at}.zero", f"{at}.blocks", f"{at}.one"], f"{at}.lowest"),
        ("Sub", [f"{at}.q", f"{at}.lowest"], f"{at}.sixteenths"),
        ("Mul", [f"{at}.sixteenths", f"{at}.sixteen"], f"{at}.steps"),
        ("Unsqueeze", [parts[0], f"{at}.last"], f"{at}.scales"),
        ("Mul", [f"{at}.steps", f"{at}.scales"], f"{at}.cut"),
    )
    whole = helper.make_node("Reshape", [f"{at}.cut", f"{at}.of_all"], [rewrites.EVERY_ROW])
    whole.name = f"{ids}{remainders.LOOKED_UP}"
    return [*nodes, whole]
