"""Training of the encoder on several labelled sets at once, and of a head on frozen features in closed form."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from neuro.affect.encoder import AffectNet, EncoderConfig
from neuro.affect.words import Texts
from neuro.errors import NeuroError, UsageError

SMOOTHING = 0.1  # of classes that exclude each other
_WARM_UP = 60


@dataclasses.dataclass(frozen=True)
class Task:
    """One labelled set: its head is called by its name.

    ``labels`` float [S, C] of 0 and 1 (any number of them true; binary cross-entropy summed over C) or int64 [S] (one class of
    ``outputs``; cross-entropy with label smoothing).
    """

    name: str
    texts: Texts
    labels: Tensor
    outputs: int
    repeats: int = 1  # how often an epoch shows it

    def loss(self, found: Tensor, rows: np.ndarray) -> Tensor:
        wanted = self.labels[torch.from_numpy(rows)]
        if wanted.dim() == 1:
            return F.cross_entropy(found, wanted, label_smoothing=SMOOTHING)
        return F.binary_cross_entropy_with_logits(found, wanted, reduction="none").sum(1).mean()


@dataclasses.dataclass(frozen=True)
class Plan:
    """How the encoder learns: Adam (lazy on the tables), a short warm-up, then linearly to a fiftieth."""

    epochs: int = 6
    batch: int = 256
    table_rate: float = 4e-3
    layer_rate: float = 2e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 1 or not min(self.table_rate, self.layer_rate) > 0.0:
            raise UsageError(
                f"plan: got {self.epochs} epochs, batch {self.batch} and rates {self.table_rate}, {self.layer_rate}, "
                "expected at least 1, at least 1 and above 0.",
                "Correct the value.",
            )


def fit(
    config: EncoderConfig,
    tasks: Sequence[Task],
    vectors: Tensor | None,
    plan: Plan,
    report: Callable[[dict[str, Any]], None] = lambda record: None,
) -> AffectNet:
    """A network trained on all tasks, batches of all of them mixed; the same for the same seed.

    Raises:
        NeuroError: a loss that is not finite.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        random = np.random.default_rng(plan.seed)
        net = AffectNet(config, {task.name: task.outputs for task in tasks}, vectors)
        tables = net.tables()
        rest = [p for p in net.parameters() if all(p is not table for table in tables)]
        solvers = (torch.optim.SparseAdam(tables, lr=plan.table_rate), torch.optim.Adam(rest, lr=plan.layer_rate))
        total = plan.epochs * sum(len(_parts(task, plan.batch, random)) for task in tasks for _ in range(task.repeats))
        step = 0
        net.train()
        for epoch in range(plan.epochs):
            work = [
                (task, rows) for t in tasks for _ in range(t.repeats) for task, rows in _named(t, plan.batch, random)
            ]
            losses: dict[str, list[float]] = {task.name: [] for task in tasks}
            for number in random.permutation(len(work)):
                task, rows = work[number]
                loss = task.loss(net(task.texts.batch(rows), task.name), rows)
                if not math.isfinite(loss.item()):
                    raise NeuroError(
                        f"fit: the loss of '{task.name}' in epoch {epoch + 1} is not finite.", "Lower the rates."
                    )
                net.zero_grad(set_to_none=True)
                loss.backward()
                step += 1
                share = min(1.0, step / _WARM_UP) * max(0.02, 1.0 - step / total)
                for solver, rate in zip(solvers, (plan.table_rate, plan.layer_rate), strict=True):
                    solver.param_groups[0]["lr"] = rate * share
                    solver.step()
                losses[task.name].append(loss.item())
            report({"epoch": epoch + 1, "nats": {name: float(np.mean(values)) for name, values in losses.items()}})
    return net.eval()


def _parts(task: Task, batch: int, random: np.random.Generator) -> list[np.ndarray]:
    """All texts in random order, cut into batches of like length."""
    lengths = task.texts.words.lengths
    order = random.permutation(len(lengths))
    found: list[np.ndarray] = []
    for chunk in np.array_split(order, max(1, round(len(order) / (20 * batch)))):
        chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
        found += np.array_split(chunk, max(1, round(len(chunk) / batch)))
    return found


def _named(task: Task, batch: int, random: np.random.Generator) -> list[tuple[Task, np.ndarray]]:
    return [(task, rows) for rows in _parts(task, batch, random)]


@torch.no_grad()
def features(net: AffectNet, texts: Texts, batch: int = 256) -> Tensor:
    """z [S, features] of all texts, in their order."""
    order = np.argsort(texts.words.lengths, kind="stable")
    parts = np.array_split(order, max(1, round(len(order) / batch)))
    found = torch.cat([net.features(texts.batch(part)) for part in parts if len(part)])
    return found[torch.from_numpy(np.argsort(order))]


def ridge(x: Tensor, y: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """(weight [C, F], bias [C]) of the regression of y [S, C] on x [S, F], each column penalized by its spread.

    Raises:
        UsageError: a penalty that is not above 0.
    """
    if not penalty > 0.0:
        raise UsageError(f"ridge: got penalty {penalty}, expected above 0.", "Give a positive penalty.")
    x, y = x.double(), y.double()
    mean, spread, offset = x.mean(0), x.std(0) + 1e-6, y.mean(0)
    seen = (x - mean) / spread
    gram = seen.T @ seen + penalty * torch.eye(x.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(gram, seen.T @ (y - offset)).T / spread
    return weight.float(), (offset - weight @ mean).float()
