"""int8-static: the weights of int8, and activations whose scales were found beforehand on a text of the user's.

Every thick product becomes DequantizeLinear(QuantizeLinear(x)) times DequantizeLinear(W), the form that accelerators read; ONNX
Runtime fuses it to one integer product. An activation's range is the smallest and largest value met while torch read the
calibration text with all memories on; what lies outside is cut off. Spikes are 0 or 1, so they are exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from export.onnx_graph import EMBEDDING
from export.ports import INTO
from export.quantize import rewrites, weights
from export.quantize.dynamic import MIDDLE, finish
from neuro import rounding, text
from neuro.brain import Brain
from neuro.errors import NeuroError, UsageError
from neuro.state import leaves

TOKENS = 512  # of calibration for int8-static: eight spans, so that the memories have been written and read

Feed = dict[str, np.ndarray]


def calibration_ids(path: Path, brain: Brain, tokens: int = TOKENS) -> np.ndarray:
    """The first ``tokens`` token ids of a text file, after the beginning-of-text token.

    Raises:
        MissingError: no such file.
        UsageError: a shorter text.
    """
    raw = text.read_text(path)[: 64 * tokens]  # no tokenizer of ours makes a token of more characters
    ids = [brain.tokenizer.bos_id, *brain.tokenizer.encode(raw)]
    if len(ids) < tokens:
        raise UsageError(
            f"{path}: got {len(ids)} tokens for calibration, expected at least {tokens}.", "Give a longer text."
        )
    return np.array(ids[:tokens], np.int64)


@torch.no_grad()
def feeds(brain: Brain, ids: np.ndarray) -> Iterator[Feed]:
    """What the step graph is given at each of ``ids`` [T] in one stream: torch carries the state and commits."""
    state = brain.init_state(1)
    for token in ids:
        yield {
            "token": np.array([token], np.int64),
            "prosody": np.zeros((1, brain.config.prosody_channels), np.float32),
            **{INTO + path: leaf.cpu().numpy() for path, leaf in leaves(state)},
        }
        state = brain.step(torch.tensor([int(token)], device=brain.embedding.device), state).state
        if brain.remaining(state) == 0:
            state = brain.commit(state)[0]


def static(step: Path, calibration: Iterable[Feed]) -> dict[str, Any]:
    """Quantize a float32 step graph in place -> what was done.

    Args:
        calibration: what the graph is given, token after token: see `feeds`.

    Raises:
        NeuroError: less than 95 % of the weight bytes were quantized, or there was nothing to calibrate on.
    """
    model = onnx.load(step)
    graph, before = model.graph, weights.size(model)
    rewrites.rewrite(model)
    weights.turn_embedding(model)
    products = weights.thick_products(model)
    spans, tokens = _ranges(model, sorted({node.input[0] for node in products}), calibration)
    found, nodes, done = weights.float_matrices(model), [], set()
    matrix = numpy_helper.to_array(found[EMBEDDING]) if EMBEDDING in found else None
    thick = {node.name for node in products}
    for node in graph.node:
        if node.name in thick:
            x, name = node.input
            if x not in done:
                low, high = spans[x]
                width = max(high - low, 1e-12) / 255.0
                zero = np.array(round(-low / width), np.uint8)
                _constants(graph, {f"{x}_scale": np.array(width, np.float32), f"{x}_zero": zero})
                part = [f"{x}_scale", f"{x}_zero"]
                nodes.append(helper.make_node("QuantizeLinear", [x, *part], [f"{x}_u8"], f"{x}_quantize"))
                nodes.append(helper.make_node("DequantizeLinear", [f"{x}_u8", *part], [f"{x}_q"], f"{x}_dequantize"))
            if name not in done:
                columns, scale = _columns(numpy_helper.to_array(found[name]))
                _constants(graph, {f"{name}_quantized": columns, f"{name}_scale": scale})
                _constants(graph, {f"{name}_zero": np.full(len(scale), MIDDLE, np.uint8)})
                part = [f"{name}_quantized", f"{name}_scale", f"{name}_zero"]
                nodes.append(helper.make_node("DequantizeLinear", part, [f"{name}_q"], f"{name}_dequantize", axis=1))
            done |= {x, name}
            node.input[:] = [f"{x}_q", f"{name}_q"]
        nodes.append(node)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(nodes)
    account = finish(model, step, before, matrix)
    return {
        "recipe": "int8-static",
        "weights": "int8, symmetric, one scale per output channel (per token for the vocabulary matrix), as uint8 around 128",
        "activations": "uint8, one scale and zero point per product, from the calibration text",
        "calibration": {"tokens": tokens, "range": "smallest and largest value"},
        "rewrites": list(rewrites.NAMES),
        **account,
    }


def activations(model: onnx.ModelProto, names: list[str], calibration: Iterable[Feed]) -> Iterator[list[np.ndarray]]:
    """What the float32 graph computes of ``names`` at each token of ``calibration``."""
    session = None
    for feed in calibration:
        session = session or _probe(model, names)
        yield session.run(names, {port.name: feed[port.name] for port in session.get_inputs()})


def _probe(model: onnx.ModelProto, names: list[str]) -> onnxruntime.InferenceSession:
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    return onnxruntime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _ranges(
    model: onnx.ModelProto, names: list[str], calibration: Iterable[Feed]
) -> tuple[dict[str, list[float]], int]:
    """The smallest and the largest value of each activation, 0 among them, and over how many tokens."""
    if not names:
        return {}, 0
    found, tokens = {name: [0.0, 0.0] for name in names}, 0
    for values in activations(model, names, calibration):
        tokens += 1
        for name, value in zip(names, values, strict=True):
            span = found[name]
            span[:] = [min(span[0], float(value.min())), max(span[1], float(value.max()))]
    if not tokens:
        raise NeuroError("int8-static: got no calibration tokens, expected some.", "Give a calibration text.")
    return found, tokens


def _columns(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[K,N] -> int8 of the same shape, as uint8 around `MIDDLE`, and the scales [N]."""
    levels, scale = rounding.channels(matrix.T)
    return (levels.T + MIDDLE).astype(np.uint8), scale


def _constants(graph: onnx.GraphProto, values: dict[str, np.ndarray]) -> None:
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in values.items())
