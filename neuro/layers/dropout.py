"""Dropout with one mask for all tokens of a span (variational: Gal & Ghahramani 2016, arXiv:1512.05287), in training alone.

Its draws come from a generator of the training step, so that they are no state: `begin` sets it, and without it nothing is
dropped.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LockedDropout(nn.Module):
    """[B,T,D] -> the same, with units of every row off for the whole span and the others scaled up."""

    def __init__(self) -> None:
        super().__init__()
        self.share = 0.0
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.share:
            return x
        keep = torch.rand(x.shape[0], 1, x.shape[2], generator=self.generator, device=x.device) >= self.share
        return x * (keep.to(x.dtype) / (1.0 - self.share))


def begin(module: nn.Module, share: float, seed: int, device: torch.device) -> torch.Generator:
    """Every dropout of the module drops ``share`` from here on, drawn from a generator of this seed -> the generator."""
    generator = torch.Generator(device).manual_seed(seed)
    for part in module.modules():
        if isinstance(part, LockedDropout):
            part.share, part.generator = share, generator
    return generator
