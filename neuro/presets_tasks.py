"""Classification tasks on recorded data: samples, folds, encoding, and a network with its plan of learning.

Each comes with spiking neurons, and with graded ones (a ReLU in place of the spike) of the same widths on the same samples:

| task | spiking sees | graded sees |
|---|---|---|
| nmnist | events of a camera, 6 bins of 50 ms | their mean over the bins, once |
| mnist | the same digits as images (paired by index), intensities as spike rates over 8 steps | the intensities, once |
| spoken-digits | fibres of a cochlea, 24 bins a word | the same spikes; leaky integrators carry them over the bins |

Sizes and plans were chosen on validation samples inside the training part of the first fold.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from neuro.errors import UsageError, nearest
from neuro.sensors import cochlea, mnist, nmnist, spoken_digits
from neuro.spiking_classifier import NEURONS, ClassifierConfig, LayerConfig
from neuro.train.classify import Draw, Plan

FOLDS = 5
NMNIST_BINS = 6
MNIST_STEPS = 8
WORD_BINS, BANDS = 24, 32
THRESHOLDS_DB = (-45.0, -35.0, -25.0, -15.0)
STEP_MS = {"nmnist": 50.0}
"""Of a task's bins; the others' are no time, and a step of theirs counts as 1 ms."""
DELAYS = (0, 2, 4, 6, 8)  # bins: each fibre reaches the first layer over so many synapses


@dataclasses.dataclass(frozen=True)
class Fold:
    """Numbers of the samples to learn from and of those to be measured on: disjoint."""

    name: str
    train: np.ndarray
    test: np.ndarray


@dataclasses.dataclass(frozen=True)
class Task:
    """``inputs`` are the encoded samples as plain numbers [S, features], for models that are no networks."""

    name: str
    labels: np.ndarray
    folds: tuple[Fold, ...]
    draw: Draw
    network: ClassifierConfig
    plan: Plan
    inputs: Callable[[], np.ndarray]


def load(name: str, neuron: str = "spiking", root: str | Path | None = None) -> Task:
    """The task of that name.

    Raises:
        UsageError: an unknown task or neuron.
        MissingError: its data are not there.
        FormatError: its data are broken.
    """
    if name not in TASKS:
        raise UsageError(f"task: got '{name}', expected one of {', '.join(TASKS)}.", nearest(name, list(TASKS)))
    if neuron not in NEURONS:
        raise UsageError(f"task {name}: got neuron '{neuron}'.", nearest(neuron, NEURONS))
    return TASKS[name](neuron, root)


def shuffled_folds(samples: int, folds: int = FOLDS, seed: int = 0) -> tuple[Fold, ...]:
    """Every sample is in the test part of exactly one fold."""
    parts = np.array_split(np.random.default_rng(seed).permutation(samples), folds)
    everything = np.arange(samples)
    return tuple(Fold(str(i), np.setdiff1d(everything, part), np.sort(part)) for i, part in enumerate(parts))


def _nmnist(neuron: str, root: str | Path | None) -> Task:
    recordings = nmnist.load(root)

    def draw(samples: np.ndarray, generator: np.random.Generator | None) -> Tensor:
        frames = nmnist.frames([recordings[i] for i in samples], NMNIST_BINS, generator)
        x = torch.from_numpy(frames).float().transpose(0, 1)
        return x.contiguous() if neuron == "spiking" else x.mean(0, keepdim=True)

    def inputs() -> np.ndarray:
        return nmnist.frames(recordings, NMNIST_BINS).sum(1, dtype=np.float32).reshape(len(recordings), -1)

    labels = np.array([recording.label for recording in recordings])
    network = ClassifierConfig(
        nmnist.SHAPE,
        (LayerConfig(16, (5, 5), 2), LayerConfig(48, (3, 3), 2)),
        neuron=neuron,
        decay=0.8 if neuron == "spiking" else 0.0,
    )
    return Task("nmnist", labels, shuffled_folds(len(labels)), draw, network, _digit_plan(neuron), inputs)


def _digit_plan(neuron: str) -> Plan:
    if neuron == "spiking":
        return Plan(epochs=50, learning_rate=4e-3, rate_target=0.08, rate_weight=2.0)
    return Plan(epochs=80)


def _mnist(neuron: str, root: str | Path | None) -> Task:
    parts = [mnist.load(part, root) for part in mnist.PARTS]
    shown = [recording.image for recording in nmnist.load(root)]
    images = np.stack([parts[part][0][index] for part, index in shown])
    labels = np.array([parts[part][1][index] for part, index in shown]).astype(np.int64)

    def draw(samples: np.ndarray, generator: np.random.Generator | None) -> Tensor:
        x = torch.from_numpy(images[samples]).float().unsqueeze(1) / 255.0
        if generator is not None:
            x = moved(x, generator)
        return rates(x, MNIST_STEPS) if neuron == "spiking" else x.unsqueeze(0)

    def inputs() -> np.ndarray:
        return images.reshape(len(images), -1).astype(np.float32) / 255.0

    network = ClassifierConfig(
        (1, 28, 28),
        (LayerConfig(16, (5, 5), 2), LayerConfig(48, (3, 3), 2)),
        neuron=neuron,
        decay=0.8 if neuron == "spiking" else 0.0,
    )
    return Task("mnist", labels, shuffled_folds(len(labels)), draw, network, _digit_plan(neuron), inputs)


def _spoken_digits(neuron: str, root: str | Path | None) -> Task:
    takes = spoken_digits.load(root)
    levels = [cochlea.levels(take.samples, spoken_digits.RATE_HZ, BANDS) for take in takes]

    def encoded(number: int, generator: np.random.Generator | None) -> np.ndarray:
        sound, bend = levels[number], 1.0
        if generator is not None:
            sound, bend = cochlea.varied(sound, generator), generator.uniform(0.7, 1.4)
        return cochlea.fibres(cochlea.resampled(sound, WORD_BINS, bend), THRESHOLDS_DB)

    def draw(samples: np.ndarray, generator: np.random.Generator | None) -> Tensor:
        x = torch.from_numpy(np.stack([encoded(i, generator) for i in samples], 1)).float()
        late = [F.pad(x, (0, 0, 0, 0, 0, 0, by, 0))[:WORD_BINS] for by in DELAYS]
        return torch.cat(late, 2).unsqueeze(3)  # [T, B, fibres x delays, 1, bands]

    def inputs() -> np.ndarray:
        return np.stack([cochlea.resampled(sound, WORD_BINS).reshape(-1) for sound in levels])

    speakers = np.array([take.speaker for take in takes])
    folds = tuple(
        Fold(name, np.nonzero(speakers != name)[0], np.nonzero(speakers == name)[0]) for name in spoken_digits.SPEAKERS
    )
    network = ClassifierConfig(
        (len(THRESHOLDS_DB) * len(DELAYS), 1, BANDS),
        (LayerConfig(24, (1, 5), 2), LayerConfig(48, (1, 3), 2), LayerConfig(128)),
        neuron=neuron,
        decay=0.5,
    )
    labels = np.array([take.digit for take in takes])
    plan = Plan(epochs=15, learning_rate=5e-3 if neuron == "spiking" else 2e-3)
    return Task("spoken-digits", labels, folds, draw, network, plan, inputs)


def rates(x: Tensor, steps: int) -> Tensor:
    """[B,...] of 0 to 1 -> spikes [steps,B,...] of 0 and 1, as many of the steps as the intensity says, evenly spread."""
    up_to = torch.arange(steps + 1, dtype=x.dtype).reshape(-1, *[1] * x.dim())
    return torch.floor(x * up_to + 0.5).diff(dim=0).clamp_(0.0, 1.0)


def moved(x: Tensor, generator: np.random.Generator) -> Tensor:
    """Images [B,C,H,W] turned by up to 12 degrees, scaled by up to 12 % and moved by up to 2 pixels, each at random."""
    batch, _, height, width = x.shape
    angle, scale = np.deg2rad(generator.uniform(-12, 12, batch)), generator.uniform(0.88, 1.12, batch)
    dx, dy = generator.uniform(-2, 2, (2, batch)) * np.array([[2.0 / width], [2.0 / height]])
    c, s = np.cos(angle) / scale, np.sin(angle) / scale
    affine = np.stack([np.stack([c, -s, dx], 1), np.stack([s, c, dy], 1)], 1)
    grid = F.affine_grid(torch.from_numpy(affine).to(x.dtype), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


TASKS: dict[str, Callable[[str, str | Path | None], Task]] = {
    "nmnist": _nmnist,
    "mnist": _mnist,
    "spoken-digits": _spoken_digits,
}
