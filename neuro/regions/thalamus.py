"""Thalamus: how strongly each feature of a token is let in, and which layers run for it.

    relay = embedding * 2 sigmoid(W_g norm(embedding) + U (m - 1/2))
    route_l = 1 where p_l > 1/2,   p_l = sigmoid(w_l . norm(embedding) + c_l + u_l . (m - 1/2))

A token is routed by its own learned threshold, never by its rank in the sequence, which would see the future. The
budget is held by a loss on the mean route. differs: mixture of depths (arXiv:2404.02258) ranks tokens (top-k).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backends import Ops
from neuro.config import HORMONES, BrainConfig
from neuro.layers.linear import Linear
from neuro.layers.norm import RMSNorm, wide
from neuro.regions.base import Channels, Region


class Thalamus(Region):
    name = "thalamus"
    reads = ("embedding", "modulators~")
    writes: tuple[str, ...] = ("relay", "route")

    def __init__(self, config: BrainConfig, ops: Ops) -> None:
        super().__init__()
        width, layers = config.d_model, len(config.cortex.layers)
        self.norm = RMSNorm(width)
        self.gate = Linear(width, width, ops, bias=True)
        self.gate_modulation = nn.Linear(len(HORMONES), width, bias=False)
        for linear in (self.gate, self.gate_modulation):
            nn.init.zeros_(linear.weight)
        nn.init.zeros_(self.gate.bias)
        self.routes = layers > 0
        if not self.routes:  # without a cortex there is nothing to route
            self.writes = ("relay",)
            return
        self.route = nn.Linear(width, layers)
        self.route_modulation = nn.Linear(len(HORMONES), layers, bias=False)
        nn.init.zeros_(self.route_modulation.weight)
        nn.init.normal_(self.route.weight, std=width**-0.5)
        nn.init.constant_(self.route.bias, 1.5)

    def scan(self, inputs: Channels, state: tuple[()]) -> tuple[dict[str, Tensor], tuple[()]]:
        x = self.norm(inputs["embedding"])
        mood = (inputs["modulators~"] - 0.5).unsqueeze(1)
        gate = 2.0 * torch.sigmoid(self.gate(x) + self.gate_modulation(mood))
        outputs = {"relay": inputs["embedding"] * gate}
        if not self.routes:
            return outputs, state
        p = torch.sigmoid(wide(self.route(x) + self.route_modulation(mood)))
        # Straight-through: hard forward, the sigmoid's gradient backward.
        route = (p > 0.5).to(p.dtype) + (p - p.detach())
        return outputs | {"route": route}, state
