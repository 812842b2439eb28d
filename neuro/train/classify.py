"""Training and measuring of spiking classifiers: seeded, resumable to the bit, on samples drawn afresh in every epoch.

The order of samples and whatever an encoding draws (moved events, another tempo) follow from the seed and the number of the
epoch alone, so a checkpoint needs weights, moments and that number.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from backends import Backend
from neuro import config as configs
from neuro import tensor_file
from neuro.errors import FormatError, NeuroError, UsageError
from neuro.spiking_classifier import ClassifierConfig, Counts, SpikingClassifier
from neuro.train import optimizer
from neuro.train.loop import clip_gradient
from neuro.train.optimizer import Joined

CHECKPOINT, MODEL = "neuro.classifier.checkpoint/1", "neuro.classifier/1"

Draw = Callable[[np.ndarray, np.random.Generator | None], Tensor]
"""(numbers of samples [B], generator or None) -> float [T,B,...]; with a generator the samples are varied for training."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a classifier learns: AdamW, a tenth of the steps warming up, then a cosine to 0."""

    epochs: int = 60
    batch: int = 50
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    rate_target: float = 1.0  # spikes per neuron and step that cost nothing
    rate_weight: float = 1.0  # of what a layer's mean rate has above the target
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 1 or not 0.0 < self.learning_rate < math.inf:
            raise UsageError(
                f"plan: got {self.epochs} epochs, batch {self.batch} and learning rate {self.learning_rate}, "
                "expected at least 1, at least 1 and above 0.",
                "Correct the value.",
            )
        for name in ("weight_decay", "rate_target", "rate_weight"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise UsageError(f"plan: got {name} {getattr(self, name)}, expected 0 or more.", "Correct the value.")


@dataclasses.dataclass(frozen=True)
class Scores:
    """Per sample whether it was classified rightly, and what all samples together cost."""

    correct: np.ndarray  # bool [S]
    counts: Counts

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())


