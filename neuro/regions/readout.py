"""Readout: the tied vocabulary matrix over what the cortex thinks and the hippocampus recalls.

features = gain * norm(hidden + recall),   logits = E features,   gain = exp(tanh(w . (m - 1/2)) / 2)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neuro.config import HORMONES, BrainConfig
from neuro.layers.norm import RMSNorm, wide
from neuro.regions.base import Channels, Region


class Readout(Region):
    name = "readout"
    reads = ("hidden", "recall", "modulators~")
    writes = ("features", "logits")

    def __init__(self, config: BrainConfig, embedding: nn.Parameter) -> None:
        super().__init__()
        self.norm = RMSNorm(config.d_model)
        self.weight = embedding  # tied: the brain owns it
        self.gain = nn.Linear(len(HORMONES), 1, bias=False)
        nn.init.zeros_(self.gain.weight)

    def scan(self, inputs: Channels, state: tuple[()]) -> tuple[dict[str, Tensor], tuple[()]]:
        x = self.norm(inputs["hidden"] + inputs["recall"])
        gain = torch.exp(0.5 * torch.tanh(wide(self.gain((inputs["modulators~"] - 0.5).unsqueeze(1)))))
        features = x * gain
        return {"features": features, "logits": features @ self.weight.T}, state
