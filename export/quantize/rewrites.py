"""The same step graph, reading less: what a token costs at batch 1 is what it reads.

Recall:    the content is a sum over the slots that were chosen, so only those are read, not all of the memory.
           differs: of slots as close as the k-th best, at most 2 k are kept instead of all.
Teaching:  the expected embedding sum_v p_v E_v is a product of integers, 16 bits of each probability.
           differs: by rounding. Leaving the other tokens out, or their mean for them, is an error in the same direction at
           every token, as large as the mean of the true ones, which fast weights with a natural gradient learn.
Norms:     x / sqrt(mean(x^2) + eps) is written as the form that ONNX Runtime fuses (Pow, ReduceMean, Add, Sqrt, Div, Mul).
Constants: 0, 1, 2, ... is made by a Range.

B batch, T tokens, M slots, V vocabulary, D model. A graph without the part is left as it is.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.onnx_graph import EMBEDDING

_VALUES, _STRENGTHS, _PHRASES = (f"state.regions.hippocampus.{name}" for name in ("values", "strengths", "phrases"))
EVERY_ROW = f"{EMBEDDING}.all"  # the matrix made float32 again, when the graph is loaded
NAMES = ("recall from the chosen slots", "teaching in integers of 16 bits", "norms that fuse")


def rewrite(model: onnx.ModelProto) -> None:
    """Apply all of them in place."""
    read_chosen_slots(model)
    if any(value.name == "token" for value in model.graph.input):  # many tokens would share one scale
        sum_in_integers(model)
    fusable_norms(model)
    ranges(model)
    sort_nodes(model)


def read_chosen_slots(model: onnx.ModelProto) -> None:
    """Take the 2 k closest slots first; what follows runs on them instead of on all M."""
    graph = model.graph
    read = next((node for node in graph.node if node.op_type == "MatMul" and node.input[1] == _VALUES), None)
    if read is None:
        return
    makers = {name: node for node in graph.node for name in node.output}
    choice = _nearest(makers, read.input[0], "TopK")
    cosine, few = choice.input[0], f"{_VALUES}.few"
    k = int(numpy_helper.to_array(next(t for t in graph.initializer if t.name == choice.input[1])).item())
    slots = next(value for value in graph.input if value.name == _STRENGTHS).type.tensor_type.shape.dim[1].dim_value
    most = min(2 * k, slots)
    for name, value in ((f"{few}.most", [most]), (f"{few}.zero", [0]), (f"{few}.last", [-1]), (f"{few}.two", [2])):
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), name))
    near, where, strengths = f"{few}.cosine", f"{few}.slots", f"{few}.strengths"
    added = [
        helper.make_node("TopK", [cosine, f"{few}.most"], [near, where], f"{few}.topk", axis=-1),
        helper.make_node(
            "Slice", [near, f"{few}.zero", choice.input[1], f"{few}.last"], [choice.output[0]], f"{few}.best"
        ),
        helper.make_node("Unsqueeze", [where, f"{few}.last"], [f"{few}.index"], f"{few}.indices"),
        helper.make_node("GatherND", [_STRENGTHS, f"{few}.index"], [strengths], f"{few}.take_strengths", batch_dims=1),
        helper.make_node("GatherND", [_VALUES, f"{few}.index"], [few], f"{few}.take_values", batch_dims=1),
        helper.make_node("Unsqueeze", [read.input[0], f"{few}.two"], [f"{few}.row"], f"{few}.shares"),
        helper.make_node("MatMul", [f"{few}.row", few], [f"{few}.sum"], f"{few}.weigh"),
        helper.make_node("Squeeze", [f"{few}.sum", f"{few}.two"], [read.output[0]], f"{few}.content"),
    ]
    below = _below(graph, cosine)
    aged = _below(graph, _STRENGTHS, past=cosine)  # what is computed of the strengths alone, [B,M] or [B,1,M]
    aged -= below
    led = _below(graph, _PHRASES, past=cosine) - below  # what is computed of the phrases alone, [B,T,M]
    copies: dict[str, str] = {_STRENGTHS: strengths}

    def copied(name: str) -> str:
        """The same value for the few slots [B,T,2k]; an axis of its own for T is there already."""
        if name in copies:
            return copies[name]
        node = makers[name]
        if node.op_type == "Unsqueeze":
            copies[name] = copied(node.input[0])
            return copies[name]
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = f"{few}.{node.name}"
        copy.input[:] = [copied(i) if i in aged or i == _STRENGTHS else i for i in node.input]
        copy.output[:] = [f"{few}.{name}"]
        added.append(copy)
        copies[name] = copy.output[0]
        return copies[name]

    def taken(name: str) -> str:
        """The numbers [B,T,M] of the few slots [B,T,2k]."""
        if name not in copies:
            copies[name] = f"{few}.{name}"
            added.append(
                helper.make_node("GatherElements", [name, where], [copies[name]], f"{few}.take_{name}", axis=-1)
            )
        return copies[name]

    graph.node.remove(choice)
    graph.node.remove(read)
    for node in list(graph.node):
        if below.intersection(node.output):
            node.input[:] = [
                near if i == cosine else copied(i) if i in aged else taken(i) if i in led else i for i in node.input
            ]
    graph.node.extend(added)


def sum_in_integers(model: onnx.ModelProto) -> None:
    """Softmax p [B,T,V] times the vocabulary matrix E -> a product of uint8 and uint8, 16 bits of each probability.

        E = s Q,  Q in -127..127,   x = p s = step (u + r / 255),   step = max x / 255,   u and r in 0..255
        sum_v p_v E_v = step (sum_v u_v Q_v + sum_v r_v Q_v / 255)

    Eight bits would be too coarse for a tail that is a sixth of the probability, and the fast weights carry a stream apart by
    what they are wrong. u and r are two rows of one product, which reads Q once. Q and s are computed from E by nodes: ONNX
    Runtime does that when it loads the graph, so that the file holds E alone, in whatever form it has there. Q is stored as
    Q + 128: of uint8 times int8 a processor without VNNI adds pairs in 16 bits, which overflow.
    """
    graph = model.graph
    for node in [node for node in graph.node if node.op_type == "MatMul" and node.input[1] == EMBEDDING]:
        out, shares = node.output[0], node.input[0]
        constants = {"one": np.array([1]), "last": np.array([-1]), "zero": np.array(0, np.uint8)}
        constants |= {"middle": np.array(128, np.uint8), "worth": np.array([[[1.0], [1.0 / 255.0]]], np.float32)}
        constants |= {
            name: np.array(value, np.float32)
            for name, value in (("levels", 127), ("bytes", 255), ("shift", 128), ("tiny", 1e-12), ("smallest", 1e-30))
        }
        for name, value in constants.items():
            graph.initializer.append(numpy_helper.from_array(value, f"{out}.{name}"))
        names = {"": out, "shares": shares, EMBEDDING: EMBEDDING}
        steps: tuple[tuple[str, list[str], list[str], dict[str, Any]], ...] = (
            ("Abs", [EMBEDDING], ["sizes"], {}),
            ("ReduceMax", ["sizes", "last"], ["largest"], {"keepdims": 1}),
            ("Div", ["largest", "levels"], ["steps"], {}),
            ("Max", ["steps", "tiny"], ["column"], {}),
            ("Squeeze", ["column", "last"], ["scale"], {}),
            ("Div", [EMBEDDING, "column"], ["exact"], {}),
            ("Round", ["exact"], ["rounded"], {}),
            ("Add", ["rounded", "shift"], ["shifted"], {}),
            ("Cast", ["shifted"], ["rows"], {"to": TensorProto.UINT8}),
            ("Mul", ["shares", "scale"], ["scaled"], {}),
            ("ReduceMax", ["scaled", "last"], ["most"], {"keepdims": 1}),
            ("Div", ["most", "bytes"], ["even_step"], {}),
            ("Max", ["even_step", "smallest"], ["step"], {}),
            ("Div", ["scaled", "step"], ["ratio"], {}),
            ("Floor", ["ratio"], ["whole"], {}),
            ("Sub", ["ratio", "whole"], ["part"], {}),
            ("Mul", ["part", "bytes"], ["fine"], {}),
            ("Round", ["fine"], ["parts"], {}),
            ("Concat", ["whole", "parts"], ["both"], {"axis": 1}),
            ("Cast", ["both"], ["uint8"], {"to": TensorProto.UINT8}),
            ("MatMulInteger", ["uint8", "rows", "zero", "middle"], ["sum"], {}),
            ("Cast", ["sum"], ["float"], {"to": TensorProto.FLOAT}),
            ("Mul", ["float", "worth"], ["worths"], {}),
            ("ReduceSum", ["worths", "one"], ["in_steps"], {"keepdims": 1}),
            ("Mul", ["in_steps", "step"], [""], {}),
        )
        for operator, into, outs, more in steps:
            read, made = ([names.get(name, f"{out}.{name}") for name in part] for part in (into, outs))
            graph.node.append(helper.make_node(operator, read, made, f"{out}.{operator}.{outs[0]}", **more))
        graph.node.remove(node)


def reads_every_row(graph: onnx.GraphProto) -> bool:
    """Does anything but a look-up read the vocabulary matrix? The teaching signal does; a recipe gives it `EVERY_ROW`."""
    return any(node.op_type != "Gather" and EMBEDDING in node.input for node in graph.node)


def fusable_norms(model: onnx.ModelProto) -> None:
    """Mul(x,x) ... Reciprocal, Mul(x, .) -> Pow(x,2) ... Div(x, .), where the root has this one reader.

    The eligibility, which has no gain, gets one of 1: the fused form has one.
    """
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    weights = {tensor.name: tensor for tensor in graph.initializer}
    readers = _readers(graph)
    two = f"{EMBEDDING}.exponent"
    for inverse in [node for node in graph.node if node.op_type == "Reciprocal"]:
        chain = [inverse]
        for operator in ("Sqrt", "Add", "ReduceMean", "Mul"):
            above = makers.get(chain[-1].input[0])
            if above is None or above.op_type != operator:
                break
            chain.append(above)
        users = readers[inverse.output[0]]
        if len(chain) < 5 or len(users) != 1 or users[0].op_type != "Mul" or len(set(chain[-1].input)) != 1:
            continue
        square, x, scaled = chain[-1], chain[-1].input[0], users[0]
        if x not in scaled.input or len(readers[square.output[0]]) != 1:
            continue
        square.op_type, scaled.op_type = "Pow", "Div"
        square.input[:] = [x, two]
        scaled.input[:] = [x, inverse.input[0]]
        graph.node.remove(inverse)
        source = makers.get(x)
        if source is not None and source.op_type == "MatMul" and source.input[1] in weights:  # eligibility: no gain
            out, ones = scaled.output[0], np.ones(weights[source.input[1]].dims[-1], np.float32)
            scaled.output[0] = f"{out}.unit"
            graph.initializer.append(numpy_helper.from_array(ones, f"{out}.ones"))
            graph.node.append(helper.make_node("Mul", [scaled.output[0], f"{out}.ones"], [out], f"{out}.gain"))
    if any(two in node.input for node in graph.node):
        graph.initializer.append(numpy_helper.from_array(np.array(2.0, np.float32), two))


def ranges(model: onnx.ModelProto) -> None:
    """Initializers that count from 0 become Range nodes: 8 bytes a token of the vocabulary less in the file."""
    graph = model.graph
    for tensor in list(graph.initializer):
        if tensor.data_type != TensorProto.INT64 or len(tensor.dims) != 1 or tensor.dims[0] < 64:
            continue
        if not np.array_equal(numpy_helper.to_array(tensor), np.arange(tensor.dims[0])):
            continue
        names = [f"{tensor.name}.{part}" for part in ("start", "limit", "delta")]
        for name, value in zip(names, (0, tensor.dims[0], 1), strict=True):
            graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), name))
        graph.node.append(helper.make_node("Range", names, [tensor.name], f"{tensor.name}.range"))
        graph.initializer.remove(tensor)


def sort_nodes(model: onnx.ModelProto) -> None:
    """Put every node behind those it reads from."""
    nodes = list(model.graph.node)
    made = {name for node in nodes for name in node.output}
    waiting = [{name for name in _reads(node) if name in made} for node in nodes]
    readers: dict[str, list[int]] = defaultdict(list)
    for index, names in enumerate(waiting):
        for name in names:
            readers[name].append(index)
    ready, ordered = deque(index for index, names in enumerate(waiting) if not names), []
    while ready:
        index = ready.popleft()
        ordered.append(nodes[index])
        for name in nodes[index].output:
            for reader in readers[name]:
                waiting[reader].discard(name)
                if not waiting[reader]:
                    ready.append(reader)
    assert len(ordered) == len(nodes), "a cycle"
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _readers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    found: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in dict.fromkeys(_reads(node)):
            found[name].append(node)
    return found


def _reads(node: onnx.NodeProto) -> list[str]:
    """Names the node reads, those of the graphs inside it among them."""
    inner = [part for attribute in node.attribute if attribute.HasField("g") for part in attribute.g.node]
    return [*node.input, *(name for part in inner for name in _reads(part))]


def _below(graph: onnx.GraphProto, name: str, past: str = "") -> set[str]:
    """Every value that is computed from ``name``, not looking past ``past``."""
    readers, found, open_names = _readers(graph), set(), deque([name])
    while open_names:
        for node in readers[open_names.popleft()]:
            for output in node.output:
                if output not in found:
                    found.add(output)
                    if output != past:
                        open_names.append(output)
    return found


def _nearest(makers: dict[str, onnx.NodeProto], name: str, operator: str) -> onnx.NodeProto:
    """The closest node of that operator above ``name``, breadth first."""
    seen, open_names = {name}, deque([name])
    while open_names:
        node = makers.get(open_names.popleft())
        if node is None:
            continue
        if node.op_type == operator:
            return node
        new = [i for i in node.input if i not in seen]
        seen.update(new)
        open_names.extend(new)
    raise AssertionError(f"no {operator} above {name}")
