"""Parametric leaky integrate-and-fire: the time constant is learned.

    decay = sigmoid(w),   w a parameter, [1] for the layer or [N];   everything else is `neuro.neurons.lif`

Source: Fang et al. 2021, arXiv:2007.05785, where 1 / tau = sigmoid(-w).
"""

from __future__ import annotations

import torch
from torch import Tensor

from neuro.neurons.base import Constant, logit
from neuro.neurons.lif import LIF


class PLIF(LIF):
    """`LIF` whose decay is learned: one for the layer if ``tau_mem_ms`` (or ``beta``) is a number, else one a neuron.

    ``beta`` as given is reproduced within rounding, not bit for bit.

    Raises:
        UsageError: as `LIF`; also a decay of exactly 0 or 1, which no sigmoid reaches.
    """

    @property
    def decay(self) -> Tensor:  # type: ignore[override]
        """[N], inside 0 to 1."""
        return torch.sigmoid(self.w).expand(self.neurons)

    def _keep_decay(self, decay: Constant) -> None:
        self.w = logit(self.name, decay)
