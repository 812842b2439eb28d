"""Amygdala: a decaying trace of affect (valence, arousal) and the salience of each token.

    e_t = tanh(W_2 z_t + W_p prosody_t),  z_t = gelu(W_1 norm(relay_t))
    affect_t = d affect_{t-1} + (1 - d) e_t,   d = 2^(-1/half_life)
    salience_t = sigmoid(w . [z_t, affect_t] + c + gain (pitch_t + energy_t) / 2)

It learns through the main loss (by way of hormones and memory strength); without labelled affect its two axes are not
calibrated to any human scale. The gain (`amygdala.prosody_gain`) is not trained and 0 unless it is set: then what is said with
stress is written first where writes are scarce (docs/limbic.md has what that is worth).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backends import Ops
from neuro.config import BrainConfig
from neuro.layers.norm import RMSNorm, wide
from neuro.regions.base import Channels, Region
from neuro.state import AmygdalaState


class Amygdala(Region):
    name = "amygdala"
    reads = ("relay", "prosody", "valid")
    writes = ("affect", "salience")

    def __init__(self, config: BrainConfig, ops: Ops) -> None:
        super().__init__()
        self.ops = ops
        self.prosody_gain = config.amygdala.prosody_gain
        self.decay = 2.0 ** (-1.0 / config.amygdala.half_life_tokens)
        hidden = config.amygdala.hidden
        self.norm = RMSNorm(config.d_model)
        self.evidence = nn.Linear(config.d_model, hidden)
        self.affect = nn.Linear(hidden, 2)
        self.prosody = nn.Linear(config.prosody_channels, 2, bias=False)
        self.salience = nn.Linear(hidden + 2, 1)

    def init_state(self, batch: int, device: torch.device) -> AmygdalaState:
        return AmygdalaState(torch.zeros(batch, 2, device=device))

    def scan(self, inputs: Channels, state: AmygdalaState) -> tuple[dict[str, Tensor], AmygdalaState]:
        z = wide(nn.functional.gelu(self.evidence(self.norm(inputs["relay"])), approximate="tanh"))
        e = wide(torch.tanh(self.affect(z) + self.prosody(inputs["prosody"])))
        b = (1.0 - self.decay) * e * inputs["valid"].unsqueeze(-1)
        a = torch.full_like(b, self.decay)
        affect = self.ops.affine_scan(a.transpose(0, 1), b.transpose(0, 1), state.affect).transpose(0, 1)
        logit = wide(self.salience(torch.cat([z, affect], -1))).squeeze(-1)
        if self.prosody_gain:
            logit = logit + self.prosody_gain * inputs["prosody"][..., :2].mean(-1)
        return {"affect": affect, "salience": torch.sigmoid(logit)}, AmygdalaState(affect[:, -1])
