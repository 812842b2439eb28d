"""A linear layer whose product the backend does: one row at a time it is the cost of decoding."""

from __future__ import annotations

from torch import Tensor, nn

from backends import Ops


class Linear(nn.Linear):
    """[..., I] -> [..., O], y = W x + b."""

    def __init__(self, in_features: int, out_features: int, ops: Ops, bias: bool = False) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.ops = ops

    def forward(self, x: Tensor) -> Tensor:
        return self.ops.linear(x, self.weight, self.bias)
