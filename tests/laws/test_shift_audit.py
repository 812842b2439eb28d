"""Law: what cannot be predicted is not predicted. On uniform i.i.d. tokens the held-out loss stays at ln V.

A loss that looks at the token it predicts, an attention that sees the future or a memory that is written too early all
show here as a loss below ln V; the audit is run on such brains too, and on a text that can be predicted.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from neuro import presets
from neuro.train import objective, optimizer
from neuro.train.loop import clip_gradient, held_out_nats, learning_rate
from neuro.train.streams import Streams

VOCAB = 32
STEPS = 60
SETS = [f"vocab_size={VOCAB}"]
TRAIN = dataclasses.replace(
    presets.tiny().train, steps=STEPS, learning_rate=5e-3, warmup_steps=5, mixed_precision=False
)


def uniform(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, VOCAB, count).astype(np.int32)


def cyclic(count: int, seed: int) -> np.ndarray:
    return ((np.arange(count) * 7 + seed) % VOCAB).astype(np.int32)


def train(brain, text: np.ndarray) -> None:
    """60 steps of the real objective, optimizer and streams."""
    adam = optimizer.make(brain, brain.backend, TRAIN.learning_rate, TRAIN.weight_decay)
    streams = Streams(text, np.zeros(1, dtype=np.int64), TRAIN.batch, brain.config.plasticity_span, TRAIN.rehearsal, 0)
    initial = state = brain.init_state(TRAIN.batch)
    for step in range(STEPS):
        ids, fresh, _ = streams.window(TRAIN.spans_per_step)
        before = objective.fresh_rows(state, initial, torch.from_numpy(fresh))
        loss = objective.window_loss(brain, torch.from_numpy(ids), before, TRAIN)
        adam.zero_grad(set_to_none=True)
        loss.total.backward()
        clip_gradient(brain.parameters(), TRAIN.clip_norm)
        for group in adam.param_groups:
            group["lr"] = learning_rate(TRAIN, step)
        adam.step()
        state = loss.state


def audit(brain, drive, held_out: np.ndarray) -> tuple[float, float]:
    """(mean nats, standard error) over the held-out text; rows are independent streams, as are i.i.d. tokens."""
    rows = torch.from_numpy(held_out.astype(np.int64)).reshape(8, -1)
    nats = drive(brain, rows).surprise[:, 1:].double()
    return float(nats.mean()), float(nats.std()) / math.sqrt(nats.numel())


def test_uniform_tokens_stay_at_ln_v(tiny_brain, drive, measured):
    brain = tiny_brain(SETS)
    train(brain, uniform(40_000, 0))
    mean, error = audit(brain, drive, uniform(4096, 1))
    assert held_out_nats(brain, uniform(4096, 1), 4096) == pytest.approx(mean, abs=1e-5)
    measured("nats_above_ln_V", mean - math.log(VOCAB))
    measured("standard_error", error)
    assert mean >= math.log(VOCAB) - 3 * error
    assert mean <= math.log(VOCAB) + 0.2  # and it did train: nothing is known, and it says so
    assert error < 0.02


def test_memory_of_a_seen_text_does_not_help_with_a_new_one(tiny_brain, drive):
    """Trained on few tokens over and over, it knows them by heart and is not better than ln V on others."""
    brain, text = tiny_brain(SETS), uniform(128, 3)
    train(brain, text)
    heart, _ = audit(brain, drive, np.tile(text, 8)[: 8 * 128])
    mean, error = audit(brain, drive, uniform(4096, 1))
    assert heart < math.log(VOCAB) - 0.3
    assert mean >= math.log(VOCAB) - 3 * error


def test_a_cycle_is_learned_so_that_the_audit_can_fail(tiny_brain, drive, measured):
    brain = tiny_brain(SETS)
    train(brain, cyclic(40_000, 0))
    mean, _ = audit(brain, drive, cyclic(4096, 5))
    measured("nats_of_a_cycle", mean)
    assert mean < 0.5 * math.log(VOCAB)


@pytest.mark.parametrize("leak", ["loss looks at its own token", "window sees the future"])
def test_the_audit_catches_a_leak(leak, tiny_brain, drive, monkeypatch):
    brain = tiny_brain(SETS)
    if leak.startswith("loss"):

        def unshifted(tokens, logits, valid, state):
            nats = F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none").reshape(tokens.shape)
            return nats * valid, valid

        monkeypatch.setattr(brain, "_surprise", unshifted)
    else:
        mixer = brain.regions["cortex"].layers[1].mixer
        bias = mixer._bias
        monkeypatch.setattr(mixer, "_bias", lambda n, seen: bias(n, seen).roll(1, -1))  # one token ahead
    train(brain, uniform(40_000, 0))
    mean, error = audit(brain, drive, uniform(4096, 1))
    assert mean < math.log(VOCAB) - 3 * error
