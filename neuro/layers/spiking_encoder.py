"""Spiking neurons in front of a projection, so that it reads spikes alone.

A channel x has an ON and an OFF neuron. A token is n short steps: all of it arrives in the first, each step takes a threshold
off, a neuron fires for as long as it is above, and what is left in the end is forgotten.

    ON:   u_1 = x / theta,   s_k = 1 where u_k >= 1,   u_{k+1} = u_k - 1,   k = 1..n;   OFF likewise from -x
    the projection reads sum_k (s_k of ON - s_k of OFF), a whole number from -n to n, as so many spikes

so that a neuron fires min(n, floor(max(0, x / theta))) times. theta is learned for every channel. Backward, each s_k has the
surrogate's slope at its own u_k. Source: integer spike counts that are unrolled into spikes, as of SpikingBrain
(arXiv:2509.05276); signed spikes, as of SpikeLM (arXiv:2406.03287). differs: no scale multiplies the spikes, and theta is a
parameter and not a mean of x.

Early in training (`anneal`) the projection may read a mixture of the spikes and the membranes, x / theta within n + 1/2: then
the network first learns what to say and by and by to say it in spikes. Out of training mode it reads spikes alone.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from backends import Surrogate
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


class Fired(NamedTuple):
    """What a population did."""

    spikes: Tensor  # [B,T,N] of each channel, of either sign
    membrane: (
        Tensor | None
    )  # [B,T,N] before the first spike, in thresholds, of the channel's excited neuron; None: not kept


class SpikingEncoder(nn.Module):
    """[B,T,N] -> signed spike counts [B,T,N], whole numbers in a floating type, and what fired.

    Args:
        threshold: what theta starts from, in units of the input.
    """

    def __init__(self, width: int, threshold: float, config: CortexConfig) -> None:
        super().__init__()
        self.width, self.burst = width, config.burst
        self.surrogate = Surrogate(slope=config.surrogate_slope)
        self.log_threshold = nn.Parameter(torch.full((width,), math.log(threshold)))
        self.membrane_share = 0.0  # of what is read in training mode

    def emitter(self, name: str, projection: str, fan_out: int) -> Emitter:
        return Emitter(name, self.width, 2, self.burst, projection, fan_out, 1, "dense")

    def forward(self, x: Tensor) -> tuple[Tensor, Fired]:
        u = wide(x) * torch.exp(-self.log_threshold)
        said, spikes = _Counts.apply(u, self.burst, self.surrogate)
        if self.training and self.membrane_share:
            said = said + self.membrane_share * (u.clamp(-self.burst - 0.5, self.burst + 0.5) - said)
        return said, Fired(spikes, u.abs())


class _Counts(torch.autograd.Function):
    """Membranes in thresholds -> signed counts and how many spikes they are, a burst at most."""

    @staticmethod
    def forward(ctx, u: Tensor, burst: int, surrogate: Surrogate) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        ctx.save_for_backward(u)
        ctx.burst, ctx.surrogate = burst, surrogate
        spikes = u.abs().floor().clamp(max=burst)
        return u.sign() * spikes, spikes

    @staticmethod
    def backward(ctx, to_said: Tensor, to_spikes: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (u,) = ctx.saved_tensors
        on, off = torch.zeros_like(u), torch.zeros_like(u)
        for k in range(1, ctx.burst + 1):
            on += ctx.surrogate.derivative(u - k)
            off += ctx.surrogate.derivative(u + k)  # of -u - k: a slope is even
        return to_said * (on + off) + to_spikes * (on - off), None, None


def anneal(module: nn.Module, step: int, steps: float) -> None:
    """Set what every encoder of the module reads in training at a step: membranes at 0, spikes alone from ``steps`` on."""
    for part in module.modules():
        if isinstance(part, SpikingEncoder):
            part.membrane_share = max(0.0, 1.0 - step / steps) if steps else 0.0
