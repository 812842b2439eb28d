"""Sliding-window attention, the cortex's working memory: the current token and the W before it, in constant memory.

Distances enter as ALiBi slopes 2^(-8 i / H) (Press et al. 2022, arXiv:2108.12409). With ``holds`` a token that is not valid
takes no place in the window and no distance (`neuro.layers.mixture_of_depths`); without, it does, and nobody attends to it.
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

    def __init__(self, width: int, heads: int, window: int, rank: int, ops: Ops, holds: bool = False) -> None:
        super().__init__()
        self.ops, self.heads, self.window, self.holds = ops, heads, window, holds
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
        held = self.holds and tokens > 1
        bias = self._held_bias(valid, state.seen) if held else self._bias(tokens, seen)
        y = self.ops.attention(q, keys, values, bias)
        y = y.transpose(1, 2).reshape(batch, tokens, width)
        if held:
            last = self._last(valid)
            kept = WindowState(self._rows(keys, last), self._rows(values, last), seen.gather(1, last))
        else:
            kept = WindowState(wide(keys[:, :, tokens:]), wide(values[:, :, tokens:]), seen[:, tokens:])
            if self.holds:
                kept = WindowState(*(_where(valid, after, before) for after, before in zip(kept, state, strict=True)))
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

    def _held_bias(self, valid: Tensor, before: Tensor) -> Tensor:
        """[B,H,T,W+T] of valid [B,T] and what the window had seen [B,W]: distances in tokens that took a place."""
        tokens = valid.shape[1]
        place = valid.cumsum(1) - valid  # of a token that is not valid: the one it would have taken
        slots = torch.arange(-self.window, 0, device=valid.device, dtype=valid.dtype).expand(valid.shape[0], -1)
        distance = place.unsqueeze(2) - torch.cat([slots, place], 1).unsqueeze(1)
        here = torch.arange(tokens, device=valid.device) + self.window
        there = torch.arange(tokens + self.window, device=valid.device)
        itself, past = here[:, None] == there, here[:, None] >= there
        seen = torch.cat([before, valid], 1).unsqueeze(1) > 0
        allowed = itself | (seen & past & (distance <= self.window))
        bias = -self.slopes[:, None, None] * distance.unsqueeze(1)
        return torch.where(allowed.unsqueeze(1), bias, -torch.inf)

    def _last(self, valid: Tensor) -> Tensor:
        """[B,W]: which of the W slots and T tokens the window holds afterwards."""
        place = torch.where(valid > 0, valid.cumsum(1) - valid, -2.0 * self.window)
        slots = torch.arange(-self.window, 0, device=valid.device, dtype=valid.dtype)
        places = torch.cat([slots.expand(valid.shape[0], -1), place], 1)
        wanted = slots + valid.sum(1, keepdim=True)
        return (places.unsqueeze(1) == wanted.unsqueeze(2)).to(torch.int64).argmax(-1)

    def _rows(self, cache: Tensor, index: Tensor) -> Tensor:
        """Rows [B,W] of a cache [B,H,W+T,K]."""
        batch, heads, _, width = cache.shape
        rows = self.ops.take_rows(wide(cache).transpose(1, 2).flatten(2), index)
        return rows.reshape(batch, self.window, heads, width).transpose(1, 2)


def _where(valid: Tensor, after: Tensor, before: Tensor) -> Tensor:
    """One token: the state of the rows where it is valid [B,1], the one before elsewhere."""
    return torch.where(valid.reshape(-1, *[1] * (after.dim() - 1)) > 0, after, before)
