"""The card of an exported folder: what it holds, how to run it, what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def write(manifest: dict[str, Any], source: Path) -> str:
    """The text of README.md."""
    measured, quantization = manifest["parity"], manifest["quantization"]
    step, commit = manifest["graphs"]["step"], manifest["graphs"]["commit"]
    kind = "int8" if quantization else "float32"
    size = f"{step['bytes'] / 1e6:.2f} MB"
    if quantization:
        size += f" ({step['bytes'] / manifest['float_step_bytes']:.2f} of float32)"
    licence = "LICENSE holds the terms of the weights." if (source / "LICENSE").is_file() else ""
    learns = ", ".join(manifest["learns"])
    ms = manifest["latency"]["ms_per_token"]
    others = ""
    if "prefill" in manifest["graphs"]:
        others += f"`{manifest['graphs']['prefill']['file']}` takes many tokens at once (batch and length are free). "
    if "decoder" in manifest["graphs"]:
        others += (
            "`genai_config.json` makes this a folder of ONNX Runtime GenAI: `og.Model('.')` runs "
            f"`{manifest['graphs']['decoder']['file']}`, one token a run, the commit inside an If "
            f"({manifest['latency']['decoder_over_step']} times the cost of the step alone, commits included). "
            "A prompt after the first is given token by token. "
        )
    if manifest.get("temperature_octaves"):
        others += "Hormones warm what `run.py` and the JavaScript draw"
        others += "; GenAI draws at the temperature it is told. " if "decoder" in manifest["graphs"] else ". "
    return f"""# A neuro brain in ONNX, {kind}

Profile `{manifest["profile"]}`. Two graphs with explicit state: `{step["file"]}` ({size}) takes one token per stream,
`{commit["file"]}` ends a span of {manifest["plasticity_span"]} tokens: it writes the episodic memory and updates the hormones.
{others}

Learns while it runs (`learns` in the manifest): {learns}.

    python run.py "Once upon a time"     # numpy, onnxruntime, tokenizers
    python run.py 12 7 43                # numpy, onnxruntime
    python run.py --check                # does this machine compute what the exporting one did?
    neuro verify .                       # against torch/, the model this was made from

`manifest.json` names every port with type, shape and initial value, which output becomes which input
(`graphs.*.state`) and which inputs a graph leaves as they are (`graphs.*.constant`: keep those on the device). Each graph's
file repeats that in its own metadata, so that it is usable alone.
Opset {step["opset"]["ai.onnx"]}; `prosody` is optional (zeros are silence); the axis `batch` is free.

Measured against torch over {measured["tokens"]} tokens with carried state and {measured["commits"]} commits: logits within
{measured["logits_max_abs"]:.1e}, the same likeliest token for {100 * measured["top1_agreement"]:.1f} %,
a divergence of {measured["divergence"]:.5f} nats per token,
spike counts apart by {100 * measured["spike_mismatch"]:.3f} % of all neuron updates.
A token is {manifest["energy"]["multiply_accumulates_per_token"]:,} multiply-accumulates and
{manifest["energy"]["spikes_per_token"]} spikes; in joules: `{manifest["energy"]["joules"]}`.
Processor ms per token, one thread, median: {", ".join(f"{name} {taken['median']:.2f}" for name, taken in ms.items())}
({manifest["latency"]["processor"]}).
{licence}
"""
