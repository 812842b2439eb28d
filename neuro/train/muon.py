"""Muon: momentum whose updates of a matrix are made orthogonal, in float32 and for all matrices of a shape at once.

    m <- mu m + (1 - mu) g,   u = (1 - mu) g + mu m,   W <- (1 - lr decay) W - 0.2 lr sqrt(max(rows, columns)) polar(u)

polar(u) is approached by five Newton-Schulz steps X <- a X + (b A + c A A) X, A = X X^T, from u over its Frobenius norm; they
leave singular values between about 0.7 and 1.2. Sources: Jordan et al. 2024 (the rule and a, b, c), arXiv:2502.16982 (the
scale, which gives an update the size of AdamW's, so that both share a learning rate). torch's own computes in bfloat16, which
on a processor without such products takes many times as long (`benchmarks/muon.py`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
STEPS = 5
_A, _B, _C = 3.4445, -4.7750, 2.0315


def polar(matrices: Tensor) -> Tensor:
    """[n, rows, columns] -> the same with singular values brought near 1; a matrix of zeros stays one."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / x.square().sum((1, 2), keepdim=True).sqrt().clamp_min(1e-7)
    for _ in range(STEPS):
        gram = x @ x.transpose(1, 2)
        x = _A * x + (_B * gram + _C * (gram @ gram)) @ x
    return x.transpose(1, 2) if tall else x


class Muon(torch.optim.Optimizer):
    """Of matrices alone, from products, sums and roots: it runs wherever the model does."""

    def __init__(self, matrices: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            alike: dict[tuple[int, ...], list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(p)
                mean = state["momentum_buffer"].mul_(MOMENTUM).add_(p.grad, alpha=1.0 - MOMENTUM)
                alike[tuple(p.shape)].append((p, p.grad * (1.0 - MOMENTUM) + mean * MOMENTUM))
            for shape, found in alike.items():
                scale = 0.2 * group["lr"] * math.sqrt(max(shape))
                for (p, _), update in zip(found, polar(torch.stack([update for _, update in found])), strict=True):
                    p.mul_(1.0 - group["lr"] * group["weight_decay"]).add_(update, alpha=-scale)
