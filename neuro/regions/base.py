"""What every region is: declared channels, explicit state, a scan over tokens and a commit at the span's end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from neuro.config import HORMONES
from neuro.layers.norm import wide
from neuro.state import Held, SpanBuffer

Channels = Mapping[str, Tensor]


class Region(nn.Module):
    """A part of the brain. Tensors are batch-first: [B, T, ...].

    `scan` is the one implementation; `step` is a scan over one token, so that the law ``scan == fold(step)`` says that a
    span may be cut anywhere.
    """

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]

    def init_state(self, batch: int, device: torch.device) -> Any:
        """State of ``batch`` fresh streams; an empty tuple when the region carries none."""
        return ()

    def scan(self, inputs: Channels, state: Any) -> tuple[dict[str, Tensor], Any]:
        """Inputs [B,T,...] by channel -> (outputs [B,T,...] by channel, state)."""
        raise NotImplementedError

    def step(self, inputs: Channels, state: Any) -> tuple[dict[str, Tensor], Any]:
        """One token: inputs [B,...] -> (outputs [B,...], state). Feedback channels keep their shape."""
        widened = {name: x if name.endswith("~") else x.unsqueeze(1) for name, x in inputs.items()}
        outputs, state = self.scan(widened, state)
        return {name: x.squeeze(1) for name, x in outputs.items()}, state

    def commit(self, state: Any, span: SpanBuffer, held: Held, modulators: Tensor, tokens: Tensor) -> Any:
        """Plasticity over a span in which each row saw ``tokens`` [B] tokens -> state. Default: unchanged."""
        return state


class DecayModulation(nn.Linear):
    """How fast a memory ages: (modulators [B,H], tokens [B]) -> tokens 2^(-w . (m - 1/2)), what it is as if had gone by.

    w is trained by the main loss, through what is still there to be read; it starts at 0, where a token is a token.
    """

    def __init__(self) -> None:
        super().__init__(len(HORMONES), 1, bias=False)
        nn.init.zeros_(self.weight)

    def forward(self, modulators: Tensor, tokens: Tensor) -> Tensor:  # type: ignore[override]
        return tokens * torch.exp2(-wide(super().forward(modulators - 0.5)).squeeze(-1))
