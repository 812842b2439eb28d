"""Learning to answer one spike train with another: two spiking layers, the van Rossum distance as the loss.

    D^2 = (1 / tau) integral (f - g)^2 dt,   f(t) = sum over spikes t_i <= t of exp(-(t - t_i) / tau)

(van Rossum 2001, doi:10.1162/089976601300014321), summed over neurons; one lone spike on one side costs 1/2. The distance sees
when each spike falls, to within tau, and not only how many there are.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from backends import Backend, LifRule, Ops, Surrogate
from neuro import config as configs
from neuro import tensor_file
from neuro.errors import FormatError, UsageError
from neuro.train import optimizer
from neuro.train.loop import clip_gradient

MODEL = "neuro.spike_map/1"


@dataclasses.dataclass(frozen=True)
class RegressionConfig:
    """Two layers of leaky integrate-and-fire neurons, and how they learn."""

    hidden: int = 256
    tau_mem_ms: float = 10.0
    tau_distance_ms: float = 10.0
    dt_ms: float = 1.0
    slope: float = 5.0
    steps: int = 1000
    learning_rate: float = 5e-3
    seed: int = 0

    def __post_init__(self) -> None:
        again = "Correct the value."
        if self.hidden < 1 or self.steps < 0:
            raise UsageError(
                f"oxford: got {self.hidden} hidden neurons and {self.steps} steps, expected at least 1 and at least 0.",
                again,
            )
        for name in ("learning_rate", "slope", "dt_ms"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise UsageError(f"oxford: got {name} {getattr(self, name)}, expected more than 0.", again)
        for name in ("tau_mem_ms", "tau_distance_ms"):
            if not self.dt_ms <= getattr(self, name) < math.inf:
                raise UsageError(
                    f"oxford: got {name} {getattr(self, name)} with a step of {self.dt_ms} ms, "
                    "expected a time constant of at least a step.",
                    "Time constants are in milliseconds; give a longer one or a smaller dt_ms.",
                )


class SpikeMap(nn.Module):
    """Spikes [T,B,I] -> spikes [T,B,O] of 0 and 1, by way of ``hidden`` neurons."""

    def __init__(self, inputs: int, outputs: int, config: RegressionConfig, ops: Ops) -> None:
        super().__init__()
        self.ops, self.decay = ops, math.exp(-config.dt_ms / config.tau_mem_ms)
        self.rule = LifRule(surrogate=Surrogate(slope=config.slope))
        sizes = (inputs, config.hidden, outputs)
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in itertools.pairwise(sizes))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """-> (output spikes, hidden spikes)."""
        hidden = self._fire(self.layers[0](x))
        return self._fire(self.layers[1](hidden)), hidden

    def _fire(self, current: Tensor) -> Tensor:
        return self.ops.lif_scan(current, current.new_zeros(current.shape[1:]), self.decay, 1.0, self.rule)[0]

    @torch.no_grad()
    def settle(self, x: Tensor) -> None:
        """Scale the weights so that both layers fire before any training: membranes spread by 0.6 thresholds."""
        for layer in (cast(nn.Linear, layer) for layer in self.layers):
            layer.bias.zero_()
            current = layer(x)
            u = self.ops.affine_scan(torch.full_like(current, self.decay), current, torch.zeros_like(current[0]))
            layer.weight.mul_(0.6 / u.var().sqrt().clamp_min(1e-6))
            x = self._fire(layer(x))


def van_rossum(a: Tensor, b: Tensor, tau_ms: float, dt_ms: float, ops: Ops) -> Tensor:
    """The squared distance of spikes a and b [T,B,N], summed over neurons and averaged over the batch.

    Raises:
        UsageError: shapes that differ, or a time constant below the step.
    """
    if a.shape != b.shape or tau_ms < dt_ms:
        raise UsageError(
            f"van Rossum distance: got {list(a.shape)} and {list(b.shape)} with tau {tau_ms} ms at {dt_ms} ms a step, "
            "expected equal shapes and a tau of at least a step.",
            "Bin both trains alike; give a longer tau_distance_ms.",
        )
    apart = a - b
    decay = torch.full_like(apart, math.exp(-dt_ms / tau_ms))
    trace = ops.affine_scan(decay, apart, torch.zeros_like(apart[0]))
    return trace.square().sum() * (dt_ms / tau_ms) / a.shape[1]


def fit(
    x: Tensor,
    target: Tensor,
    config: RegressionConfig,
    backend: Backend,
    report: Callable[[dict[str, Any]], None] = lambda record: None,
) -> SpikeMap:
    """A map trained to answer ``x`` [T,B,I] with ``target`` [T,B,O]; ``report`` is told the distance at every step."""
    torch.manual_seed(config.seed)
    model = SpikeMap(x.shape[2], target.shape[2], config, backend.ops).to(backend.device)
    model.settle(x)
    adam = optimizer.make(model, backend, config.learning_rate, 0.0)
    for step in range(config.steps):
        distance = van_rossum(model(x)[0], target, config.tau_distance_ms, config.dt_ms, backend.ops)
        report({"step": step, "distance": distance.item()})
        adam.zero_grad(set_to_none=True)
        (distance / target.sum()).backward()
        clip_gradient(model.parameters(), 1.0)
        for group in adam.param_groups:
            group["lr"] = config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * step / config.steps))
        adam.step()
    return model.eval()


def save(path: Path, model: SpikeMap, config: RegressionConfig) -> None:
    """The weights with their configuration."""
    tensor_file.write(path, dict(model.state_dict()), {"schema": MODEL, "config": configs.to_dict(config)})


def load(path: Path, backend: Backend) -> tuple[SpikeMap, RegressionConfig]:
    """What `save` wrote.

    Raises:
        MissingError: no such file.
        FormatError: truncated, foreign, or its weights do not fit its configuration.
    """
    tensors, header = tensor_file.read(path, MODEL)
    first, last = tensors.get("layers.0.weight"), tensors.get("layers.1.weight")
    if first is None or last is None or "config" not in header:
        raise FormatError(f"{path}: got no weights of two layers.", "It is foreign: use another copy.")
    config = configs.from_dict(RegressionConfig, header["config"])
    model = SpikeMap(first.shape[1], last.shape[0], config, backend.ops)
    tensor_file.check_shapes(tensors, dict(model.state_dict()), str(path))
    model.load_state_dict(tensors)
    return model.to(backend.device).eval(), config
