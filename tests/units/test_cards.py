"""The cards of exported folders say what a folder does not do as the model does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from export import card
from export.c import card as c_card


def manifest(octaves: float, decoder: bool) -> dict[str, Any]:
    """What the card of ONNX graphs reads of a manifest."""
    graph = {"file": "step.onnx", "bytes": 1, "opset": {"ai.onnx": 18}}
    measured = {name: 0 for name in ("tokens", "commits", "logits_max_abs", "top1_agreement", "divergence")}
    return {
        "parity": measured | {"spike_mismatch": 0},
        "quantization": None,
        "graphs": {name: graph for name in ("step", "commit", *(["decoder"] if decoder else []))},
        "learns": {},
        "profile": "cpu",
        "plasticity_span": 16,
        "latency": {"ms_per_token": {}, "processor": "", "decoder_over_step": 1},
        "energy": {"multiply_accumulates_per_token": 1, "spikes_per_token": 1, "joules": ""},
        **({"temperature_octaves": octaves} if octaves else {}),
    }


@pytest.mark.parametrize("octaves", [0.0, 0.5])
@pytest.mark.parametrize("decoder", [False, True])
def test_a_folder_of_graphs_says_who_is_warmed_by_hormones(octaves, decoder):
    text = card.write(manifest(octaves, decoder), Path("nowhere"))
    assert ("Hormones warm what `run.py` and the JavaScript draw" in text) == bool(octaves)
    assert ("GenAI draws at the temperature it is told." in text) == bool(octaves and decoder)


@pytest.mark.parametrize(("octaves", "enabled", "said"), [(0.0, True, False), (0.5, True, True), (0.5, False, False)])
def test_a_folder_of_c_says_that_hormones_warm_nothing(octaves, enabled, said):
    tables = {"terms": {}, "limit": 1, "total": 1, "bytes_per_parameter": 1.0}
    measured = {name: 0 for name in ("tokens", "commits", "nats", "torch_nats", "top1_agreement", "divergence")}
    text = c_card.text(
        {
            "parity": measured | {"spike_mismatch": 0, "host": "equal", "board": "equal"},
            "ram": tables,
            "flash": tables,
            "instructions": None,
            "memory": True,
            "target": "cortex-m4",
            "machine": "mps2-an386",
            "parameters": 1,
            "energy": {"unpriced": "none"},
            "brain": {"endocrine": {"enabled": enabled, "temperature_octaves": octaves}},
        }
    )
    assert ("Hormones do not warm what you draw" in text) == said
