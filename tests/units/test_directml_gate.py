"""The gate of the profile dml: what the DirectML provider lacks is named; what it has passes."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from export import directml
from neuro.errors import CheckError


def graph(node: onnx.NodeProto, kind: int = TensorProto.FLOAT, opset: int = 18, domain: str = "") -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info(name, kind, [4]) for name in node.input]
    outputs = [helper.make_tensor_value_info(name, kind, [4]) for name in node.output]
    imports = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(helper.make_graph([node], "g", inputs, outputs), opset_imports=imports, ir_version=10)


def node(kind: str, inputs: str = "a b", domain: str = "", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), ["y"], domain=domain, **attributes)


def test_what_the_provider_has_passes():
    for kind, inputs in (("Add", "a b"), ("Sigmoid", "a"), ("MatMul", "a b"), ("Where", "a b c")):
        element = TensorProto.BOOL if kind == "Where" else TensorProto.FLOAT
        assert directml.violations(graph(node(kind, inputs), element)) == []
    assert directml.violations(graph(node("MatMulNBits", "a b c", "com.microsoft"), domain="com.microsoft")) == []


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (graph(node("Gelu", "a"), opset=20), "ai.onnx.Gelu"),
        (graph(node("Mod"), TensorProto.INT64), "Mod of int64"),
        (graph(node("ScatterElements", "a b c", axis=0)), "ScatterElements of opset 18"),
        (
            graph(node("LinearAttention", "a b c", "com.microsoft"), domain="com.microsoft"),
            "com.microsoft.LinearAttention",
        ),
        (graph(node("GatherBlockQuantized", "a b c", "com.microsoft"), domain="com.microsoft"), "GatherBlockQuantized"),
        (graph(node("Add"), opset=23), "opset 23 of ai.onnx"),
        (graph(node("MatMul"), TensorProto.DOUBLE), "MatMul of double"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_it_lacks_is_named(model, found):
    assert any(found in violation for violation in directml.violations(model))


def test_a_scan_is_found_where_it_stands_and_inside(tmp_path):
    value = helper.make_tensor_value_info("s", TensorProto.FLOAT, None)
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, None)
    outs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("t", "z")]
    nodes = [helper.make_node("Gelu", ["x"], ["g"]), helper.make_node("Add", ["s", "g"], ["t"])]
    body = helper.make_graph([*nodes, helper.make_node("Identity", ["t"], ["z"])], "body", [value, given], outs)
    model = graph(helper.make_node("Scan", ["a", "b"], ["y", "ys"], body=body, num_scan_inputs=1), opset=20)
    assert directml.violations(model) == ["ai.onnx.Gelu", "ai.onnx.Scan"]
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    with pytest.raises(CheckError) as caught:
        directml.check(path)
    assert caught.value.what == (
        "model.onnx: got ai.onnx.Gelu, ai.onnx.Scan, expected operators of the DirectML provider only."
    )
    assert caught.value.do == "Export with --profile cpu, or without what needs them."


def test_the_table_names_its_source_and_every_type_it_uses():
    table = directml.table()
    assert "001d12d2623fd411ce0f83d05abb5e82304a3389" in table["source"]
    for domain in table["operators"].values():
        assert all(kind in table["types"] and since == sorted(since) for kind, since in domain.values())
    assert not {"Scan", "Loop", "Gelu", "RMSNormalization", "Attention"} & table["operators"]["ai.onnx"].keys()
