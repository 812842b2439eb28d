"""Writes ``neuro_model.h`` and ``neuro_model.c``: sizes, float32 constants, and the weights as const arrays.

Floats are written in hexadecimal, so that the compiler reads back the same bits.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import numpy as np

from export.c.numbers import F
from export.c.quantized import GROUP, Layer, Matrix, Quantized
from export.c.reference import EQUAL
from neuro.config import HORMONES

_PER_LINE = 24
LAYER_VECTORS = ("mixer_norm", "mixer_mood", "forward_norm", "decay_bias", "inner_norm", "inject_bias")
LAYER_MATRICES = ("project", "out", "up", "down", "out_sense", "down_sense")


def sizes(model: Quantized) -> dict[str, int]:
    """The macros of the header, by name."""
    b = model.config
    c, h = b.cortex, b.hippocampus
    mixers, forwards = [layer.mixer for layer in model.layers], [layer.feedforward for layer in model.layers]
    hidden = c.feedforward_width * 2 // 3
    return {
        "NEURO_MEMORY": int(model.memory),
        "NEURO_VOCAB": b.vocab_size,
        "NEURO_WIDTH": b.d_model,
        "NEURO_SPAN": b.plasticity_span,
        "NEURO_LAYERS": len(model.layers),
        "NEURO_RECURRENCES": mixers.count("recurrence"),
        "NEURO_WINDOWS": mixers.count("window"),
        "NEURO_SPIKING": forwards.count("spiking"),
        "NEURO_DENSE": forwards.count("dense"),
        "NEURO_HEADS": c.heads,
        "NEURO_WINDOW": c.window,
        "NEURO_NEURONS": c.feedforward_width,
        "NEURO_HIDDEN": hidden,
        "NEURO_UP": max(c.feedforward_width if "spiking" in forwards else 0, 2 * hidden if "dense" in forwards else 0),
        "NEURO_EVIDENCE": b.amygdala.hidden,
        "NEURO_RANK": b.fast_rank,
        "NEURO_CELLS": h.place_cells,
        "NEURO_ACTIVE": model.active,
        "NEURO_KEY": h.key_width,
        "NEURO_SLOTS": h.slots,
        "NEURO_TOP_K": h.top_k,
        "NEURO_WRITES": h.writes_per_span,
        "NEURO_EQUAL": EQUAL,
        "NEURO_MIX_LEVELS": model.mix_levels,
    }


def slopes(model: Quantized) -> np.ndarray:
    """Of the window's heads, per token of distance."""
    heads = model.config.cortex.heads
    return np.array([2.0 ** (-8.0 * (head + 1) / heads) for head in range(heads)], F)


