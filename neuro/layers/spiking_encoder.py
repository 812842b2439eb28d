"""Spiking neurons in front of a projection, so that it reads spikes alone.

A channel x has an ON and an OFF neuron, which integrate and fire. A token is n short steps: all of it arrives in the first,
and what is left after the last is forgotten.

    ON:   u_1 = x / theta,   s_k = 1 where u_k >= 1,   u_{k+1} = u_k - s_k,   k = 1..n;   OFF likewise with -x
    the projection reads sum_k (s_k of ON - s_k of OFF), a whole number from -n to n, as so many spikes

so that a neuron fires min(n, floor(max(0, x / theta))) times. theta is learned for every channel. Source: integer spike counts
that are unrolled into spikes, as of SpikingBrain (arXiv:2509.05276); signed spikes, as of SpikeLM (arXiv:2406.03287).
differs: no scale multiplies the spikes, and theta is a parameter and not a mean of x.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backends import LifRule, Ops, Surrogate
from neuro.config import CortexConfig
from neuro.layers.norm import wide


class Emitter(NamedTuple):
    """Spiking neurons whose spikes are all that a projection reads; names are paths below the mixer or feed-forward."""

    name: str  # of the neurons; empty: the module itself
    channels: int  # what the projection reads
    neurons: int  # a channel: an encoder has two, one for each sign
    steps: int  # a token
    projection: str
    fan_out: int
    fan_in: int
    input_signal: str  # what drives the neurons: "binary" or "dense"


class SpikingEncoder(nn.Module):
    """[B,T,N] -> (signed spike counts [B,T,N], spikes of either sign [B,T,N]), whole numbers in a floating type.

    Args:
        threshold: what theta starts from, in units of the input.
    """

    def __init__(self, width: int, threshold: float, config: CortexConfig, ops: Ops) -> None:
        super().__init__()
        self.ops, self.width, self.burst = ops, width, config.burst
        self.rule = LifRule(surrogate=Surrogate(slope=config.surrogate_slope))
        self.log_threshold = nn.Parameter(torch.full((width,), math.log(threshold)))

    def emitter(self, name: str, projection: str, fan_out: int) -> Emitter:
        return Emitter(name, self.width, 2, self.burst, projection, fan_out, 1, "dense")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = wide(x) * torch.exp(-self.log_threshold)
        current = torch.cat([x, -x], -1).flatten(0, 1).unsqueeze(0)
        current = F.pad(current, (0, 0, 0, 0, 0, self.burst - 1))
        spikes, _ = self.ops.lif_scan(current, torch.zeros_like(current[0]), 1.0, 1.0, self.rule)
        on, off = spikes.sum(0).reshape(*x.shape[:2], -1).chunk(2, -1)
        return on - off, on + off
