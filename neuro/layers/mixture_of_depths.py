"""Mixture of depths: which layers run for a token, and how a layer runs over the tokens that were sent to it alone.

    z_t = w . x_t / 10 + d_t,   the layer runs for token t where z_t > 0

x_t is what the layer would read and d_t what the thalamus adds, its threshold taken off (`neuro.regions.thalamus`). A token
is sent by its own z, never by its rank in the sequence, which would see the future. The gradient of z ends at w: what decides
does not pull at what it decides about. differs: mixture of depths (arXiv:2404.02258) ranks tokens (top-k).

One rule for what a skipped token does to the layer: nothing. The layer's time stands still; its state and its output are
those of a layer that never met the token, so a run over T tokens is the same run over the n <= T tokens that were sent.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backends import LifRule, Ops
from neuro.layers.norm import wide

# How far z lies apart at the start between tokens, and between the first layer to go on running and the last. Layers first:
# a brain of fewer layers learns faster than one in which a token's past lies in other layers by chance; a small factor, for
# an optimizer whose steps know no scale, lets tokens come apart only as the router learns.
TOKENS, SPREAD = 0.1, 4.0


def order_of(layers: int) -> list[int]:
    """Which layer is the first, second, ... to go on running as the budget shrinks: those that do lie evenly spread."""
    found: list[int] = [0]
    while len(found) < layers:
        rest = [layer for layer in range(layers) if layer not in found]
        found.append(max(rest, key=lambda layer: (min(abs(layer - other) for other in found), -layer)))
    return found


class DepthRouter(nn.Module):
    """(x [B,T,D], drive [B,T]) -> [B,T] of 0 and 1: straight through, forward a step and backward the sigmoid's slope."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1, bias=False)
        nn.init.normal_(self.score.weight, std=width**-0.5)

    def forward(self, x: Tensor, drive: Tensor) -> Tensor:
        return straight_through(TOKENS * wide(self.score(x.detach())).squeeze(-1) + drive)


def straight_through(z: Tensor) -> Tensor:
    """1 where z > 0, else 0 (as a float rounds sigmoid(z) above 1/2); the gradient is that of sigmoid(z)."""
    p = torch.sigmoid(z)
    return (p > 0.5).to(p.dtype) + (p - p.detach())


def gathers(ops: Ops, batch: int) -> bool:
    """Whether only the tokens that are sent go through a layer: one row, no graph being recorded, gather and scatter at hand.

    With gradients every token does, so that the router learns what a token that was not sent missed. So does it in a batch:
    how many tokens a product has decides how it is rounded, and no row may depend on what the others send.
    """
    recording = torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing()
    return batch == 1 and not ops.scatter_free and not recording


def held_lif_scan(
    ops: Ops, current: Tensor, gate: Tensor, v0: Tensor, decay: float, threshold: float, rule: LifRule
) -> tuple[Tensor, Tensor]:
    """LIF over the tokens at gate 1 alone: (current [B,T,N], gate [B,T], v0 [B,N]) -> (spikes [B,T,N], v [B,N]).

    In between a membrane neither leaks nor fires. The tokens that count are moved to the end, behind tokens on which neurons
    without charge do nothing; what v0 has left over joins the current of the first.
    """
    tokens = current.shape[1]
    ran = gate.sum(1, keepdim=True)
    current = current * gate.unsqueeze(-1)
    if tokens == 1:
        spikes, v = ops.lif_scan(current.transpose(0, 1), v0, decay, threshold, rule)
        return spikes.transpose(0, 1) * gate.unsqueeze(-1), torch.where(ran > 0, v, v0)
    order = torch.sort(gate, dim=1, stable=True).indices
    first = (torch.arange(tokens, device=gate.device) == tokens - ran).to(v0.dtype)
    moved = ops.take_rows(current, order) + decay * first.unsqueeze(-1) * v0.unsqueeze(1)
    spikes, v = ops.lif_scan(moved.transpose(0, 1).contiguous(), torch.zeros_like(v0), decay, threshold, rule)
    back = torch.sort(order, dim=1).indices
    return ops.take_rows(spikes.transpose(0, 1), back), torch.where(ran > 0, v, v0)
