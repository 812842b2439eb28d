"""The affine recurrence as Triton kernels, forward and backward: `scan.cpp`'s arithmetic for a CUDA device.

In float32 12 bytes an element move forward and 20 backward. Half-precision tensors have a float32 state, rounded only where
it is written. Products and sums round one after the other, so a scan equals its steps bit for bit (not in half precision,
where a cut rounds the state that is handed on).
"""

from __future__ import annotations

from typing import no_type_check

import torch
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from backends.kernels.triton_rows import block, fold, kernel, launch, like, state_type


@kernel
@no_type_check  # the language of kernels, whose tuples grow
def forward(
    a, b, h0, h, a_step, a_row, a_channel, b_step, b_row, b_channel, h_step, h_row, h_channel, tokens, width, blocks,
    real: tl.constexpr, every: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    row, channel, inside = block(width, blocks, wide)
    a += row * a_row + channel * a_channel
    b += row * b_row + channel * b_channel
    h += row * h_row + channel * h_channel
    state = tl.load(h0 + row * width + channel, inside, other=0.0).to(real)
    for first in range(0, tokens, every):
        decays, drives = (), ()
        for k in tl.static_range(every):
            live = inside & (first + k < tokens)
            decays += (tl.load(a, live, other=0.0).to(real),)
            drives += (tl.load(b, live, other=0.0).to(real),)
            a, b = a + a_step, b + b_step
        for k in tl.static_range(every):
            state = decays[k] * state + drives[k]
            tl.store(h, state, inside & (first + k < tokens))
            h += h_step


@kernel
@no_type_check
def backward(
    grad, a, h, h0, grad_a, grad_b, grad_h0, grad_step, grad_row, grad_channel, a_step, a_row, a_channel, h_step, h_row,
    h_channel, grad_a_step, grad_a_row, grad_a_channel, grad_b_step, grad_b_row, grad_b_channel, tokens, width, blocks,
    real: tl.constexpr, every: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    row, channel, inside = block(width, blocks, wide)
    chunks = tl.cdiv(tokens, every)
    last = (chunks * every - 1).to(tl.int64)
    grad += row * grad_row + channel * grad_channel + last * grad_step
    a += row * a_row + channel * a_channel + last * a_step
    h += row * h_row + channel * h_channel + (last - 1) * h_step  # the state before each step
    grad_a += row * grad_a_row + channel * grad_a_channel + last * grad_a_step
    grad_b += row * grad_b_row + channel * grad_b_channel + last * grad_b_step
    start = tl.load(h0 + row * width + channel, inside, other=0.0).to(real)
    carried = tl.zeros([wide], real)  # what flows into h_t from its future
    for chunk in range(0, chunks):
        # Steps past the end read zeros and leave the carried gradient, which is zero there, as it is.
        grads, decays, befores = (), (), ()
        for back in tl.static_range(every):
            t = (chunks - chunk) * every - 1 - back
            live = inside & (t < tokens)
            grads += (tl.load(grad, live, other=0.0).to(real),)
            decays += (tl.load(a, live, other=0.0).to(real),)
            before = tl.load(h, live & (t > 0), other=0.0).to(real)
            befores += (tl.where(t > 0, before, start) if back == every - 1 else before,)
            grad, a, h = grad - grad_step, a - a_step, h - h_step
        for back in tl.static_range(every):
            live = inside & ((chunks - chunk) * every - 1 - back < tokens)
            total = grads[back] + carried
            carried = decays[back] * total
            tl.store(grad_b, total, live)
            tl.store(grad_a, total * befores[back], live)
            grad_a, grad_b = grad_a - grad_a_step, grad_b - grad_b_step
    tl.store(grad_h0 + row * width + channel, carried, inside)


class _AffineScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, h0: Tensor) -> Tensor:  # type: ignore[override]
        h0, h = h0.contiguous(), like(b)
        rows, width, strides = fold(a, b, h)
        launch(forward, h, rows, width, a, b, h0, h, *strides, real=state_type(h.dtype)[1])
        ctx.save_for_backward(a, h, h0)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        a, h, h0 = ctx.saved_tensors
        grad_a, grad_b, grad_h0 = like(h), like(h), torch.empty_like(h0)
        rows, width, strides = fold(grad, a, h, grad_a, grad_b)
        tensors = (grad, a, h, h0, grad_a, grad_b, grad_h0)
        launch(backward, h, rows, width, *tensors, *strides, real=state_type(h.dtype)[1])
        return grad_a, grad_b, grad_h0


def affine_scan(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    """As `backends.contract.Ops.affine_scan`, for tensors that `backends.kernels.cuda.runs` accepts."""
    return _AffineScan.apply(a, b, h0)
