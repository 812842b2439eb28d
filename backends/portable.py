"""Operators for devices without scatter (DirectML): no scatter, index_put, data-dependent shape or float64.

Selections are one-hot masks and matrix products, the affine recurrence is solved for all chunks of a span at once; so are
their gradients.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from backends.contract import LifRule, Ops, check_affine_scan, check_lif_scan
from backends.surrogate import spike

_AT_ONCE = 1024  # slots whose ids are told apart at once


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


class _AffineScan(torch.autograd.Function):
    """The recurrence in two levels, without a division or a logarithm: exact for any a, zero included.

    Tokens lie in chunks of equal length and a rest. A first sweep over the tokens of a chunk, all chunks at once, finds
    what each does to whatever state enters it (h -> end + product * h); a short loop carries the state from chunk to
    chunk; a second sweep gives every state. The backward pass is the same towards the past.
    """

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, h0: Tensor) -> Tensor:  # type: ignore[override]
        count, length = _chunks(a.shape[0])
        whole = count * length
        a_in, b_in = (x[:whole].unflatten(0, (count, length)).unbind(1) for x in (a, b))
        end, product = b_in[0], a_in[0]
        for a_s, b_s in zip(a_in[1:], b_in[1:], strict=True):
            end, product = torch.addcmul(b_s, a_s, end), product * a_s
        entering = [h0]
        for end_c, product_c in zip(end[:-1].unbind(0), product[:-1].unbind(0), strict=True):
            entering.append(torch.addcmul(end_c, product_c, entering[-1]))
        h, states, rest = torch.stack(entering), [], []
        for a_s, b_s in zip(a_in, b_in, strict=True):
            h = torch.addcmul(b_s, a_s, h)
            states.append(h)
        last = h[-1]
        for a_t, b_t in zip(a[whole:].unbind(0), b[whole:].unbind(0), strict=True):
            last = torch.addcmul(b_t, a_t, last)
            rest.append(last)
        out = _in_order(states, rest)
        ctx.save_for_backward(a, out, h0, product)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        a, h, h0, product = ctx.saved_tensors
        count, length = _chunks(a.shape[0])
        whole = count * length
        # `carried` is a_{t+1} * grad_b_{t+1}: what reaches h_t from its future.
        carried, rest = torch.zeros_like(h0), []
        for a_t, grad_t in zip(reversed(a[whole:].unbind(0)), reversed(grad[whole:].unbind(0)), strict=True):
            rest.append(grad_t + carried)
            carried = a_t * rest[-1]
        a_in, grad_in = (x[:whole].unflatten(0, (count, length)).unbind(1) for x in (a, grad))
        start = a_in[-1] * grad_in[-1]
        for a_s, grad_s in zip(reversed(a_in[:-1]), reversed(grad_in[:-1]), strict=True):
            start = a_s * (grad_s + start)
        leaving = [carried]
        for start_c, product_c in zip(reversed(start[1:].unbind(0)), reversed(product[1:].unbind(0)), strict=True):
            leaving.append(torch.addcmul(start_c, product_c, leaving[-1]))
        carried, found = torch.stack(leaving[::-1]), []
        for a_s, grad_s in zip(reversed(a_in), reversed(grad_in), strict=True):
            found.append(grad_s + carried)
            carried = a_s * found[-1]
        grad_b = _in_order(found[::-1], rest[::-1])
        return grad_b * torch.cat([h0.unsqueeze(0), h[:-1]]), grad_b, carried[0]


def _chunks(tokens: int) -> tuple[int, int]:
    """(number of chunks, their length). Three operators a token of a chunk and one a chunk: fewest at sqrt(T / 3)."""
    length = max(1, math.isqrt(tokens // 3))
    return tokens // length, length


def _in_order(states: list[Tensor], rest: list[Tensor]) -> Tensor:
    """[T,B,D] of [chunk,B,D] for every place in a chunk, and [B,D] for every token after the last chunk."""
    whole = torch.stack(states, 1).flatten(0, 1)
    return torch.cat([whole, torch.stack(rest)]) if rest else whole


def affine_scan(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    check_affine_scan(a, b, h0)
    if a.shape[0] == 1:
        return a * h0 + b
    return _AffineScan.apply(a, b, h0)


def spike_linear(spikes: Tensor, weight: Tensor, packed: object) -> Tensor:
    return F.linear(spikes, weight)


def lif_scan(
    current: Tensor, v0: Tensor, decay: float | Tensor, threshold: float | Tensor, rule: LifRule
) -> tuple[Tensor, Tensor]:
    check_lif_scan(current, v0, decay, threshold)

    def reset(u: Tensor, s: Tensor) -> Tensor:
        s = s.detach() if rule.detach_reset else s
        if rule.reset == "soft":
            return u - threshold * s
        return u * (1.0 - s) + rule.v_reset * s if rule.reset == "hard" else u

    v, spikes = v0.expand(current.shape[1:]), []
    last = spike(v - threshold, rule.surrogate, rule.strict) if rule.delayed else None
    for i_t in current.split(1):
        u = decay * v + i_t.squeeze(0)
        if last is not None:
            v = reset(u, last)
            last = s = spike(v - threshold, rule.surrogate, rule.strict)
        else:
            s = spike(u - threshold, rule.surrogate, rule.strict)
            v = reset(u, s)
        spikes.append(s)
    return torch.stack(spikes), v


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + bias
    return torch.softmax(scores, -1).to(v.dtype) @ v


def take_rows(source: Tensor, index: Tensor) -> Tensor:
    return one_hot(index, source.shape[1], source.dtype) @ source


class _WriteRows(torch.autograd.Function):
    # A slot has at most one writer, so that who writes where is a gather in both directions: nothing is multiplied.
    @staticmethod
    def forward(ctx, memory: Tensor, rows: Tensor, index: Tensor, keep: Tensor) -> Tensor:  # type: ignore[override]
        writer = _writers(index, keep, memory.shape[1])
        written = (writer > 0).unsqueeze(-1)
        ctx.save_for_backward(index, keep, written)
        out = _rows(rows, (writer - 1.0).clamp_min(0.0).to(torch.int64))
        return torch.where(written, out, memory, out=out)  # a memory is large: it is made once

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:  # type: ignore[override]
        index, keep, written = ctx.saved_tensors
        nothing = grad.new_zeros(())
        grad_rows = torch.where(keep.unsqueeze(-1), _rows(grad, index), nothing)
        return torch.where(written, nothing, grad), grad_rows, None, None


def _writers(index: Tensor, keep: Tensor, slots: int) -> Tensor:
    """[B,M]: 1 for a slot that row 0 is written to, 2 for row 1, ..., 0 for one that none is.

    A slot's number has two digits, and the slots are a square whose sides the rows mark: two narrow one-hot masks and one
    product in place of a mask [B,C,M].
    """
    side = math.isqrt(slots - 1) + 1
    high = (index.to(torch.float32) / side).floor()
    low = index - (high * side).to(index.dtype)
    numbers = torch.arange(1, index.shape[1] + 1, device=index.device, dtype=torch.float32) * keep
    marks = one_hot(high.to(index.dtype), side, torch.float32) * numbers.unsqueeze(-1)
    return (marks.transpose(1, 2) @ one_hot(low, side, torch.float32)).flatten(1)[:, :slots]


def _rows(source: Tensor, index: Tensor) -> Tensor:
    """source [B,M,D], index [B,C] -> [B,C,D], without a gradient of its own: that of index_select scatters."""
    first = torch.arange(source.shape[0], device=index.device).unsqueeze(-1) * source.shape[1]
    flat = source.flatten(0, 1).index_select(0, (index + first).flatten())
    return flat.unflatten(0, index.shape)


def write_rows(memory: Tensor, index: Tensor, rows: Tensor, keep: Tensor) -> Tensor:
    return _WriteRows.apply(memory, rows, index, keep)


def tally(shares: Tensor, ids: Tensor, width: int) -> Tensor:
    names = torch.arange(width, device=ids.device, dtype=ids.dtype)
    parts = zip(shares.split(_AT_ONCE, 2), ids.split(_AT_ONCE, 1), strict=True)  # the mask of all slots would be large
    return torch.stack([part @ (some.unsqueeze(-1) == names).to(shares.dtype) for part, some in parts]).sum(0)


OPS = Ops(
    "portable",
    embed,
    F.linear,
    spike_linear,
    affine_scan,
    lif_scan,
    attention,
    take_rows,
    write_rows,
    tally,
    torch.matmul,
    scatter_free=True,
)
