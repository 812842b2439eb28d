"""How far int8 is from float32 and which part of the model loses it: the figures of docs/export.md, "Where int8 loses what".

    python benchmarks/int8_agreement.py small $NEURO_DATA/wikitext-2/valid.txt.gz --wikitext --tokens 1024 --parts

Divergence of the next token's distribution, likeliest token, and spikes, from float32's state and with the graph's own, as in
`benchmarks/quantization.py`, whose columns these are. Rows:

int8, int4               as exported
int8, one product        without `export.quantize.remainders`: no second product and no finer rows
noise R                  float32 with every weight times 1 + R n, n normal
weights of PART          with ``--parts``: float32, its matrices of PART rounded to int8 with a scale per output channel
activations of PART      with ``--parts``: float32, what is multiplied with those matrices rounded to uint8, a scale per call

Prints one JSON object; brackets (``_95``) resample blocks of 64 tokens.
"""

from __future__ import annotations

import argparse
import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import _machine
import numpy as np
import onnx  # noqa: TID251 - rounds parts of the exported graphs
import quantization
import torch
from onnx import helper, numpy_helper  # noqa: TID251

import neuro
from export import quantize, recipes
from export.onnx_graph import EMBEDDING
from export.quantize import remainders, rewrites, weights
from neuro import text
from neuro.evaluate import perplexity

PARTS = {  # name -> what stands in the names of its matrices
    "vocabulary, looked-up rows": (EMBEDDING,),
    "vocabulary, readout": (weights.TURNED,),
    "mixers": (".mixer.",),
    "feed-forwards": (".feedforward.",),
    "place cells": (".place_cells.",),
    "thalamus, amygdala": (".thalamus.", ".amygdala."),
    "eligibility": ("permute",),
    "keys, values": ("hippocampus.key.", "hippocampus.value.", "hippocampus.out."),
    "all": ("",),
}
NOISES = (1e-3, 5e-3)


def one_product(step: Path) -> None:
    with (
        mock.patch.object(remainders, "second_activations", lambda model: []),
        mock.patch.object(remainders, "finer_rows", lambda *of: 0),
    ):
        quantize.int8(step)


def prepared(step: Path) -> onnx.ModelProto:
    """The float graph in the form that int8 is made of."""
    model = onnx.load(step)
    rewrites.rewrite(model)
    weights.turn_embedding(model)
    return model


def rounded(matrix: np.ndarray, axis: int) -> np.ndarray:
    """In int8 and back, symmetric, one scale over ``axis``."""
    scale = np.maximum(np.abs(matrix).max(axis, keepdims=True) / 127, np.float32(1e-12))
    return (np.round(matrix / scale) * scale).astype(np.float32)


def round_weights(step: Path, names: tuple[str, ...]) -> None:
    """Products with [K,N] have a scale for each of N; looked-up rows [V,D] one each."""
    model = prepared(step)
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    for name in sorted({node.input[1] for node in weights.thick_products(model) if _of(node.input[1], names)}):
        held[name].CopyFrom(numpy_helper.from_array(rounded(numpy_helper.to_array(held[name]), 0), name))
    if EMBEDDING in names or "" in names:
        rows = f"{EMBEDDING}.rounded"
        model.graph.initializer.append(
            numpy_helper.from_array(rounded(numpy_helper.to_array(held[EMBEDDING]), 1), rows)
        )
        for node in model.graph.node:
            if node.op_type == "Gather" and node.input[0] == EMBEDDING:
                node.input[0] = rows
    onnx.save(model, step)


def round_activations(step: Path, names: tuple[str, ...]) -> None:
    """Every value that is multiplied with such a matrix goes through uint8."""
    model = prepared(step)
    for node in [node for node in weights.thick_products(model) if _of(node.input[1], names)]:
        x, out = node.input[0], f"{node.output[0]}.levels"
        parts = [out, f"{out}.scale", f"{out}.zero"]
        node.input[0] = f"{out}.value"
        model.graph.node.append(helper.make_node("DynamicQuantizeLinear", [x], parts))
        model.graph.node.append(helper.make_node("DequantizeLinear", parts, [f"{out}.value"]))
    rewrites.sort_nodes(model)
    onnx.save(model, step)


def _of(matrix: str, names: tuple[str, ...]) -> bool:
    """The looked-up rows are no product's: "embedding" alone is not "embedding.T"."""
    return any(name in matrix for name in names if name != EMBEDDING)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text", type=Path)
    parser.add_argument("--wikitext", action="store_true", help="undo WikiText's tokenization, as `neuro eval` does")
    parser.add_argument("--tokens", type=int, default=1024, help="of the text, from its beginning")
    parser.add_argument("--parts", action="store_true", help="part by part too, weights and activations")
    options = parser.parse_args()
    torch.set_num_threads(1)
    brain = neuro.load(options.model, "cpu")
    coded = perplexity.code(text.read_text(options.text), brain, options.wikitext)
    ids = [brain.tokenizer.bos_id, *(i for unit in coded.ids for i in unit)][: options.tokens + 1]
    kinds: dict[str, Callable[[Path], Any]] = {
        "int8": quantize.int8,
        "int8, one product": one_product,
        "int4": quantize.int4,
    }
    kinds |= {f"noise {r:g}": functools.partial(quantization.noisy, relative=r) for r in NOISES}
    if options.parts:
        for part, names in PARTS.items():
            kinds[f"weights of {part}"] = functools.partial(round_weights, names=names)
            if EMBEDDING not in names:
                kinds[f"activations of {part}"] = functools.partial(round_activations, names=names)
    with tempfile.TemporaryDirectory() as place:
        base = Path(place) / "float32"
        rasters = quantization.rasters_of(quantization.write(brain, base)["step"])
        rows: dict[str, Any] = {}
        for name, make in kinds.items():  # one at a time: the graphs of all parts together are a gigabyte
            folder = Path(shutil.copytree(base, Path(place) / "row"))
            make(folder / recipes.file_of("step", None))
            rows[name] = quantization.compare({"float32": base, name: folder}, ids, rasters)[name]
            shutil.rmtree(folder)
    report = {"benchmark": "int8_agreement", "model": options.model, "text": options.text.name, "seed": 0}
    print(json.dumps(report | {"tokens": len(ids) - 1, "rows": rows, "machine": _machine.describe()}, indent=1))


if __name__ == "__main__":
    main()
