"""One decoder graph for runtimes that know one: the step, and inside an If on the span's clock the commit.

ONNX Runtime GenAI carries tensors named ``past_key_values.<i>.conv_state`` [B,1,C] and ``.recurrent_state`` [B,1,M,K], each
kind of one shape for all i, zero at first and bound to the same memory before and after a run. So

    recurrent_state   the episodic memory: its keys, and its values (and phrases) cut into pieces as wide; nothing but what a
                      commit writes is touched (ScatterElements onto the same memory), however many slots there are
    conv_state 0      what changes with every token, and a mark that the stream has begun
    conv_state 1      what only commits change: copied by none but them

Where a fresh stream holds something else than zero, the mark chooses. The graph takes one token a run and adds what forbids
the tokens that text never continues with; longer prompts are cut by the runtime (search.chunk_size).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export import ports
from export.ports import INTO, OUT
from neuro.errors import NeuroError

SLOTS = [f"{INTO}regions.hippocampus.{name}" for name in ("keys", "values", "phrases")]
CLOCK = f"{INTO}clock"
PACKED = "neuro.packed"  # the metadata that says which leaf lies where
_FORBIDDEN = -1e30  # added to the logits of what is never written


class _Nodes(list[onnx.NodeProto]):
    """Nodes in order, with a short way to add one, and the constants they read."""

    def __init__(self, prefix: str, weights: dict[str, onnx.TensorProto]) -> None:
        super().__init__()
        self.prefix, self.weights = prefix, weights

    def add(self, kind: str, inputs: list[str], out: str = "", **attributes: Any) -> str:
        out = out or f"{self.prefix}{kind}.{len(self)}"
        self.append(helper.make_node(kind, inputs, [out], f"{self.prefix}{kind}.{len(self)}", **attributes))
        return out

    def constant(self, value: Any, dtype: Any = np.int64) -> str:
        array = np.asarray(value, dtype=dtype)
        name = f"decoder.constant.{len(self.weights)}"
        self.weights[name] = numpy_helper.from_array(array, name)
        return name

    def shape(self, batch: str, *others: int) -> str:
        """The shape [batch, *others] as a tensor."""
        return self.add("Concat", [batch, self.constant(others)], axis=0)


class _Pack:
    """State leaves side by side in one tensor [B,1,C]."""

    def __init__(self, leaves: list[dict[str, Any]]) -> None:
        self.leaves = leaves
        self.sizes = [math.prod(leaf["shape"][1:]) for leaf in leaves]

    def unpack(self, nodes: _Nodes, source: str, size: int) -> None:
        """Name each leaf's tensor, of the ``size`` numbers in ``source``, as the step knows it."""
        parts, spare = [f"{leaf['name']}.packed" for leaf in self.leaves], size - sum(self.sizes) - 1
        sizes, outs = [*self.sizes, 1], [*parts, f"{source}.mark"]
        if spare:
            sizes, outs = [*sizes, spare], [*outs, f"{source}.spare"]
        nodes.append(helper.make_node("Split", [source, nodes.constant(sizes)], outs, f"{source}.split", axis=2))
        fresh = nodes.add("Equal", [f"{source}.mark", nodes.constant(0.0, np.float32)])
        for leaf, part in zip(self.leaves, parts, strict=True):
            if np.any(leaf["initial"]):
                row = np.broadcast_to(np.asarray(leaf["initial"], np.float32), leaf["shape"][1:]).reshape(1, 1, -1)
                part = nodes.add("Where", [fresh, nodes.constant(row, np.float32), part])
            if leaf["name"] == CLOCK:  # one for all rows
                first = nodes.add("Gather", [part, nodes.constant(0)], axis=0)
                number = nodes.add("Squeeze", [first])
                nodes.add("Cast", [number], CLOCK, to=TensorProto.INT64)
            else:
                nodes.add("Reshape", [part, nodes.constant([-1, *leaf["shape"][1:]])], leaf["name"])

    def pack(self, nodes: _Nodes, now: dict[str, str], batch: str, mark: str, size: int, out: str) -> None:
        """Put the tensors ``now`` of the leaves, and the mark, side by side into ``out`` of ``size`` numbers."""
        parts = []
        for leaf, width in zip(self.leaves, self.sizes, strict=True):
            value = now[leaf["name"]]
            if leaf["name"] == CLOCK:
                number = nodes.add("Cast", [value], to=TensorProto.FLOAT)
                parts.append(nodes.add("Expand", [number, nodes.shape(batch, 1, 1)]))
            else:
                parts.append(nodes.add("Reshape", [value, nodes.constant([-1, 1, width])]))
        spare = size - sum(self.sizes) - 1
        if spare:
            parts += [mark, nodes.add("ConstantOfShape", [nodes.shape(batch, 1, spare)])]
        else:
            parts.append(mark)
        nodes.add("Concat", parts, out, axis=2)


