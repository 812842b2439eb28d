"""Operators for tracing: rows taken and written by index, and recurrences over tokens as ONNX's Scan.

torch would unroll a loop over tokens and freeze their number. So `OPS` traces each recurrence as one node of a domain of our
own, and `lower` puts Scan with a body of two to five element-wise nodes in its place, which rounds as the loop does.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor

from backends import LifRule, portable

DOMAIN = "neuro"
_AFFINE, _LIF = f"{DOMAIN}::AffineScan", f"{DOMAIN}::LifScan"


def _affine_scan(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    return torch.onnx.ops.symbolic(_AFFINE, (a, b, h0), dtype=a.dtype, shape=a.shape, version=1)


def _lif_scan(
    current: Tensor, v0: Tensor, decay: float | Tensor, threshold: float | Tensor, rule: LifRule
) -> tuple[Tensor, Tensor]:
    assert rule.reset == "soft" and not rule.delayed and not rule.strict, "no other rule is in a brain"
    spikes, v = torch.onnx.ops.symbolic_multi_out(
        _LIF,
        (current, v0),
        {"decay": float(decay), "threshold": float(threshold)},
        dtypes=(current.dtype, v0.dtype),
        shapes=(current.shape, v0.shape),
        version=1,
    )
    return spikes, v


def _take_rows(source: Tensor, index: Tensor) -> Tensor:
    return source.gather(1, index.unsqueeze(-1).expand(-1, -1, source.shape[2]))


def _write_rows(memory: Tensor, index: Tensor, rows: Tensor, keep: Tensor) -> Tensor:
    rows = torch.where(keep.unsqueeze(-1), rows, _take_rows(memory, index))  # what is not kept writes what stands there
    return memory.scatter(1, index.unsqueeze(-1).expand(-1, -1, memory.shape[2]), rows)


def _tally(shares: Tensor, ids: Tensor, width: int) -> Tensor:
    index = ids.to(torch.int64).unsqueeze(1).expand_as(shares)
    return torch.zeros(*shares.shape[:2], width, dtype=shares.dtype).scatter_add(2, index, shares)


# For one token at a time, and for many.
STEP_OPS = dataclasses.replace(portable.OPS, name="indexed", take_rows=_take_rows, write_rows=_write_rows, tally=_tally)
OPS = dataclasses.replace(STEP_OPS, name="scans", affine_scan=_affine_scan, lif_scan=_lif_scan)


def lower(model: onnx.ModelProto) -> None:
    """Replace every placeholder of ``model`` by a Scan."""
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.domain != DOMAIN:
            nodes.append(node)
            continue
        given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        nodes.append(_lif(node, **given) if node.op_type == "LifScan" else _affine(node))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    kept = [opset for opset in model.opset_import if opset.domain != DOMAIN]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _affine(node: onnx.NodeProto) -> onnx.NodeProto:
    # h_t = a_t * h_{t-1} + b_t
    a, b, h0 = node.input
    body = helper.make_graph(
        [
            helper.make_node("Mul", ["a", "h"], ["ah"]),
            helper.make_node("Add", ["ah", "b"], ["next"]),
            helper.make_node("Identity", ["next"], ["told"]),
        ],
        f"{node.name}.token",
        [_value("h"), _value("a"), _value("b")],
        [_value("next"), _value("told")],
    )
    out = node.output[0]
    return helper.make_node("Scan", [h0, a, b], [f"{out}.last", out], node.name, body=body, num_scan_inputs=2)


def _lif(node: onnx.NodeProto, decay: float, threshold: float) -> onnx.NodeProto:
    # u_t = decay v_{t-1} + i_t;  s_t = 1 where u_t - threshold >= 0;  v_t = u_t - threshold s_t
    current, v0 = node.input
    constants = {"decay": decay, "threshold": threshold, "zero": 0.0}
    body = helper.make_graph(
        [
            helper.make_node("Mul", ["decay", "v"], ["decayed"]),
            helper.make_node("Add", ["decayed", "i"], ["u"]),
            helper.make_node("Sub", ["u", "threshold"], ["above"]),
            helper.make_node("GreaterOrEqual", ["above", "zero"], ["fires"]),
            helper.make_node("Cast", ["fires"], ["s"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["threshold", "s"], ["lost"]),
            helper.make_node("Sub", ["u", "lost"], ["next"]),
        ],
        f"{node.name}.token",
        [_value("v"), _value("i")],
        [_value("next"), _value("s")],
        [helper.make_tensor(name, TensorProto.FLOAT, [], [value]) for name, value in constants.items()],
    )
    spikes, last = node.output
    return helper.make_node("Scan", [v0, current], [last, spikes], node.name, body=body, num_scan_inputs=1)


def _value(name: str) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
