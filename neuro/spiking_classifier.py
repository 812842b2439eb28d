"""A feed-forward classifier of spike trains, and its twin without spikes: the same layers, widths, decays and readout.

Layer l:  i_t = W x_t + b (dense, or a convolution),  u_t = decay v_{t-1} + i_t
Spiking:  s_t = 1 where u_t >= 1,  v_t = u_t - s_t            (soft reset; hard: v_t = u_t (1 - s_t); surrogate gradient)
Graded:   s_t = relu(u_t),  v_t = u_t                          (a leaky integrator that hands on all it holds)
Readout:  logits = mean over t of (W s_t + b)
Bursts:   s_t = floor(u_t) within 0 to b,  v_t = u_t - s_t     (burst b > 1, soft reset; surrogate at the nearest threshold)
With a synapse decay a > 0 the neurons see a (i_{t-1} + W x_t + b) in place of W x_t + b: the current of a chip's synapse.

Time first: x [T,B,...]. The thresholds are 1: weights carry the scale. Spikes and synaptic operations are integers, and a
synaptic operation is one spike meeting one weight that exists: where a convolution's kernel hangs over the border it has none.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backends import LifRule, Ops, Surrogate
from neuro.errors import UsageError

NEURONS = ("spiking", "graded")


@dataclasses.dataclass(frozen=True)
class LayerConfig:
    """``width`` neurons, or with a kernel [height, width] so many channels of a convolution without padding."""

    width: int
    kernel: tuple[int, ...] = ()
    stride: int = 1


@dataclasses.dataclass(frozen=True)
class ClassifierConfig:
    """``shape`` is that of one time step: (features,) or (channels, height, width)."""

    shape: tuple[int, ...]
    layers: tuple[LayerConfig, ...]
    classes: int = 10
    neuron: str = "spiking"
    decay: float = 0.9
    slope: float = 5.0  # of the fast sigmoid
    start: float = 0.0  # membranes before the first step
    reset: str = "soft"
    synapse_decay: float = 0.0  # of the current, below 1
    burst: int = 1  # spikes of a neuron a step, at most

    def __post_init__(self) -> None:
        if self.neuron not in NEURONS:
            raise UsageError(
                f"classifier: got neuron '{self.neuron}', expected one of {', '.join(NEURONS)}.", "Correct the name."
            )
        if self.burst < 1 or (self.burst > 1 and (self.reset, self.neuron) != ("soft", "spiking")):
            got = f"classifier: got burst {self.burst}, reset '{self.reset}' and neuron '{self.neuron}'"
            raise UsageError(
                f"{got}, expected at least 1, and above 1 a soft reset of spiking neurons.", "Correct them."
            )
        if not 0.0 <= self.synapse_decay < 1.0:
            got = f"classifier: got synapse_decay {self.synapse_decay}, expected 0 to below 1."
            raise UsageError(got, "Give exp(-dt_ms / tau_syn_ms), or 0 for none.")
        if not 0.0 <= self.decay <= 1.0:
            raise UsageError(f"classifier: got decay {self.decay}, expected 0 to 1.", "Give exp(-dt_ms / tau_mem_ms).")


class Counts(NamedTuple):
    """What a network did on a batch, by projection (the layers, then the readout): exact integers."""

    spikes: list[int]  # that entered it
    synaptic_ops: list[int]
    synapses: list[int]  # that exist: what a dense step multiplies once
    updates: int  # neurons times steps times samples
    steps: int  # time steps times samples


class Projection(nn.Module):
    """Dense or convolution, [T,B,...] -> [T,B,...], with the fan-out of each input."""

    fan_out: Tensor

    def __init__(self, shape: tuple[int, ...], config: LayerConfig, ops: Ops) -> None:
        super().__init__()
        self.shape, self.config, self.ops = shape, config, ops
        if config.kernel:
            channels, *sides = shape if len(shape) == 3 else (0,)
            room = [side - kernel for side, kernel in zip(sides, config.kernel, strict=False)]
            if len(sides) != 2 or min(room) < 0:
                raise UsageError(
                    f"classifier: got a kernel {list(config.kernel)} on a shape {list(shape)}, "
                    "expected a kernel inside of (channels, height, width).",
                    "Put convolutions first, with kernels no larger than what is left.",
                )
            self.out = (config.width, *(extra // config.stride + 1 for extra in room))
            self.weight = nn.Parameter(torch.empty(config.width, channels, *config.kernel))
            ones = torch.ones(1, 1, *self.out[1:])
            spread = F.conv_transpose2d(ones, torch.ones(1, 1, *config.kernel), stride=config.stride)
            reached = F.pad(spread, (0, sides[1] - spread.shape[-1], 0, sides[0] - spread.shape[-2]))
            fan_out = (reached[0] * config.width).expand(channels, -1, -1)
        else:
            self.out = (config.width,)
            self.weight = nn.Parameter(torch.empty(config.width, math.prod(shape)))
            fan_out = torch.full((math.prod(shape),), config.width)
        self.bias = nn.Parameter(torch.zeros(config.width))
        nn.init.normal_(self.weight, std=self.weight[0].numel() ** -0.5)
        self.register_buffer("fan_out", fan_out.to(torch.int64).reshape(-1), persistent=False)

    @property
    def synapses(self) -> int:
        return int(self.fan_out.sum())

    def forward(self, x: Tensor) -> Tensor:
        steps, batch = x.shape[:2]
        if self.config.kernel:
            y = F.conv2d(x.reshape(steps * batch, *self.shape), self.weight, self.bias, self.config.stride)
            return y.reshape(steps, batch, -1)
        return self.ops.linear(x.reshape(steps, batch, -1), self.weight, self.bias)

    @torch.no_grad()
    def unrolled(self) -> tuple[Tensor, Tensor]:
        """(weight [N,K], bias [N]) of the one product that this projection is: a convolution repeats its kernel."""
        if not self.config.kernel:
            return self.weight.detach(), self.bias.detach()
        ones = torch.eye(self.fan_out.numel(), dtype=self.weight.dtype, device=self.weight.device)
        parts = [
            F.conv2d(part.reshape(-1, *self.shape), self.weight, None, self.config.stride).flatten(1)
            for part in ones.split(256)
        ]
        return torch.cat(parts).T, self.bias.repeat_interleave(math.prod(self.out[1:]))

    def operations(self, x: Tensor) -> int:
        """Synaptic operations of the spikes (or counts of spikes) ``x``."""
        arrived = x.reshape(-1, self.fan_out.numel()).cpu().sum(0, dtype=torch.float64).round().to(torch.int64)
        return int((arrived * self.fan_out.cpu()).sum())


class SpikingClassifier(nn.Module):
    """[T,B,*shape] -> logits [B,classes]."""

    def __init__(self, config: ClassifierConfig, ops: Ops) -> None:
        super().__init__()
        self.config, self.ops = config, ops
        self.rule = LifRule(reset=config.reset, surrogate=Surrogate(slope=config.slope))
        shape, layers = config.shape, []
        for layer in (*config.layers, LayerConfig(config.classes)):
            layers.append(Projection(shape, layer, ops))
            shape = layers[-1].out
        self.layers = nn.ModuleList(layers)
        self.neurons = sum(math.prod(layer.out) for layer in layers[:-1])

    @property
    def projections(self) -> list[Projection]:
        """The layers, then the readout."""
        return [cast(Projection, layer) for layer in self.layers]

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """-> (logits [B,classes], what entered each projection: [T,B,N] of 0 and 1 after the first).

        Raises:
            UsageError: an input that is not time-first of the configured shape.
        """
        self._check(x)
        entered = [x]
        for layer in self.projections[:-1]:
            x = self.fire(layer(x))
            entered.append(x)
        return self.projections[-1](x).mean(0), entered

    def fire(self, current: Tensor) -> Tensor:
        """[T,B,N] -> [T,B,N]: the neurons of one layer."""
        current = self._heard(current)
        rest = current.new_full(current.shape[1:], self.config.start)
        if self.config.burst > 1:
            return self._bursts(current, rest)
        if self.config.neuron == "spiking":
            return self.ops.lif_scan(current, rest, self.config.decay, 1.0, self.rule)[0]
        decay = torch.full_like(current, self.config.decay)
        return torch.relu(self.ops.affine_scan(decay, current, rest))

    @torch.no_grad()
    def settle(self, x: Tensor) -> None:
        """Scale the weights of each layer so that on the batch ``x`` its neurons are alive, before any training.

        Membranes without a reset get a spread of 0.6 thresholds (spiking) or 1 (graded); biases stay 0.
        """
        spread = 0.6 if self.config.neuron == "spiking" else 1.0
        for layer in self.projections[:-1]:
            current = self._heard(layer(x))
            decay = torch.full_like(current, self.config.decay)
            u = self.ops.affine_scan(decay, current, current.new_zeros(current.shape[1:]))
            layer.weight.mul_(spread / u.var().sqrt().clamp_min(1e-6))
            x = self.fire(layer(x))

    @torch.no_grad()
    def count(self, entered: list[Tensor]) -> Counts:
        """The integers of a batch, from what `forward` returned."""
        steps = entered[0].shape[0] * entered[0].shape[1]
        spikes = [int(x.cpu().sum(dtype=torch.float64).round()) for x in entered]
        operations = [layer.operations(x) for layer, x in zip(self.projections, entered, strict=True)]
        return Counts(spikes, operations, [layer.synapses for layer in self.projections], self.neurons * steps, steps)

    def _bursts(self, current: Tensor, v: Tensor) -> Tensor:
        spikes = []
        for i in current.unbind(0):
            u = self.config.decay * v + i
            away = u - u.detach().round().clamp(1, self.config.burst)
            smooth = away / (1.0 + self.config.slope * away.abs())  # its slope is the fast sigmoid's surrogate
            s = u.detach().floor().clamp(0, self.config.burst) + (smooth - smooth.detach())
            spikes.append(s)
            v = u - s.detach()
        return torch.stack(spikes)

    def _heard(self, current: Tensor) -> Tensor:
        if self.config.synapse_decay == 0.0:
            return current
        decay = torch.full_like(current, self.config.synapse_decay)
        return self.ops.affine_scan(decay, decay * current, current.new_zeros(current.shape[1:]))

    def _check(self, x: Tensor) -> None:
        shape = self.config.shape
        if x.dim() != 2 + len(shape) or tuple(x.shape[2:]) != shape or not x.is_floating_point():
            raise UsageError(
                f"classifier: got {x.dtype} {list(x.shape)}, expected floating-point [T, B, {', '.join(map(str, shape))}].",
                "Give it time first, then the batch; convert integers to float32.",
            )
