"""Recipes of quantization by name, and the names of the graphs' files: those that transformers.js looks for under ``onnx/``.

model.onnx               float32 step
model_quantized.onnx     int8
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from export import quantize

STEMS = {"step": "model", "commit": "commit"}  # the graphs of an export, by the stem of their files
SUFFIXES: dict[str | None, str] = {None: "", "int8": "_quantized"}
RECIPES = tuple(recipe for recipe in SUFFIXES if recipe)
FOLDER = "onnx"


def file_of(graph: str, recipe: str | None) -> str:
    """Where that graph lies in the folder, as the manifest writes it: "onnx/model_quantized.onnx"."""
    return f"{FOLDER}/{STEMS[graph]}{SUFFIXES[recipe]}.onnx"


def apply(step: Path, recipe: str | None) -> dict[str, Any] | None:
    """Quantize the float32 graph at ``step`` in place -> what was done, for the manifest; None stays float32."""
    return getattr(quantize, recipe)(step) if recipe else None