def fit(
    config: ClassifierConfig,
    draw: Draw,
    labels: np.ndarray,
    samples: np.ndarray,
    plan: Plan,
    backend: Backend,
    checkpoint: Path | None = None,
    report: Callable[[dict[str, Any]], None] = lambda record: None,
) -> SpikingClassifier:
    """A classifier trained on the samples of these numbers, resuming from ``checkpoint`` when it is there.

    Args:
        draw: makes a batch.
        labels: of all samples, by number.
        samples: numbers of those to learn from.
        checkpoint: written after every tenth of the epochs; None keeps nothing.
        report: told the loss and the mean firing rate of every epoch.

    Raises:
        FormatError: the checkpoint is of another network or plan.
        NeuroError: a gradient that is not finite.
    """
    torch.manual_seed(plan.seed)
    model = SpikingClassifier(config, backend.ops).to(backend.device)
    adam = optimizer.make(model, backend, plan.learning_rate, plan.weight_decay)
    per_epoch = -(-len(samples) // plan.batch)
    every, first = max(1, plan.epochs // 10), 0
    if checkpoint is not None and checkpoint.is_file():
        first = _restore(checkpoint, model, adam, config, plan)
    else:
        model.settle(draw(samples[:: max(1, len(samples) // 64)], None).to(backend.device))
    targets = torch.from_numpy(labels.astype(np.int64)).to(backend.device)
    for epoch in range(first, plan.epochs):
        generator = np.random.default_rng([plan.seed, epoch])
        losses, rates = [], []
        for i, part in enumerate(np.array_split(generator.permutation(samples), per_epoch)):
            logits, entered = model(draw(part, generator).to(backend.device))
            loss = F.cross_entropy(logits, targets[torch.from_numpy(part)])
            fired = torch.stack([x.mean() for x in entered[1:]])
            adam.zero_grad(set_to_none=True)
            (loss + plan.rate_weight * torch.relu(fired - plan.rate_target).sum()).backward()
            if not math.isfinite(clip_gradient(model.parameters(), 1.0)):
                raise NeuroError(
                    f"train: a gradient in epoch {epoch + 1} is not finite.", "Lower learning_rate and run again."
                )
            for group in adam.param_groups:
                group["lr"] = _learning_rate(plan, (epoch * per_epoch + i) / (plan.epochs * per_epoch))
            adam.step()
            losses.append(loss.item())
            rates.append(fired.mean().item())
        if checkpoint is not None and ((epoch + 1) % every == 0 or epoch + 1 == plan.epochs):
            _save(checkpoint, model, adam, config, plan, epoch + 1)
        report({"epoch": epoch + 1, "nats": float(np.mean(losses)), "rate": float(np.mean(rates))})
    return model.eval()


@torch.no_grad()
def evaluate(model: SpikingClassifier, draw: Draw, labels: np.ndarray, samples: np.ndarray, batch: int = 100) -> Scores:
    """Every sample once, unvaried."""
    correct: list[np.ndarray] = []
    total: list[Counts] = []
    device = next(model.parameters()).device
    for part in _batches(samples, batch):
        logits, entered = model(draw(part, None).to(device))
        correct.append(logits.argmax(1).cpu().numpy() == labels[part])
        total.append(model.count(entered))
    return Scores(np.concatenate(correct), add(total))


def add(counts: Sequence[Counts]) -> Counts:
    """The counts of several batches of one network together."""
    spikes, operations = (
        [sum(column) for column in zip(*rows, strict=True)]
        for rows in ([c.spikes for c in counts], [c.synaptic_ops for c in counts])
    )
    updates, steps = sum(c.updates for c in counts), sum(c.steps for c in counts)
    return Counts(spikes, operations, counts[0].synapses, updates, steps)


def save(path: Path, model: SpikingClassifier, about: dict[str, Any]) -> None:
    """The weights with the network's shape and what is ``about`` it."""
    header = {"schema": MODEL, "config": configs.to_dict(model.config), "about": about}
    tensor_file.write(path, dict(model.state_dict()), header)


def load(path: Path, backend: Backend) -> tuple[SpikingClassifier, dict[str, Any]]:
    """(the network, what was said about it) of a file that `save` wrote.

    Raises:
        MissingError: no such file.
        FormatError: truncated, foreign, or its weights do not fit its shape.
    """
    tensors, header = tensor_file.read(path, MODEL)
    if not {"config", "about"} <= header.keys():
        raise FormatError(f"{path}: its header lacks 'config' or 'about'.", "It is foreign: use another copy.")
    model = SpikingClassifier(configs.from_dict(ClassifierConfig, header["config"]), backend.ops)
    tensor_file.check_shapes(tensors, dict(model.state_dict()), str(path))
    model.load_state_dict(tensors)
    return model.to(backend.device).eval(), header["about"]


def _learning_rate(plan: Plan, done: float) -> float:
    warm = 0.1
    if done < warm:
        return plan.learning_rate * (done + 1e-3) / warm
    return plan.learning_rate * 0.5 * (1.0 + math.cos(math.pi * (done - warm) / (1.0 - warm)))


def _batches(samples: np.ndarray, batch: int) -> list[np.ndarray]:
    return [samples[i : i + batch] for i in range(0, len(samples), batch)]


def _save(
    path: Path,
    model: SpikingClassifier,
    adam: torch.optim.Optimizer | Joined,
    config: ClassifierConfig,
    plan: Plan,
    epoch: int,
) -> None:
    moments = {
        f"optimizer.{index}.{name}": tensor
        for index, values in adam.state_dict()["state"].items()
        for name, tensor in values.items()
    }
    weights = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    header = {"schema": CHECKPOINT, "config": configs.to_dict(config), "plan": configs.to_dict(plan), "epoch": epoch}
    tensor_file.write(path, weights | moments, header)


def _restore(
    path: Path, model: SpikingClassifier, adam: torch.optim.Optimizer | Joined, config: ClassifierConfig, plan: Plan
) -> int:
    """-> epochs done."""
    tensors, header = tensor_file.read(path, CHECKPOINT)
    for part, given in (("config", config), ("plan", plan)):
        if header.get(part) != configs.to_dict(given):
            raise FormatError(
                f"{path}: its {part} differs from this run's.", "Choose another --out, or remove the checkpoint."
            )
    weights = {name[6:]: tensor for name, tensor in tensors.items() if name.startswith("model.")}
    tensor_file.check_shapes(weights, dict(model.state_dict()), str(path))
    model.load_state_dict(weights)
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            index, _, key = rest.partition(".")
            moments.setdefault(int(index), {})[key] = tensor
    adam.load_state_dict({"state": moments, "param_groups": adam.state_dict()["param_groups"]})
    return int(header["epoch"])
