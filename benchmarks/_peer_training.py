"""How the peers of `transformer_peers.py` learn and are read: the brain's windows, optimizer, schedule and scores."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from pathlib import Path

import _memory_transformer as peers
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import backends
from neuro import tasks, tensor_file
from neuro.config import TrainConfig
from neuro.errors import UsageError
from neuro.evaluate.recall import Answers
from neuro.tasks import Rows
from neuro.train import loop, optimizer
from neuro.train.examples import HELD_OUT, Examples
from neuro.train.streams import Streams, Window

SCHEMA = "neuro.benchmark.peer/1"
SEGMENT = 128  # tokens read at once where text is scored


class Learner:
    """A peer in training, from step to step.

    Args:
        size: of the peer.
        windows: what the brain's run draws from the same seed.
        train: the brain's; ``rate_weight``, ``route_weight`` and ``memory_dropout`` are about parts that a peer lacks.
        segment: tokens read at once; a window may be several.
    """

    def __init__(self, size: peers.Size, windows: Streams | Examples, train: TrainConfig, segment: int) -> None:
        torch.manual_seed(train.seed)
        self.model, self.windows, self.train, self.segment = peers.MemoryTransformer(size), windows, train, segment
        cpu = backends.select("cpu")
        self.adam = optimizer.make(self.model, cpu, train.learning_rate, train.weight_decay)
        self.products = cpu.autocast if train.mixed_precision else None
        self.memory, self.step = self.model.empty(train.batch), 0

    def run(self, until: int) -> None:
        """Learn until so many steps are done."""
        self.model.train()
        while self.step < until:
            window = self.windows.window(self.train.spans_per_step)
            self.memory = peers.emptied(self.memory, torch.from_numpy(window.fresh))
            with torch.autocast("cpu", self.products) if self.products else contextlib.nullcontext():
                nats, compression, self.memory = window_loss(self.model, window, self.memory, self.segment)
            self.adam.zero_grad(set_to_none=True)
            (nats + compression).backward()
            loop.clip_gradient(self.model.parameters(), self.train.clip_norm)
            for group in self.adam.param_groups:
                group["lr"] = loop.learning_rate(self.train, self.step)
            self.adam.step()
            self.step += 1


def window_loss(
    model: peers.MemoryTransformer, window: Window, memory: peers.Memory, segment: int
) -> tuple[Tensor, Tensor, peers.Memory]:
    """-> mean nats of the window's tokens after its first (of the scored ones), loss of the compression, memory after it."""
    tokens = torch.from_numpy(window.tokens)
    features, lost = [], []
    for part in tokens.split(segment, 1):
        reading = model(part, memory)
        memory, loss = model.remember(memory, reading.inputs)
        features.append(reading.features)
        lost.append(loss)
    x, said = torch.cat(features, 1)[:, :-1], tokens[:, 1:]
    if window.scored is not None:
        ahead = torch.from_numpy(window.scored)[:, 1:]
        x, said = x[ahead], said[ahead]
    nats = F.cross_entropy(model.logits(x).flatten(0, -2), said.flatten())
    return nats, torch.stack(lost).mean(), memory


def halved(
    size: peers.Size,
    windows: Streams | Examples,
    train: TrainConfig,
    rates: tuple[float, ...],
    segment: int,
    trial: int,
    held_out: object,
) -> tuple[peers.MemoryTransformer, dict[str, float]]:
    """Every learning rate for ``trial`` steps of its schedule; the best on held-out text goes on -> model, nats by rate."""
    learners, nats = {}, {}
    for rate in rates:
        learner = Learner(size, copy.deepcopy(windows), dataclasses.replace(train, learning_rate=rate), segment)
        learner.run(min(trial, train.steps))
        learners[rate], nats[f"{rate:g}"] = learner, held_out(learner.model)  # type: ignore[operator]
    best = min(rates, key=lambda rate: nats[f"{rate:g}"])
    learners[best].run(train.steps)
    return learners[best].model.eval(), nats


