"""Operators for devices without scatter (DirectML): no scatter, index_put, data-dependent shape, in-place write or float64.

Selections are one-hot masks and matrix products, recurrences are doublings over whole tensors; so are their gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor

from backends.contract import Ops
from backends.surrogate import fast_sigmoid_spike


def one_hot(index: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """[..., width] of 0 and 1 by comparison (``F.one_hot`` scatters)."""
    return (index.unsqueeze(-1) == torch.arange(width, device=index.device)).to(dtype)


class _Embed(torch.autograd.Function):
    # index_select forward; a one-hot matrix product backward, because embedding's own backward scatters.
    @staticmethod
    def forward(ctx, ids: Tensor, weight: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(ids)
        ctx.rows = weight.shape[0]
        return weight.index_select(0, ids.reshape(-1)).reshape(*ids.shape, weight.shape[1])

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[None, Tensor]:  # type: ignore[override]
        (ids,) = ctx.saved_tensors
        flat = grad.reshape(-1, grad.shape[-1])
        return None, one_hot(ids.reshape(-1), ctx.rows, flat.dtype).T @ flat


def embed(ids: Tensor, weight: Tensor) -> Tensor:
    return _Embed.apply(ids, weight)


def affine_scan(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    """Hillis-Steele doubling: log2(T) rounds of (a2,b2) o (a1,b1) = (a2 a1, a2 b1 + b2) over shifted copies."""
    tokens = a.shape[0]
    if tokens == 1:
        return a * h0 + b
    b = torch.cat([b[:1] + a[:1] * h0, b[1:]])
    shift = 1
    while shift < tokens:
        b = torch.cat([b[:shift], b[shift:] + a[shift:] * b[:-shift]])
        a = torch.cat([a[:shift], a[shift:] * a[:-shift]])
        shift *= 2
    return b


def lif_scan(current: Tensor, v0: Tensor, decay: float, threshold: float, slope: float) -> tuple[Tensor, Tensor]:
    v, spikes = v0, []
    for i_t in current.split(1):
        u = decay * v + i_t.squeeze(0)
        s = fast_sigmoid_spike(u, threshold, slope)
        v = u - threshold * s.detach()
        spikes.append(s)
    return torch.stack(spikes), v


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + bias
    return torch.softmax(scores, -1).to(v.dtype) @ v


def take_rows(source: Tensor, index: Tensor) -> Tensor:
    return one_hot(index, source.shape[1], source.dtype) @ source


def write_rows(memory: Tensor, index: Tensor, rows: Tensor, keep: Tensor) -> Tensor:
    chosen = one_hot(index, memory.shape[1], memory.dtype) * keep.unsqueeze(-1).to(memory.dtype)
    written = chosen.amax(1).unsqueeze(-1) > 0
    rows = torch.where(keep.unsqueeze(-1), rows, torch.zeros_like(rows))  # 0 * NaN would be NaN
    return torch.where(written, chosen.transpose(1, 2) @ rows, memory)


OPS = Ops("portable", embed, affine_scan, lif_scan, attention, take_rows, write_rows)
