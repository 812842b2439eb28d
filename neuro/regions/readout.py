"""Readout: the tied vocabulary matrix over what the cortex thinks and the hippocampus recalls.

features = gain * norm(hidden + recall),   logits = E features,   gain = exp(tanh(w . (m - 1/2)) / 2)

With a fast bias (`neuro.memory.fast_bias`), part of the procedural memory, logits = E features + b.
With a pointer the prediction is mixed with what the hippocampus copied (`neuro.memory.pointer`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backends import Ops
from neuro.config import HORMONES, BrainConfig
from neuro.layers.norm import RMSNorm, wide
from neuro.memory import fast_bias, pointer
from neuro.regions.base import Channels, Region
from neuro.state import FastBiasState, Held, ReadoutState, SpanBuffer


class Readout(Region):
    name = "readout"
    reads: tuple[str, ...] = ("hidden", "recall", "modulators~")
    writes: tuple[str, ...] = ("features", "logits")

    def __init__(self, config: BrainConfig, embedding: nn.Parameter, ops: Ops) -> None:
        super().__init__()
        self.config, self.ops = config, ops
        self.norm = RMSNorm(config.d_model)
        self.weight = embedding  # tied: the brain owns it
        self.gain = nn.Linear(len(HORMONES), 1, bias=False)
        nn.init.zeros_(self.gain.weight)
        self.points = config.points
        if self.points:
            self.reads = (*self.reads, "copied")
        self.remembers = config.fast_rank > 0  # what a prediction was read from, until its token comes
        if self.remembers:
            self.reads = (*self.reads, "valid")
            self.writes = (*Readout.writes, "read_before")

    def init_state(self, batch: int, device: torch.device) -> ReadoutState | tuple[()]:
        if not self.remembers:
            return ()
        bias = fast_bias.init_state(self.config, batch, device) if self.config.fast_bias else ()
        return ReadoutState(torch.zeros(batch, self.norm.weight.numel(), device=device), bias)

    def scan(
        self, inputs: Channels, state: ReadoutState | tuple[()]
    ) -> tuple[dict[str, Tensor], ReadoutState | tuple[()]]:
        x = inputs["hidden"] + inputs["recall"]
        features = self.norm(x) * self._gain(inputs["modulators~"])
        logits = self.ops.linear(features, self.weight, None)
        if isinstance(state, ReadoutState) and isinstance(state.bias, FastBiasState):
            logits = wide(logits) + state.bias.bias.unsqueeze(1)
        if self.points:
            logits = pointer.mixed(wide(logits), inputs["copied"])
        outputs = {"features": features, "logits": logits}
        if isinstance(state, ReadoutState):
            x = wide(x) * inputs["valid"].unsqueeze(-1)
            outputs["read_before"] = torch.cat([state.last_input.unsqueeze(1), x[:, :-1]], 1)
            state = state._replace(last_input=x[:, -1])
        return outputs, state

    def error(self, x: Tensor, said: Tensor, chances: Tensor, modulators: Tensor) -> Tensor:
        """Minus the gradient of the surprise at ``said`` [B,T,D], the embedding of the token that came.

        Args:
            x: [B,T,D] what the prediction was read from.
            chances: [B,T,V] the prediction.
            modulators: [B,H] hormones of now: their gain stands for that of the prediction.

        Returns:
            [B,T,D], cut from the graph: a teaching signal, not a path for gradients.
        """
        missed = wide(said.detach()) - wide(self.ops.weighted_rows(chances.detach(), self.weight.detach()))
        return self.norm.hand_back(x, missed * self._gain(modulators).detach())

    def commit(
        self, state: ReadoutState | tuple[()], span: SpanBuffer, held: Held, modulators: Tensor, tokens: Tensor
    ) -> ReadoutState | tuple[()]:
        """The fast bias is written."""
        if not isinstance(state, ReadoutState) or not isinstance(state.bias, FastBiasState):
            return state
        p = self.config.procedural
        life = p.bias_half_life_tokens or p.half_life_tokens
        return state._replace(bias=fast_bias.write(state.bias, p.bias_rate, life, tokens))

    def _gain(self, modulators: Tensor) -> Tensor:
        return torch.exp(0.5 * torch.tanh(wide(self.gain((modulators - 0.5).unsqueeze(1)))))
