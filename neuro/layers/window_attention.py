"""Sliding-window attention, the cortex's working memory: the current token and the W before it, in constant memory.

Distances enter as ALiBi slopes 2^(-8 i / H) (Press et al. 2022, arXiv:2108.12409).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backends import Ops
from neuro.layers.fast_linear import FastLinear
from neuro.layers.linear import Linear
from neuro.layers.norm import wide
from neuro.state import WindowState


class WindowAttention(nn.Module):
    """[B,T,D] -> [B,T,D]; the state holds the last W keys and values."""

    slopes: Tensor
    step_bias: Tensor
    itself: Tensor

    def __init__(self, width: int, heads: int, window: int, rank: int, ops: Ops) -> None:
        super().__init__()
        self.ops, self.heads, self.window = ops, heads, window
        self.project = Linear(width, 3 * width, ops)
        self.out = FastLinear(width, width, rank, ops)
        slopes = 2.0 ** (-8.0 * torch.arange(1, heads + 1) / heads)
        self.register_buffer("slopes", slopes, persistent=False)
        # Decoding asks for one token's bias again and again: all but who was seen is known now.
        distance = torch.arange(window, -1, -1)
        self.register_buffer("step_bias", -slopes[:, None, None] * distance, persistent=False)
        self.register_buffer("itself", distance == 0, persistent=False)

    emitters = ()

    def init_state(self, batch: int, device: torch.device) -> WindowState:
        width = self.out.in_features // self.heads
        cache = torch.zeros(batch, self.heads, self.window, width, device=device)
        return WindowState(cache, cache.clone(), torch.zeros(batch, self.window, device=device))

    def scan(self, x: Tensor, valid: Tensor, state: WindowState) -> tuple[Tensor, Tensor, tuple[()], WindowState]:
        batch, tokens, width = x.shape
        q, k, v = self.project(x).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        keys = torch.cat([state.keys.to(k.dtype), k], 2)
        values = torch.cat([state.values.to(v.dtype), v], 2)
        seen = torch.cat([state.seen, valid], 1)
        y = self.ops.attention(q, keys, values, self._bias(tokens, seen))
        y = y.transpose(1, 2).reshape(batch, tokens, width)
        kept = WindowState(wide(keys[:, :, tokens:]), wide(values[:, :, tokens:]), seen[:, tokens:])
        return *self.out(y), (), kept

    def _bias(self, tokens: int, seen: Tensor) -> Tensor:
        """[B,H,T,W+T]: -slope * distance, and -inf for the future, beyond the window, and padding."""
        if tokens == 1:  # it has no future and all of its window before it
            return torch.where(((seen > 0) | self.itself)[:, None, None], self.step_bias.to(seen.dtype), -torch.inf)
        here = torch.arange(tokens, device=seen.device) + self.window
        there = torch.arange(tokens + self.window, device=seen.device)
        distance = here[:, None] - there[None, :]
        # A token always sees itself, so that a padding row has something to attend to.
        allowed = ((seen[:, None, :] > 0) | (distance == 0)) & (distance >= 0) & (distance <= self.window)
        bias = -self.slopes[:, None, None] * distance.abs().to(seen.dtype)
        return torch.where(allowed[:, None], bias, -torch.inf)
