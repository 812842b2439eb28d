"""AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) without lerp, foreach or fused kernels, for devices without them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from backends import Backend

BETAS = (0.9, 0.99)
EPS = 1e-8


class PortableAdamW(torch.optim.Optimizer):
    """The same update as ``torch.optim.AdamW``, from mul, add, addcmul, addcdiv and sqrt alone."""

    def __init__(self, groups: list[dict[str, Any]], lr: float) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["step"] = torch.zeros((), dtype=torch.float32)
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
                state["step"] += 1
                count = int(state["step"])
                p.mul_(1.0 - group["lr"] * group["weight_decay"])
                state["exp_avg"].mul_(BETAS[0]).add_(p.grad, alpha=1.0 - BETAS[0])
                state["exp_avg_sq"].mul_(BETAS[1]).addcmul_(p.grad, p.grad, value=1.0 - BETAS[1])
                root = (state["exp_avg_sq"] / (1.0 - BETAS[1] ** count)).sqrt_().add_(EPS)
                p.addcdiv_(state["exp_avg"], root, value=-group["lr"] / (1.0 - BETAS[0] ** count))


def make(model: nn.Module, backend: Backend, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW over a model; matrices decay, vectors and the embedding do not."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, p in model.named_parameters():
        (matrices if p.dim() >= 2 and name != "embedding" else rest).append(p)
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    if backend.torch_optimizers:
        return torch.optim.AdamW(groups, lr=learning_rate, betas=BETAS, eps=EPS)
    return PortableAdamW(groups, learning_rate)