def compose(files: dict[str, Path], manifest: dict[str, Any]) -> dict[str, Any]:
    """Write the graph "decoder" of ``files``, made of "step" and "commit" -> which leaf lies where, which its metadata repeat.

    Raises:
        NeuroError: the commit does not scatter into its memory (it was traced for a profile that cannot).
    """
    step_model, commit_model = onnx.load(files["step"]), onnx.load(files["commit"])
    state = {port["name"]: port for port in manifest["state"]}
    span, never = manifest["plasticity_span"], manifest["never_written"]
    weights: dict[str, onnx.TensorProto] = {}
    memory = [name for name in SLOTS if name in state]
    slots, width = _memory_shape(state, memory)
    pieces = {name: [f"{name}.{i}" for i in range(state[name]["shape"][2] // width)] for name in memory}
    written = {name for name, _ in _outputs(step_model)}
    leaves = [leaf for name, leaf in state.items() if name not in memory and math.prod(leaf["shape"][1:])]
    often = _Pack([leaf for leaf in leaves if leaf["name"] in written or leaf["name"] == CLOCK])
    seldom = _Pack([leaf for leaf in leaves if leaf not in often.leaves])
    size = max(sum(often.sizes), sum(seldom.sizes)) + 1
    layers = max(2, sum(map(len, pieces.values())))
    banks = dict(zip((piece for name in memory for piece in pieces[name]), range(layers), strict=False))

    nodes = _Nodes("decoder/", weights)
    nodes.add("Reshape", ["input_ids", nodes.constant([-1])], "token")
    batch = nodes.add("Shape", ["token"])
    nodes.add("ConstantOfShape", [nodes.shape(batch, manifest["prosody_channels"])], "prosody")
    past = [f"past_key_values.{i}.%s_state" for i in range(layers)]
    now = [f"present.{i}.%s_state" for i in range(layers)]
    mark = nodes.add("Expand", [nodes.constant([[[1.0]]], np.float32), nodes.shape(batch, 1, 1)])
    often.unpack(nodes, past[0] % "conv", size)
    seldom.unpack(nodes, past[1] % "conv", size)
    for name, port in state.items():
        if not math.prod(port["shape"][1:]):
            nodes.add("ConstantOfShape", [nodes.shape(batch, *port["shape"][1:])], name)
    for name in memory:
        parts = [
            nodes.add("Reshape", [past[banks[piece]] % "recurrent", nodes.constant([-1, slots, width])], piece)
            for piece in pieces[name]
        ]
        _join(nodes, parts, name)
    _take(nodes, step_model, "")
    for node in nodes:
        for names in (node.input, node.output):
            names[:] = ["step/logits" if name == "logits" else name for name in names]
    _read_in_pieces(nodes, pieces)
    ends = dict(_outputs(step_model))
    after = {name: ends.get(name, name) for name in state}
    for name in memory:  # what the step reads in pieces, only the commit joins
        if not any(name in node.input for node in nodes):
            nodes[:] = [node for node in nodes if name not in node.output]
            after[name] = f"commit/{name}"
    forbidden = np.zeros(manifest["vocab_size"], np.float32)
    forbidden[never] = _FORBIDDEN
    allowed = nodes.add("Add", ["step/logits", nodes.constant(forbidden, np.float32)])
    nodes.add("Unsqueeze", [allowed, nodes.constant([1])], "logits")
    due = nodes.add("GreaterOrEqual", [after[CLOCK], nodes.constant(span)])

    then, writes = _commit_branch(commit_model, weights, after, (often, seldom), batch, mark, size, width, pieces)
    otherwise = _Nodes("else/", weights)
    often.pack(otherwise, after, batch, mark, size, "else/often")
    otherwise.add("Identity", [past[1] % "conv"], "else/seldom")
    results = [now[0] % "conv", now[1] % "conv"]
    kinds = [TensorProto.FLOAT, TensorProto.FLOAT]
    if memory:
        none = [otherwise.constant([0]), otherwise.constant([0]), otherwise.constant([2])]
        empty = otherwise.add("Slice", [past[0] % "recurrent", *none])
        otherwise.add("Cast", [empty], "else/slots", to=TensorProto.INT64)
        for piece in banks:
            otherwise.add("Identity", [empty], f"else/{piece}")
        results += ["slots", *(f"rows.{piece}" for piece in banks)]
        kinds += [TensorProto.INT64, *[TensorProto.FLOAT] * len(banks)]
    branches = {}
    nothing = [*(["else/slots"] if memory else []), *(f"else/{piece}" for piece in banks)]
    for name, part, outs in (
        ("then_branch", then, ["commit/often", "commit/seldom", *writes]),
        ("else_branch", otherwise, ["else/often", "else/seldom", *nothing]),
    ):
        values = [helper.make_tensor_value_info(out, kind, None) for out, kind in zip(outs, kinds, strict=True)]
        branches[name] = helper.make_graph(list(part), name, [], values)
    nodes.append(helper.make_node("If", [due], results, "commit", **branches))
    for piece, layer in banks.items():
        nodes.add(
            "ScatterElements", [past[layer] % "recurrent", "slots", f"rows.{piece}"], now[layer] % "recurrent", axis=2
        )
    for layer in range(layers):
        if layer >= len(banks):
            nodes.add("Identity", [past[layer] % "recurrent"], now[layer] % "recurrent")
        if layer >= 2:
            nodes.add("Identity", [past[layer] % "conv"], now[layer] % "conv")

    def value(name: str, shape: list[Any], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, shape)

    b = ports.BATCH
    shapes = {"conv": [b, 1, size], "recurrent": [b, 1, slots, width]}
    carried = [(name, kind, shapes[kind]) for name in zip(past, now, strict=True) for kind in shapes]
    graph = helper.make_graph(
        list(nodes),
        "decoder",
        [value("input_ids", [b, 1], TensorProto.INT64), *(value(n[0] % k, s) for n, k, s in carried)],
        [value("logits", [b, 1, manifest["vocab_size"]]), *(value(n[1] % k, s) for n, k, s in carried)],
        list(weights.values()),
    )
    domains = {o.domain: o.version for m in (commit_model, step_model) for o in m.opset_import}
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid(d, v) for d, v in domains.items()])
    model.ir_version = step_model.ir_version
    packed = {
        "layers": layers,
        "conv_state": [1, size],
        "recurrent_state": [1, slots, width],
        "every_token": [leaf["name"] for leaf in often.leaves],
        "commits": [leaf["name"] for leaf in seldom.leaves],
        "memory": list(banks),
    }
    onnx.helper.set_model_props(model, {PACKED: json.dumps(packed)})
    onnx.save(model, files["decoder"])
    return packed


def _memory_shape(state: dict[str, Any], memory: list[str]) -> tuple[int, int]:
    if not memory:
        return 1, 1
    shapes = [state[name]["shape"] for name in memory]
    return shapes[0][1], math.gcd(*(shape[2] for shape in shapes))


def _outputs(model: onnx.ModelProto) -> list[tuple[str, str]]:
    """(state port, what the graph gives for it)."""
    names = [value.name for value in model.graph.output if value.name.startswith(OUT)]
    return [(INTO + name.removeprefix(OUT), name) for name in names]


def _join(nodes: _Nodes, parts: list[str], name: str) -> None:
    if len(parts) == 1:
        nodes.add("Identity", parts, name)
    else:
        nodes.add("Concat", parts, name, axis=2)


def _take(nodes: _Nodes, model: onnx.ModelProto, prefix: str, renamed: dict[str, str] | None = None) -> None:
    """Append the graph's nodes, its own names under ``prefix``, its inputs as ``renamed`` says."""
    names = dict(renamed or {})
    for tensor in model.graph.initializer:
        copy = onnx.TensorProto()
        copy.CopyFrom(tensor)
        copy.name = names[tensor.name] = prefix + tensor.name
        nodes.weights[copy.name] = copy
    for node in model.graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = prefix + node.name
        copy.input[:] = [names.get(name, prefix + name) if name else "" for name in node.input]
        copy.output[:] = [prefix + name if name else "" for name in node.output]
        nodes.append(copy)


def _read_in_pieces(nodes: _Nodes, pieces: dict[str, list[str]]) -> None:
    """Multiply each piece of the memory where the step multiplies the whole: it is never copied together."""
    for index, node in enumerate(nodes):
        if node.op_type == "MatMul" and node.input[1] in pieces and len(pieces[node.input[1]]) > 1:
            parts = [
                helper.make_node("MatMul", [node.input[0], piece], [f"{piece}.read"], f"{piece}.read")
                for piece in pieces[node.input[1]]
            ]
            whole = helper.make_node(
                "Concat", [part.output[0] for part in parts], list(node.output), node.name, axis=-1
            )
            nodes[index : index + 1] = [*parts, whole]
            return


def _commit_branch(
    model: onnx.ModelProto,
    weights: dict[str, onnx.TensorProto],
    after: dict[str, str],
    packs: tuple[_Pack, _Pack],
    batch: str,
    mark: str,
    size: int,
    width: int,
    pieces: dict[str, list[str]],
) -> tuple[_Nodes, list[str]]:
    """The commit's nodes with the packed state behind them -> (nodes, names of the slots and the rows to write there)."""
    nodes = _Nodes("commit/", weights)
    for name, parts in pieces.items():
        if after[name] != name:
            _join(nodes, parts, after[name])
    _take(nodes, model, nodes.prefix, after)
    now = after | {name: nodes.prefix + out for name, out in _outputs(model)}
    for pack, out in zip(packs, ("commit/often", "commit/seldom"), strict=True):
        pack.pack(nodes, now, batch, mark, size, out)
    writes: list[str] = []
    for name in pieces:
        made = next((node for node in nodes if now[name] in node.output), None)
        if made is None or made.op_type != "ScatterElements":
            raise NeuroError(
                f"export: the commit writes '{name}' by {made.op_type if made else 'nothing'}, expected ScatterElements.",
                "Export with --profile cpu.",
            )
        nodes.remove(made)
        _, slots, rows = made.input
        row = nodes.add("Unsqueeze", [rows, nodes.constant([1])])
        if not writes:  # every column of a row has the same slot
            index = nodes.add("Slice", [slots, nodes.constant([0]), nodes.constant([width]), nodes.constant([2])])
            writes.append(nodes.add("Unsqueeze", [index, nodes.constant([1])], "commit/slots"))
        outs = [f"commit/rows.{piece}" for piece in pieces[name]]
        if len(outs) == 1:
            nodes.add("Identity", [row], outs[0])
        else:
            nodes.append(helper.make_node("Split", [row], outs, f"split.{name}", axis=3, num_outputs=len(outs)))
        writes += outs
    return nodes, writes
