"""AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) without lerp, foreach or fused kernels, for devices without them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from backends import Backend
from neuro.errors import UsageError, nearest
from neuro.train.muon import Muon

BETAS = (0.9, 0.99)
EPS = 1e-8
VOCABULARY = ("embedding", "spelling.parts")  # tables whose rows are looked up: no matrices


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


class Joined:
    """Several optimizers over parameters of their own, as one."""

    def __init__(self, *optimizers: torch.optim.Optimizer) -> None:
        self.optimizers = optimizers

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none)

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Of all, parameters numbered through."""
        state: dict[int, Any] = {}
        groups: list[dict[str, Any]] = []
        first = 0
        for optimizer in self.optimizers:
            part = optimizer.state_dict()
            state |= {first + index: values for index, values in part["state"].items()}
            groups += [
                {**group, "params": [first + index for index in group["params"]]} for group in part["param_groups"]
            ]
            first += sum(len(group["params"]) for group in part["param_groups"])
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        first = 0
        for optimizer in self.optimizers:
            groups = optimizer.state_dict()["param_groups"]
            last = first + sum(len(group["params"]) for group in groups)
            state = {index - first: values for index, values in saved["state"].items() if first <= index < last}
            optimizer.load_state_dict({"state": state, "param_groups": groups})
            first = last


def make(
    model: nn.Module,
    backend: Backend,
    learning_rate: float,
    weight_decay: float,
    kind: str = "adamw",
    only: Sequence[str] = (),
) -> torch.optim.Optimizer | Joined:
    """AdamW over a model; matrices decay, vectors and the vocabulary do not.

    Where tokens have parts (`neuro.train.spelling`), what a row has of its own decays: a word that is seldom seen is its parts.

    Args:
        kind: "muon" makes the updates of the matrices orthogonal (`neuro.train.muon`); the others stay with AdamW.
        only: parts of dotted names of parameters; the others ask for no gradient from here on.

    Raises:
        UsageError: no parameter has such a part.
    """
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    rows: list[nn.Parameter] = []
    spelled = hasattr(model, "spelling")
    parts = {part for name, _ in model.named_parameters() for part in name.split(".")}
    for part in only:
        if part not in parts:
            raise UsageError(f"train.only: nothing in this brain is called '{part}'.", nearest(part, sorted(parts)))
    for name, p in model.named_parameters():
        p.requires_grad_(not only or not set(only).isdisjoint(name.split(".")))
        if p.requires_grad:
            own = name == "embedding" and spelled
            (rows if own else matrices if p.dim() == 2 and name not in VOCABULARY else rest).append(p)
    if kind == "muon":
        muon = Muon(matrices, learning_rate, weight_decay)
        return Joined(muon, _adamw(rows, rest, backend, learning_rate, weight_decay))
    return _adamw([*matrices, *rows], rest, backend, learning_rate, weight_decay)


def _adamw(
    decaying: list[nn.Parameter], rest: list[nn.Parameter], backend: Backend, learning_rate: float, decay: float
) -> torch.optim.Optimizer:
    groups = [{"params": decaying, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]
    if backend.torch_optimizers:
        return torch.optim.AdamW(groups, lr=learning_rate, betas=BETAS, eps=EPS)
    return PortableAdamW(groups, learning_rate)