def fitted(size: peers.Size, parameters: int) -> peers.Size:
    """The size whose feed-forward width brings it nearest to so many parameters.

    Raises:
        UsageError: there are fewer than the rest of it has.
    """
    one, two = (count(peers.MemoryTransformer(dataclasses.replace(size, hidden=hidden))) for hidden in (1, 2))
    hidden = 1 + round((parameters - one) / (two - one))
    if hidden < 1:
        raise UsageError(
            f"peer: got {parameters} parameters, expected at least {one}.", "Take fewer layers, or a lower rate."
        )
    return dataclasses.replace(size, hidden=hidden)


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def grown(model: peers.MemoryTransformer, memory: int, compressed: int) -> peers.MemoryTransformer:
    """The same weights with another memory."""
    other = peers.MemoryTransformer(dataclasses.replace(model.size, memory=memory, compressed=compressed))
    other.load_state_dict(model.state_dict())
    return other.eval()


def elements(size: peers.Size) -> int:
    """Numbers that a stream carries."""
    return size.layers * size.width * (size.memory + size.compressed)


@torch.no_grad()
def surprises(model: peers.MemoryTransformer, tokens: np.ndarray, segment: int = SEGMENT) -> np.ndarray:
    """Nats [B, N-1] of each token [B,N] after the first given all that the memory reaches, float64; streams begin here."""
    rows = torch.from_numpy(tokens.astype(np.int64))
    memory, found = model.empty(len(rows)), []
    for start in range(0, rows.shape[1] - 1, segment):
        part = rows[:, start : start + segment]
        said = rows[:, start + 1 : start + segment + 1]
        reading = model(part, memory)
        logits = model.logits(reading.features[:, : said.shape[1]])
        found.append(F.cross_entropy(logits.transpose(1, 2), said, reduction="none").double())
        if start + segment < rows.shape[1] - 1:
            memory, _ = model.remember(memory, reading.inputs)
    return torch.cat(found, 1).numpy()


def held_out_nats(model: peers.MemoryTransformer, tokens: np.ndarray, most: int, batch: int = 8) -> float:
    """Mean nats per token of the streams that `neuro.train.loop.held_out_nats` reads."""
    length = min(most, len(tokens)) // batch
    return float(surprises(model, tokens[: batch * length].reshape(batch, length)).mean())


@torch.no_grad()
def answers(model: peers.MemoryTransformer, rows: Rows, segment: int) -> Answers:
    """How each row's answers were predicted, read from a fresh stream."""
    tokens, scored = torch.from_numpy(rows.tokens), torch.from_numpy(rows.scored)
    memory, features = model.empty(len(tokens)), []
    for part in tokens.split(segment, 1):
        reading = model(part, memory)
        memory, _ = model.remember(memory, reading.inputs)
        features.append(reading.features)
    logits, said = model.logits(torch.cat(features, 1)[:, :-1][scored[:, 1:]]), tokens[scored]
    nats = F.cross_entropy(logits, said, reduction="none")
    return Answers((logits.argmax(-1) == said).reshape(len(tokens), -1), nats.reshape(len(tokens), -1))


def held_out_answers(model: peers.MemoryTransformer, source: str, most: int, seed: int, segment: int) -> float:
    """Mean nats at the answers that `neuro.train.examples.held_out_answers` asks for."""
    parts = tasks.parse(source, model.size.vocab)
    total = 0.0
    for index, task in enumerate(parts):
        rows = max(1, most // len(parts) // task.length)
        drawn = task.rows(np.random.default_rng([HELD_OUT, seed, index]), rows, model.size.vocab)
        total += float(answers(model, drawn, segment).nats.mean()) / len(parts)
    return total


def save(path: Path, model: peers.MemoryTransformer) -> None:
    tensor_file.write(path, dict(model.state_dict()), {"schema": SCHEMA, "size": dataclasses.asdict(model.size)})


def load(path: Path) -> peers.MemoryTransformer:
    """What `save` wrote."""
    tensors, header = tensor_file.read(path, SCHEMA)
    model = peers.MemoryTransformer(peers.Size(**header["size"]))
    model.load_state_dict(tensors)
    return model.eval()
