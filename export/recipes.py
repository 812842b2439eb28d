"""Which graphs a profile has, how they are quantized, and their files: the names that transformers.js looks for.

onnx/model.onnx             step, float32           onnx/commit.onnx     a span's end
onnx/model_quantized.onnx   step, int8              onnx/prefill.onnx    many tokens, float32 only
onnx/model_int8.onnx        step, int8-static       onnx/decoder.onnx    step and commit in one, for ONNX Runtime GenAI
onnx/model_q4.onnx          step, int4

The weights of the last two are those of the step's file.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from export import quantize
from neuro.errors import UsageError

FOLDER = "onnx"
STEMS = {
    "step": "model",
    "commit": "commit",
    "prefill": "prefill",
    "decoder": "decoder",
}  # the graphs by the stem of their files
SUFFIXES: dict[str | None, str] = {None: "", "int8": "_quantized", "int8-static": "_int8", "int4": "_q4"}
TRACED = ("step", "commit", "prefill")  # the others are made of them
# A prefill is made of Scan, which the DirectML provider does not have; GenAI runs on the CPU here.
PROFILES = {
    "cpu": ("step", "commit", "prefill", "decoder"),
    "web": ("step", "commit"),
    "dml": ("step", "commit"),
}


def refuse(profile: str, recipe: str | None) -> None:
    """Raises UsageError where the profile's provider lacks what the recipe is made of."""
    if profile == "dml" and recipe == "int4":
        raise UsageError(
            "--quantize int4: got --profile dml, expected cpu or web: "
            "the DirectML provider cannot look up rows of 4 bits (com.microsoft.GatherBlockQuantized).",
            "Give --profile dml --quantize int8, or --profile cpu --quantize int4.",
        )


def graphs(profile: str, recipe: str | None) -> tuple[str, ...]:
    """The graphs of a folder. A quantized one has no prefill: its tokens would share the scale of each activation, and say
    something else than the step (logits of the shipped model in int8 up to 1.9 apart)."""
    return tuple(graph for graph in PROFILES[profile] if recipe is None or graph != "prefill")


def file_of(graph: str, recipe: str | None) -> str:
    """Where that graph lies in the folder, as the manifest writes it: "onnx/model_quantized.onnx"."""
    return f"{FOLDER}/{STEMS[graph]}{SUFFIXES[recipe]}.onnx"


def apply(step: Path, recipe: str | None, calibration: Iterable[quantize.Feed] = ()) -> dict[str, Any] | None:
    """Quantize the float32 step in place -> what was done, for the manifest; None stays float32.

    ``calibration``: what "int8-static" finds its scales on and "int4" its rounding (`quantize.feeds`); "int8" reads none.
    """
    match recipe:
        case "int8":
            return quantize.int8(step)
        case "int8-static":
            return quantize.static(step, calibration)
        case "int4":
            return quantize.int4(step, calibration)
    return None
