"""What eight bits leave over: a second eight bits of activations, four more of frequent rows.

    x = s (u - z) + (s / 254) (r - 128),                 u, r in 0..255: 16 bits of an activation as two products with one W
    row_v = restored_v + scale_v (n_v - 8) / 16,         n_v in 0..15, of the first fifth (int4: tenth) of the vocabulary

A spike and a place cell are on one side of a threshold or on the other, so the products in front of them amplify rounding, and
what the memories keep of a token is read again for thousands. Only the readout, behind which nothing follows and which is a
third of all products, stays at one. Spikes are exact as they are. The token's row is the input of everything, so its rounding
counts most, and a tokenizer numbers its tokens by how frequent they were: a fifth of the rows is most of what is read. Rows
that lie on the grid have no rest. Both are ONNX's own operators, so that every profile has them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.onnx_graph import EMBEDDING
from export.quantize import weights

SHARE = {
    "int8": 5,
    "int4": 10,
}  # one in so many rows of the vocabulary matrix: what 0.27 and 0.17 of the size leave room for
LOOKED_UP = ".token_row"  # ends the name of a node that looks tokens' rows up; what stands before it names the ids
_STEPS = 254.0  # of the remainder in one step of the first eight bits: at most 127 to either side
_LEVELS = 16
_SHAPES = ("Transpose", "Reshape", "Unsqueeze", "Squeeze")


def second_activations(model: onnx.ModelProto) -> list[str]:
    """Add the remainder's product to the products of a dynamically quantized graph -> their weights' names.

    The pattern is that of ``quantize_dynamic``: DynamicQuantizeLinear, MatMulInteger, Cast, Mul by both scales; the teaching
    signal's (`rewrites`) is another. The readout's is left.
    """
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found, prepared = [], set()
    for product in [node for node in graph.node if node.op_type == "MatMulInteger"]:
        source, weight = makers[product.input[0]], product.input[1]
        if source.op_type != "DynamicQuantizeLinear" or weight.startswith(weights.TURNED):
            continue
        if _fires(makers, source.input[0]):
            continue
        x, (quantized, scale, zero) = source.input[0], source.output
        cast = readers[product.output[0]][0]
        scaled = readers[cast.output[0]][0]
        both = makers[scaled.input[1]]
        weight_scale = next(name for name in both.input if name != scale)
        if x not in prepared:
            prepared.add(x)
            graph.node.extend(_split(x, quantized, scale, zero))
        out, first = scaled.output[0], f"{scaled.output[0]}.first"
        scaled.output[0] = first
        graph.node.extend(
            named(
                ("Mul", [f"{x}.fine", weight_scale], f"{out}.scales"),
                ("MatMulInteger", [f"{x}.rest", weight, "remainder.middle", product.input[3]], f"{out}.sum"),
                ("Cast", [f"{out}.sum"], f"{out}.cast"),
                ("Mul", [f"{out}.cast", f"{out}.scales"], f"{out}.second"),
                ("Add", [first, f"{out}.second"], out),
            )
        )
        found.append(weight.removesuffix("_quantized"))
    if found:
        for name, value in (("middle", np.array(128, np.uint8)), ("steps", np.array(1 / _STEPS, np.float32))):
            graph.initializer.append(numpy_helper.from_array(value, f"remainder.{name}"))
    return found


def _split(x: str, quantized: str, scale: str, zero: str) -> list[onnx.NodeProto]:
    """What the first eight bits of ``x`` left over, as uint8 ``x.rest`` around 128 with the scale ``x.fine``."""
    return named(
        ("DequantizeLinear", [quantized, scale, zero], f"{x}.coarse"),
        ("Sub", [x, f"{x}.coarse"], f"{x}.left"),
        ("Mul", [scale, "remainder.steps"], f"{x}.fine"),
        ("QuantizeLinear", [f"{x}.left", f"{x}.fine", "remainder.middle"], f"{x}.rest"),
    )


def named(*steps: tuple[str, list[str], str]) -> list[onnx.NodeProto]:
    """Operator, inputs and output of each -> nodes with names of their own: ONNX Runtime refuses one name twice."""
    more: dict[str, dict[str, Any]] = {"Cast": {"to": TensorProto.FLOAT}, "Concat": {"axis": -1}}
    return [helper.make_node(kind, read, [made], f"{made}.{kind}", **more.get(kind, {})) for kind, read, made in steps]


def halves(packed: str, made: str, sixteenth: str) -> list[tuple[str, list[str], str]]:
    """Steps for `named`: the two numbers in each byte of ``packed``, over 16, as ``made``.lower and ``made``.upper."""
    return [
        ("Cast", [packed], f"{made}.byte"),
        ("Mul", [f"{made}.byte", sixteenth], f"{made}.shifted"),
        ("Floor", [f"{made}.shifted"], f"{made}.whole"),
        ("Sub", [f"{made}.shifted", f"{made}.whole"], f"{made}.lower"),
        ("Mul", [f"{made}.whole", sixteenth], f"{made}.upper"),
    ]


def _fires(makers: dict[str, onnx.NodeProto], name: str) -> bool:
    """Is ``name`` spikes, 0 or 1?"""
    while name in makers and makers[name].op_type in _SHAPES:
        name = makers[name].input[0]
    cast = makers.get(name)
    return cast is not None and cast.op_type in ("Cast", "GreaterOrEqual")


def finer_rows(model: onnx.ModelProto, matrix: np.ndarray, restored: np.ndarray, share: int) -> int:
    """Give the first rows of the vocabulary four more bits where a token's row is looked up -> how many rows.

    Args:
        model: a quantized graph; a node that gives looked-up rows in float32 is named as `LOOKED_UP` of its ids says.
        matrix: the rows in float32 [V,D].
        restored: what the graph looks up instead [V,D].
        share: one in so many rows is among the first.
    """
    graph = model.graph
    rows, width = len(matrix) // share, matrix.shape[1]
    looked_up = [node for node in graph.node if node.name.endswith(LOOKED_UP)]
    if not rows or width % 2 or not looked_up:
        return 0
    left = matrix[:rows] - restored[:rows]
    if not left.any():  # trained onto the grid
        return 0
    scale = np.abs(left).max(1, keepdims=True) * np.float32(_LEVELS / (_LEVELS // 2 - 0.5))
    nibbles = np.clip(np.rint(left / np.maximum(scale, 1e-30) * _LEVELS) + _LEVELS // 2, 0, _LEVELS - 1).astype(
        np.uint8
    )
    every = np.zeros((1, width // 2), np.uint8)  # of all the other rows: their scale is 0
    name = f"{EMBEDDING}_rest"
    constants = {
        "": np.concatenate([nibbles[:, : width // 2] | nibbles[:, width // 2 :] << 4, every]),
        weights.SCALES: np.concatenate([scale, np.zeros((1, 1), np.float32)]),
        ".last": np.array(rows, np.int64),
        ".sixteenth": np.array(1 / _LEVELS, np.float32),
        ".half": np.array(0.5, np.float32),
    }
    graph.initializer.extend(numpy_helper.from_array(value, f"{name}{part}") for part, value in constants.items())
    for node in looked_up:
        ids, out = node.name.removesuffix(LOOKED_UP), node.output[0]
        rest = f"{out}.rest"
        node.output[0] = f"{out}.coarse"
        nodes = named(
            ("Min", [ids, f"{name}.last"], f"{rest}.ids"),
            ("Gather", [name, f"{rest}.ids"], f"{rest}.pairs"),
            *halves(f"{rest}.pairs", rest, f"{name}.sixteenth"),
            ("Concat", [f"{rest}.lower", f"{rest}.upper"], f"{rest}.both"),
            ("Sub", [f"{rest}.both", f"{name}.half"], f"{rest}.signed"),
            ("Gather", [f"{name}{weights.SCALES}", f"{rest}.ids"], f"{rest}.scale"),
            ("Mul", [f"{rest}.signed", f"{rest}.scale"], f"{rest}.scaled"),
            ("Add", [f"{out}.coarse", f"{rest}.scaled"], out),
        )
        graph.node.extend(nodes)
    return rows
