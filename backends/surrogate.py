"""The spike: a step forward, a fast sigmoid's slope backward."""

from __future__ import annotations

import torch
from torch import Tensor


class _FastSigmoidSpike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u: Tensor, threshold: float, slope: float) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(u)
        ctx.threshold, ctx.slope = threshold, slope
        return (u >= threshold).to(u.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (u,) = ctx.saved_tensors
        return grad * fast_sigmoid_slope(u, ctx.threshold, ctx.slope), None, None


def fast_sigmoid_slope(u: Tensor, threshold: float, slope: float) -> Tensor:
    """1 / (1 + slope * |u - threshold|)^2, the shape of ``u``."""
    distance = (u - threshold).abs() * slope + 1.0
    return 1.0 / (distance * distance)


def fast_sigmoid_spike(u: Tensor, threshold: float, slope: float) -> Tensor:
    """1 where ``u >= threshold``, else 0, in the dtype of ``u``; differentiable through the surrogate."""
    return _FastSigmoidSpike.apply(u, threshold, slope)
