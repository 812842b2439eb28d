"""Gated affine recurrence, the cortex's own memory.

    h_t = a_t * h_{t-1} + (1 - a_t) * u_t,   a_t = sigmoid(W_a x_t + b_a),   u_t = W_u x_t
    y_t = W_y (norm(h_t) * g_t),             g_t = w_t * sigmoid(w_t), w_t = W_g x_t

a and u never see h, so a span is one scan. With ``holds`` a token that is not valid leaves h as it was (a = 1, nothing
added), wherever it lies (`neuro.layers.mixture_of_depths`). With spikes, neurons stand before both projections: W_a, W_u and
W_g see enc(x_t), W_y sees enc(norm(h_t) * g_t) (`neuro.layers.spiking_encoder`). Source: the affine recurrence of HGRN
(arXiv:2311.04823) and minGRU (arXiv:2410.01201).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backends import Ops
from neuro.config import CortexConfig
from neuro.layers.fast_linear import FastLinear
from neuro.layers.linear import Linear
from neuro.layers.norm import RMSNorm, wide
from neuro.layers.spiking_encoder import Emitter, Fired, SpikingEncoder
from neuro.state import RecurrenceState


class AffineRecurrence(nn.Module):
    """[B,T,D] -> [B,T,D] with state h [B,D] in float32, also under autocast."""

    def __init__(self, width: int, span: int, rank: int, config: CortexConfig, ops: Ops, holds: bool = False) -> None:
        super().__init__()
        self.ops, self.holds = ops, holds
        self.project = Linear(width, 3 * width, ops)
        self.norm = RMSNorm(width)
        self.out = FastLinear(width, width, rank, ops)
        # Time constants of 1 to 8 spans of tokens, spread evenly in the logarithm: a = 1 - 1/tau.
        tau = torch.logspace(0.3, torch.log10(torch.tensor(8.0 * span)).item(), width)
        self.decay_bias = nn.Parameter(torch.log(tau - 1.0))
        self.inward = self.outward = None
        self.emitters: tuple[Emitter, ...] = ()
        if config.encoding == "spikes":
            self.inward = SpikingEncoder(width, 1.0, config)
            self.outward = SpikingEncoder(width, 0.4, config)
            self.emitters = (
                self.inward.emitter("inward", "project", 3 * width),
                self.outward.emitter("outward", "out", width),
            )

    def init_state(self, batch: int, device: torch.device) -> RecurrenceState:
        return RecurrenceState(torch.zeros(batch, self.decay_bias.shape[0], device=device))

    def scan(
        self, x: Tensor, valid: Tensor, state: RecurrenceState
    ) -> tuple[Tensor, Tensor, tuple[Fired, ...], RecurrenceState]:
        """-> output, eligibility, what each of ``emitters`` fired, state."""
        fired: tuple[Fired, ...] = ()
        if self.inward is not None:
            x, said = self.inward(x * valid.unsqueeze(-1))
            fired = (said,)
        decay, drive, gate = wide(self.project(x)).chunk(3, -1)
        a = torch.sigmoid(decay + self.decay_bias)
        # Padding lies only before a row's first token, where h is 0: adding nothing keeps it 0.
        b = (1.0 - a) * drive * valid.unsqueeze(-1)
        if self.holds:
            a = torch.where(valid.unsqueeze(-1) > 0, a, torch.ones_like(a))
        h = self.ops.affine_scan(a.transpose(0, 1), b.transpose(0, 1), state.h)
        y = self.norm(h.transpose(0, 1)) * gate * torch.sigmoid(gate)
        if self.outward is not None:
            y, said = self.outward(y * valid.unsqueeze(-1) if self.holds else y)
            fired = (*fired, said)
        return *self.out(y), fired, RecurrenceState(h[-1])
