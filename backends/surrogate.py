"""The spike: a step forward, the slope of something smoother backward.

x = u - threshold, k the slope:

    fast_sigmoid      1 / (1 + k |x|)^2                 Zenke & Ganguli 2018, doi:10.1162/neco_a_01086
    arctan            (k / 2) / (1 + (pi k x / 2)^2)    Fang et al. 2021, arXiv:2007.05785
    triangular        max(0, 1 - k |x|)                 Bellec et al. 2018, arXiv:1803.09574 (its dampening is a factor outside)
    straight_through  1 where k |x| <= 1, else 0        Bengio et al. 2013, arXiv:1308.3432; k = 0 is the identity
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from backends.errors import BackendError

KINDS = ("fast_sigmoid", "arctan", "triangular", "straight_through")


@dataclasses.dataclass(frozen=True)
class Surrogate:
    """What stands for the derivative of a spike: one of `KINDS`, and how steep it is (per unit of membrane, at least 0).

    Raises:
        BackendError: an unknown kind, or a slope below 0 or not finite.
    """

    kind: str = "fast_sigmoid"
    slope: float = 4.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BackendError(
                f"surrogate: got '{self.kind}', expected one of {', '.join(KINDS)}.", "Correct the name."
            )
        if not 0.0 <= self.slope < math.inf:
            raise BackendError(f"surrogate: got slope {self.slope}, expected 0 or more.", "Give a finite slope.")

    def derivative(self, x: Tensor) -> Tensor:
        """ds/du at ``x`` = u - threshold, the shape of ``x``."""
        if self.kind == "fast_sigmoid":
            distance = x.abs() * self.slope + 1.0
            return 1.0 / (distance * distance)
        if self.kind == "arctan":
            bent = x * (math.pi / 2.0 * self.slope)
            return (self.slope / 2.0) / (bent * bent + 1.0)
        if self.kind == "triangular":
            return (1.0 - x.abs() * self.slope).clamp(min=0.0)
        return (x.abs() * self.slope <= 1.0).to(x.dtype)


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, surrogate: Surrogate, strict: bool) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x)
        ctx.surrogate = surrogate
        return (x > 0 if strict else x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return grad * ctx.surrogate.derivative(x), None, None


def spike(x: Tensor, surrogate: Surrogate, strict: bool = False) -> Tensor:
    """1 where ``x`` = u - threshold is at least 0 (``strict``: above 0), else 0, in the dtype of ``x``; differentiable once."""
    return _Spike.apply(x, surrogate, strict)
