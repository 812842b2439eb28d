"""Feed-forward layers: a dense gated one, and a spiking one whose output projection sees only spikes.

Dense:    y = r * W_2 (silu(W_g x) * W_u x)                        (SwiGLU, arXiv:2002.05202)
Spiking:  i_t = r_t * (W_in x_t + b),  LIF over tokens,  y_t = W_out s_t
          u_t = decay v_{t-1} + i_t;  s_t = 1 where u_t >= threshold;  v_t = u_t - threshold s_t

r is the thalamus's route (1 = runs). With ``holds`` the membranes stand still over a token at 0
(`neuro.layers.mixture_of_depths`); without, they leak and may fire what they had left over. W_out has no bias: no spikes, no
output. With spikes, neurons stand before W_in too: it sees enc(r_t x_t) (`neuro.layers.spiking_encoder`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from backends import LifRule, Ops, Surrogate
from neuro.config import CortexConfig
from neuro.layers.fast_linear import FastLinear
from neuro.layers.linear import Linear
from neuro.layers.mixture_of_depths import held_lif_scan
from neuro.layers.norm import wide
from neuro.layers.spiking_encoder import Emitter, Fired, SpikingEncoder
from neuro.state import LifState


class DenseFeedforward(nn.Module):
    """[B,T,D] -> [B,T,D], no state. Its hidden width is two thirds, for equal parameters with the spiking one."""

    def __init__(self, width: int, hidden: int, rank: int, ops: Ops) -> None:
        super().__init__()
        hidden = hidden * 2 // 3
        self.emitters: tuple[Emitter, ...] = ()
        self.up = Linear(width, 2 * hidden, ops)
        self.down = FastLinear(hidden, width, rank, ops)

    def init_state(self, batch: int, device: torch.device) -> tuple[()]:
        return ()

    def scan(self, x: Tensor, route: Tensor, state: tuple[()]) -> tuple[Tensor, Tensor, tuple[()], tuple[()]]:
        gate, value = self.up(x).chunk(2, -1)
        y, eligibility = self.down(gate * torch.sigmoid(gate) * value)
        return y * route.unsqueeze(-1), eligibility * route.unsqueeze(-1), (), state

    def hand_back(self, x: Tensor, error: Tensor) -> Tensor:
        """``error`` at W_2's output for ``x``, route 1 -> error at ``x``: the transposed Jacobian, cut from the graph.

        Nothing comes back where x is 0.
        """
        gate, value = wide(self.up(x)).detach().chunk(2, -1)
        opened, inner = torch.sigmoid(gate), wide(error @ self.down.weight.detach().to(error.dtype))
        to_gate = inner * value * opened * (1.0 + gate * (1.0 - opened))
        to_both = torch.cat([to_gate, inner * gate * opened], -1)
        return wide(to_both @ self.up.weight.detach().to(to_both.dtype))


class SpikingFeedforward(nn.Module):
    """[B,T,D] -> [B,T,D]; the membranes are carried from token to token."""

    def __init__(self, width: int, config: CortexConfig, rank: int, ops: Ops, holds: bool = False) -> None:
        super().__init__()
        self.ops, self.config, self.holds = ops, config, holds
        self.rule = LifRule(surrogate=Surrogate(slope=config.surrogate_slope))
        neurons = config.feedforward_width
        self.inject = Linear(width, neurons, ops, bias=True)
        self.project = FastLinear(neurons, width, rank, ops, spikes=True)
        # Unit-rms inputs give a membrane whose spread makes about one neuron in ten cross the threshold at the start.
        spread = 0.78 * config.v_threshold * math.sqrt(1.0 - config.decay**2)
        nn.init.normal_(self.inject.weight, std=spread / math.sqrt(width))
        nn.init.zeros_(self.inject.bias)
        nn.init.normal_(self.project.weight, std=0.3 / math.sqrt(neurons * config.rate_target))
        self.inward = None
        own = Emitter("", neurons, 1, 1, "project", width, width, "dense")
        self.emitters: tuple[Emitter, ...] = (own,)
        if config.encoding == "spikes":
            self.inward = SpikingEncoder(width, 1.0, config)
            self.emitters = (
                self.inward.emitter("inward", "inject", neurons),
                own._replace(input_signal="binary"),
            )

    def init_state(self, batch: int, device: torch.device) -> LifState:
        return LifState(torch.zeros(batch, self.config.feedforward_width, device=device))

    def scan(self, x: Tensor, route: Tensor, state: LifState) -> tuple[Tensor, Tensor, tuple[Fired, ...], LifState]:
        """-> output, eligibility, what each of ``emitters`` fired, state."""
        c = self.config
        fired: tuple[Fired, ...] = ()
        if self.inward is not None:
            x, said = self.inward(x * route.unsqueeze(-1))
            fired = (said,)
        current = wide(self.inject(x)) * route.unsqueeze(-1)
        if self.holds:
            spikes, v = held_lif_scan(self.ops, current, route, state.v, c.decay, c.v_threshold, self.rule)
        else:
            moved = current.transpose(0, 1).contiguous()
            spikes, v = self.ops.lif_scan(moved, state.v, c.decay, c.v_threshold, self.rule)
            spikes = spikes.transpose(0, 1)
        return *self.project(spikes), (*fired, Fired(spikes, None)), LifState(v)

    @torch.no_grad()
    def membrane(self, x: Tensor, route: Tensor, spikes: Tensor, state: LifState) -> Tensor:
        """u [B,T,N] of `scan` on the same input, replayed from the spikes it gave; only what records needs it."""
        c, v = self.config, state.v
        if self.inward is not None:
            x, _ = self.inward(x * route.unsqueeze(-1))
        current = wide(self.inject(x)) * route.unsqueeze(-1)
        u = torch.empty_like(current)
        for t in range(u.shape[1]):
            u[:, t] = c.decay * v + current[:, t]
            if self.holds:
                u[:, t] = torch.where(route[:, t, None] > 0, u[:, t], v)
            v = u[:, t] - c.v_threshold * spikes[:, t]
        return u
