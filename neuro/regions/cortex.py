"""Cortex: pre-norm residual layers of a token mixer (recurrence or window) and a feed-forward (spiking or dense).

    x <- x + mixer(norm(x) * (1 + U m)),   x <- x + feedforward(norm(x), route)

The hormones m (held since the last commit, centred) scale the features that the mixers see.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from backends import Ops
from neuro.config import HORMONES, BrainConfig
from neuro.layers.affine_recurrence import AffineRecurrence
from neuro.layers.feedforward import DenseFeedforward, SpikingFeedforward
from neuro.layers.norm import RMSNorm
from neuro.layers.window_attention import WindowAttention
from neuro.regions.base import Channels, Region
from neuro.state import CortexState, LayerState


class CortexLayer(nn.Module):
    """One mixer and one feed-forward, each with its norm."""

    def __init__(self, config: BrainConfig, mixer: str, feedforward: str, ops: Ops) -> None:
        super().__init__()
        width, c = config.d_model, config.cortex
        self.mixer_norm, self.feedforward_norm = RMSNorm(width), RMSNorm(width)
        self.modulation = nn.Linear(len(HORMONES), width, bias=False)
        nn.init.zeros_(self.modulation.weight)
        self.mixer: Any  # AffineRecurrence or WindowAttention
        if mixer == "recurrence":
            self.mixer = AffineRecurrence(width, config.plasticity_span, ops)
        else:
            self.mixer = WindowAttention(width, c.heads, c.window, ops)
        self.feedforward: Any  # SpikingFeedforward or DenseFeedforward
        if feedforward == "spiking":
            self.feedforward = SpikingFeedforward(width, c, ops)
        else:
            self.feedforward = DenseFeedforward(width, c.feedforward_width)


class Cortex(Region):
    name = "cortex"
    reads = ("relay", "route", "valid", "modulators~")
    writes: tuple[str, ...] = ("hidden", "spikes", "layer_rates", "spike_rate")

    def __init__(self, config: BrainConfig, ops: Ops, record_raster: bool = False) -> None:
        super().__init__()
        self.record_raster = record_raster
        if record_raster:
            self.writes = (*Cortex.writes, "raster")
        c = config.cortex
        pairs = zip(c.mixers, c.feedforwards, strict=True)
        self.layers = nn.ModuleList(CortexLayer(config, m, f, ops) for m, f in pairs)
        self.spiking_layers = tuple(i for i, f in enumerate(c.feedforwards) if f == "spiking")

    def init_state(self, batch: int, device: torch.device) -> CortexState:
        return CortexState(
            tuple(
                LayerState(layer.mixer.init_state(batch, device), layer.feedforward.init_state(batch, device))
                for layer in self._layers()
            )
        )

    def scan(self, inputs: Channels, state: CortexState) -> tuple[dict[str, Tensor], CortexState]:
        x, route, valid = inputs["relay"], inputs["route"], inputs["valid"]
        mood = (inputs["modulators~"] - 0.5).unsqueeze(1)
        states, rasters, rates = [], [], []
        for index, (layer, before) in enumerate(zip(self._layers(), state.layers, strict=True)):
            scaled = layer.mixer_norm(x) * (1.0 + layer.modulation(mood))
            y, mixer = layer.mixer.scan(scaled, valid, before.mixer)
            x = x + y
            gate = route[..., index] * valid
            y, spikes, feedforward = layer.feedforward.scan(layer.feedforward_norm(x), gate, before.feedforward)
            x = x + y
            states.append(LayerState(mixer, feedforward))
            if spikes is not None:
                rasters.append(spikes)
                rates.append(spikes.mean(-1))
        outputs = {"hidden": x, "spike_rate": torch.zeros_like(valid)}
        outputs["layer_rates"] = outputs["spikes"] = valid.new_zeros(*valid.shape, 0)
        if rates:
            outputs["layer_rates"] = torch.stack(rates, -1)
            outputs["spike_rate"] = outputs["layer_rates"].mean(-1)
            outputs["spikes"] = torch.stack([raster.detach().sum(-1) for raster in rasters], -1)
        if self.record_raster:
            outputs["raster"] = torch.stack([raster.detach() for raster in rasters], 2)
        return outputs, CortexState(tuple(states))

    def _layers(self) -> list[CortexLayer]:
        return cast(list[CortexLayer], list(self.layers))
