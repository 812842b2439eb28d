"""An exponential moving average of the weights: what is evaluated and saved, while training goes on from the weights.

    m <- m + (1 - d_n) (w - m),   d_n = min(decay, (1 + n) / (10 + n)) after n updates, so that the start is soon forgotten

Source: Polyak & Juditsky 1992 (doi:10.1137/0330046) in the exponential form; the warm-up of d as in TensorFlow's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    """Of all parameters of a module that learn; decay 0 is the parameters themselves."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.weights = {name: p for name, p in module.named_parameters() if p.requires_grad} if decay else {}
        self.means: dict[str, Tensor] = {name: p.detach().clone() for name, p in self.weights.items()}

    @torch.no_grad()
    def update(self) -> None:
        """After an optimizer's step."""
        if not self.weights:
            return
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        get_ema_multi_avg_fn(decay)(list(self.means.values()), list(self.weights.values()), self.updates)

    @torch.no_grad()
    def settle(self) -> None:
        """Make the means the module's weights."""
        for name, p in self.weights.items():
            p.copy_(self.means[name])

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Inside, the module has the means for weights."""
        learned = {name: p.detach().clone() for name, p in self.weights.items()}
        try:
            self.settle()
            yield
        finally:
            with torch.no_grad():
                for name, p in self.weights.items():
                    p.copy_(learned[name])
