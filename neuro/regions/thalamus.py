"""Thalamus: how strongly each feature of a token is let in, and which layers run for it.

    relay = embedding * 2 sigmoid(W_g norm(embedding) + U (m - 1/2))
    d_l = w_l . norm(embedding) + c_l + u_l . (m - 1/2)
    skips = "feedforward":  route_l = 1 where d_l > 0; a loss on the mean route holds the budget
    skips = "layer":        drive_l = c_l + (d_l - c_l) / 10 - theta, and layer l adds what it would read
                            (`neuro.layers.mixture_of_depths`); theta <- theta + (mean route - budget) / 10 after a
                            training step holds the budget

A token is routed by its own learned threshold, never by its rank in the sequence, which would see the future. differs:
mixture of depths (arXiv:2404.02258) ranks tokens (top-k). Source of a threshold that is controlled and not trained, so that
no gradient of a budget disturbs that of the surprise: arXiv:2408.15664, where it balances experts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backends import Ops
from neuro.config import HORMONES, BrainConfig
from neuro.layers.linear import Linear
from neuro.layers.mixture_of_depths import SPREAD, TOKENS, order_of, straight_through
from neuro.layers.norm import RMSNorm, wide
from neuro.regions.base import Channels, Region

_GAIN = 0.1  # of the threshold's controller, per step of training


class Thalamus(Region):
    name = "thalamus"
    reads = ("embedding", "modulators~")
    writes: tuple[str, ...] = ("relay", "route")

    threshold: Tensor

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
        self.budget, self.skips_layers = config.thalamus.route_budget, config.skips_layers
        if self.skips_layers:
            self.writes = ("relay", "route_drive")
            self.register_buffer("threshold", torch.zeros(()))
            with torch.no_grad():
                for rank, layer in enumerate(order_of(layers)):
                    self.route.bias[layer] = SPREAD * (0.5 - rank / max(1, layers - 1))

    def scan(self, inputs: Channels, state: tuple[()]) -> tuple[dict[str, Tensor], tuple[()]]:
        x = self.norm(inputs["embedding"])
        mood = (inputs["modulators~"] - 0.5).unsqueeze(1)
        gate = 2.0 * torch.sigmoid(self.gate(x) + self.gate_modulation(mood))
        outputs = {"relay": inputs["embedding"] * gate}
        if not self.routes:
            return outputs, state
        if not self.skips_layers:
            return outputs | {"route": straight_through(wide(self.route(x) + self.route_modulation(mood)))}, state
        of_token = F.linear(x.detach(), self.route.weight) + self.route_modulation(mood)
        return outputs | {"route_drive": TOKENS * wide(of_token) + self.route.bias - self.threshold}, state

    @torch.no_grad()
    def hold_budget(self, share: Tensor) -> None:
        """Move the threshold of whole layers after a training step in which ``share`` [] of the pairs ran."""
        if self.routes and self.skips_layers:
            self.threshold += _GAIN * (share - self.budget)