def header(model: Quantized) -> str:
    """neuro_model.h."""
    each = model.config.d_model // model.config.cortex.heads
    constants = {f"NEURO_{name.upper()}": value for name, value in model.constants.items()}
    constants["NEURO_HEAD_FACTOR"] = each**-0.5
    lines = [
        "/* Sizes, constants and the names of the weights; written by neuro export. */",
        "#ifndef NEURO_MODEL_H",
        "#define NEURO_MODEL_H",
        "#include <stdint.h>",
        "",
        *(f"#define {name} {value}" for name, value in sizes(model).items()),
        "",
        *(f"#define {name} {_float(value)}" for name, value in constants.items()),
        "",
        "typedef struct {",
        "    const int8_t *values; /* rows of weights, whole numbers of a scale */",
        "    const float *scales;  /* of each output */",
        "} neuro_matrix;",
        "",
        "typedef struct {",
        "    uint8_t recurrent, spiking; /* or a window, or dense */",
        "    uint8_t mixer_at, forward_at; /* which of the states of its kind is this layer's */",
        *(f"    const float *{name};" for name in LAYER_VECTORS),
        *(f"    neuro_matrix {name};" for name in LAYER_MATRICES),
        "} neuro_layer;",
        "",
        "struct neuro_model {",
        *(f"    const float *{name};" for name in [*model.vectors, "window_slopes"]),
        *(f"    neuro_matrix {name};" for name in model.matrices),
        f"    neuro_layer layers[{len(model.layers)}];",
        "};",
        "",
        "extern const struct neuro_model neuro_model;",
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def source(model: Quantized) -> str:
    """neuro_model.c."""
    parts = ["/* The weights; written by neuro export. */", '#include "neuro_model.h"', ""]
    vectors = model.vectors | {"window_slopes": slopes(model)}
    for name, vector in vectors.items():
        parts.append(_floats(name, vector))
    for name, matrix in model.matrices.items():
        parts.append(_matrix(name, matrix, padded=True))
    for index, layer in enumerate(model.layers):
        for name, vector in layer.vectors.items():
            parts.append(_floats(f"layer{index}_{name}", vector))
        for name, matrix in layer.matrices.items():
            parts.append(_matrix(f"layer{index}_{name}", matrix, padded=not by_neuron(layer, name)))
    parts.append("const struct neuro_model neuro_model = {")
    parts += [f"    .{name} = {name}," for name in vectors]
    parts += [f"    .{name} = {{{name}, {name}_scales}}," for name in model.matrices]
    parts.append("    .layers = {")
    counts: dict[str, int] = {}
    for index, layer in enumerate(model.layers):
        parts.append(f"        {{.recurrent = {int(layer.mixer == 'recurrence')},")
        parts.append(f"         .spiking = {int(layer.feedforward == 'spiking')},")
        for field, kind in (("mixer_at", layer.mixer), ("forward_at", layer.feedforward)):
            parts.append(f"         .{field} = {counts.get(kind, 0)},")
            counts[kind] = counts.get(kind, 0) + 1
        names = [f"layer{index}_{name}" for name in layer.vectors]
        parts += [f"         .{name} = {full}," for name, full in zip(layer.vectors, names, strict=True)]
        parts += [f"         .{name} = {{layer{index}_{name}, layer{index}_{name}_scales}}," for name in layer.matrices]
        parts[-1] = parts[-1].rstrip(",") + "},"
    parts += ["    },", "};"]
    return "\n".join(parts) + "\n"


def by_neuron(layer: Layer, name: str) -> bool:
    """Whether a matrix of a layer is stored by input: what spikes select."""
    return layer.feedforward == "spiking" and name.startswith("down")


def weight_bytes(model: Quantized) -> dict[str, int]:
    """Bytes of the const arrays, by what they are."""
    whole = scales = 0
    everything = [(matrix, True) for matrix in model.matrices.values()]
    for layer in model.layers:
        everything += [(matrix, not by_neuron(layer, name)) for name, matrix in layer.matrices.items()]
    for matrix, padded in everything:
        whole += _padded(matrix.values).size if padded else matrix.values.size
        scales += 4 * matrix.scales.size
    vectors = [*model.vectors.values(), slopes(model), *(v for layer in model.layers for v in layer.vectors.values())]
    return {"int8 weights": whole, "scales": scales, "float32 vectors": 4 * sum(vector.size for vector in vectors)}


def state_bytes(model: Quantized) -> dict[str, int]:
    """Bytes of ``neuro_state`` (export/c/sources/neuro.h), term by term."""
    b, n = model.config, sizes(model)
    width, seen, span = b.d_model, n["NEURO_WINDOW"] + 1, n["NEURO_SPAN"]
    traces = 2 * n["NEURO_LAYERS"] * n["NEURO_RANK"]
    few = 4 * (2 + len(HORMONES) + 5)
    counters = 2 * (2 + n["NEURO_LAYERS"])
    terms = {
        "prediction (float32 logits)": 4 * n["NEURO_VOCAB"],
        "affect, hormones, sums of the span, counters": few + counters + counters % 4,
        "recurrence (float32)": 4 * n["NEURO_RECURRENCES"] * width,
        "window cache (int8, scales)": n["NEURO_WINDOWS"] * (seen * (2 * width + 8) + 4),
        "membranes (float32)": 4 * n["NEURO_SPIKING"] * n["NEURO_NEURONS"],
    }
    if model.memory:
        key, slots = n["NEURO_KEY"], n["NEURO_SLOTS"]
        terms |= {
            "procedural memory: fast weights (float32)": 4 * traces * width,
            "procedural memory: what waits for its error": 4 * (traces + width),
            "episodic memory: slots (int16 keys, int8 values)": slots * (2 * key + width + 8),
            "episodic memory: what waits for the next token": 2 * key + 4 * width + 4,
            "span buffer": span * (2 * key + width + 12 + 4 * width + 4 * traces),
        }
    return {name: count for name, count in terms.items() if count}


def _matrix(name: str, matrix: Matrix, padded: bool) -> str:
    rows = _padded(matrix.values) if padded else matrix.values
    return _array("int8_t", name, rows.ravel().tolist()) + _floats(f"{name}_scales", matrix.scales)


def _padded(values: np.ndarray) -> np.ndarray:
    return np.pad(values, ((0, 0), (0, -values.shape[1] % GROUP)))


def _floats(name: str, vector: np.ndarray) -> str:
    return _array("float", name, map(_float, vector.ravel()))


def _array(kind: str, name: str, items: Iterable[object]) -> str:
    words, lines = iter(map(str, items)), []
    count = 0
    while line := list(islice(words, _PER_LINE if kind == "int8_t" else 6)):
        lines.append("    " + ", ".join(line) + ",")
        count += len(line)
    body = "\n".join(lines)
    return f"static const {kind} {name}[{count}] = {{\n{body}\n}};\n"


def _float(value: float) -> str:
    return float(F(value)).hex() + "f"
