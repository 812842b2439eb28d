"""A trained ReLU network as integrate-and-fire neurons, without training it again.

Of Bu et al. 2022 ("Optimal ANN-SNN conversion", arXiv:2303.04347) the quantization-clip-floor-shift function

    q(z) = (theta / T) clip(floor(z T / theta + 1 / 2), 0, T)

which is what T steps of such a neuron make of a constant current z (soft reset, threshold theta, membrane theta / 2 before the
first step): the average of its output. Here theta is found for a network that was trained with plain ReLUs: layer by layer and
channel by channel the one whose q loses the least of what the ReLU passes on, on samples without labels; then the bias takes up
what the mean still misses (after Li et al. 2021, "A free lunch from ANN", arXiv:2106.06984).
differs: Bu et al. train the network with q, and one theta a layer learns along.

Thresholds are folded into the weights: each spike stands for theta, each neuron's threshold is 1.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from neuro.errors import UsageError
from neuro.spiking_classifier import Projection, SpikingClassifier

CANDIDATES = 24  # thresholds tried per channel, as shares of its largest value


def clip_floor_shift(z: Tensor, theta: Tensor, steps: int) -> Tensor:
    """q(z) of the module's docstring; ``theta`` is broadcast."""
    return torch.floor(z * (steps / theta) + 0.5).clamp(0, steps) * (theta / steps)


def convert(ann: SpikingClassifier, x: Tensor, steps: int) -> SpikingClassifier:
    """The network as spiking neurons for about so many steps, its weights without gradients.

    Args:
        ann: trained, graded, without memory (decay 0).
        x: samples to calibrate on, [1,B,...].
        steps: T of the quantization; the result runs for any number, best for this one. Hand the same input to every step
            (`held`), or events whose mean over the steps is the input.

    Raises:
        UsageError: not such a network, or no step.
    """
    if ann.config.neuron != "graded" or ann.config.decay != 0.0:
        got = f"{ann.config.neuron} neurons with decay {ann.config.decay}"
        raise UsageError(
            f"convert: got {got}, expected graded ones with decay 0.", "Train a ReLU network: neuron graded, decay 0."
        )
    if steps < 1 or x.shape[0] != 1:
        raise UsageError(
            f"convert: got {steps} steps and an input of {x.shape[0]}, expected at least 1 and an input of 1 step.",
            "Calibrate on the mean of the input over time.",
        )
    config = dataclasses.replace(ann.config, neuron="spiking", decay=1.0, start=0.5)
    snn = SpikingClassifier(config, ann.ops).to(x.device)
    snn.load_state_dict(ann.state_dict())
    snn.requires_grad_(False)
    with torch.no_grad():
        exact = quantized = x
        for layer, to in zip(ann.projections[:-1], snn.projections[:-1], strict=True):
            wanted = torch.relu(layer(exact))
            z = to(quantized)
            theta = _per_channel(_thresholds(_rows(layer, wanted), _rows(layer, z), steps), layer)
            # What the means of the channels still miss, twice: a shifted bias moves what is clipped.
            for _ in range(2):
                q = clip_floor_shift(to(quantized), theta, steps)
                to.bias.add_(_rows(layer, wanted - q).mean(1))
            exact, quantized = wanted, clip_floor_shift(to(quantized), theta, steps)
            _fold(to, snn, theta)
            quantized = quantized / theta
        last, to = ann.projections[-1], snn.projections[-1]
        to.bias.add_((last(exact) - to(quantized)).mean((0, 1)))
    return snn.eval()


def held(x: Tensor, steps: int) -> Tensor:
    """[1,B,...] -> [steps,B,...]: the same input at every step, as a view."""
    return x.expand(steps, *x.shape[1:])


def _rows(layer: Projection, y: Tensor) -> Tensor:
    """[1,B,N] -> [channels, B * places]: what shares a channel's bias."""
    return y.reshape(y.shape[1], layer.out[0], -1).transpose(0, 1).flatten(1)


def _per_channel(values: Tensor, layer: Projection) -> Tensor:
    """[channels] -> [N]."""
    return values.repeat_interleave(values.new_ones(layer.out).numel() // layer.out[0])


def _thresholds(wanted: Tensor, z: Tensor, steps: int) -> Tensor:
    """Per row of [C,M], the theta whose q(z) is nearest to ``wanted`` in the squared mean; 1 where a row is silent."""
    most = wanted.amax(1)
    best, least = torch.ones_like(most), torch.full_like(most, torch.inf)
    for share in torch.linspace(1.0, 0.25, CANDIDATES).tolist():
        theta = most * share
        lost = (clip_floor_shift(z, theta.clamp_min(1e-12)[:, None], steps) - wanted).square().mean(1)
        better = (lost < least) & (most > 0)
        best, least = torch.where(better, theta, best), torch.where(better, lost, least)
    return best


def _fold(to: Projection, snn: SpikingClassifier, theta: Tensor) -> None:
    """Threshold 1 for this layer's neurons; the next layer's weights carry theta."""
    channels = to.out[0]
    each = theta.reshape(channels, -1)[:, 0]
    to.weight.div_(each.reshape(-1, *[1] * (to.weight.dim() - 1)))
    to.bias.div_(each)
    following = snn.projections[snn.projections.index(to) + 1]
    if following.config.kernel:
        following.weight.mul_(each.reshape(1, -1, *[1] * (following.weight.dim() - 2)))
    else:
        following.weight.mul_(theta)
