"""Law: nothing at token t depends on a token (or on prosody) after t, in training and evaluation, with filled memory."""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch
from torch import Tensor

from neuro.brain import Brain
from neuro.events import Events

BOUND = 1e-6
LENGTH = 44  # with spans of 16: two commits and a part
PER_TOKEN = tuple(name for name in Events._fields if name not in ("raster", "membrane"))


def states_after(brain: Brain, filled: bool, drive, tokens):
    """A fresh state, or one whose memory has taken items over several commits (and is inside a span)."""
    if not filled:
        return brain.init_state(2)
    state = drive(brain, tokens(2, 71, seed=99)).state
    if brain.config.hippocampus.enabled:
        assert (state.regions.hippocampus.strengths > 0).sum() > brain.config.hippocampus.top_k
    assert int(state.clock) == 7
    return state


def changed_after(ids: Tensor, t: int, seed: int) -> Tensor:
    """Every token after t replaced by another one."""
    shift = torch.randint(1, 300, (ids.shape[0], ids.shape[1] - t - 1), generator=torch.Generator().manual_seed(seed))
    return torch.cat([ids[:, : t + 1], (ids[:, t + 1 :] + shift) % 300], 1)


def leak(a, b, t: int) -> float:
    """The largest change of anything up to and including t."""
    pairs = [(a.logits, b.logits)] + [(a.events[name], b.events[name]) for name in PER_TOKEN]
    return max(a.gap(x[:, : t + 1], y[:, : t + 1]) for x, y in pairs)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("filled", [True, False], ids=["memory filled", "memory empty"])
def test_changing_what_comes_after_changes_nothing_before(
    toggles, training, filled, tiny_brain, drive, tokens, measured
):
    brain = tiny_brain(toggles).train(training)
    state, ids = states_after(brain, filled, drive, tokens), tokens(2, LENGTH)
    prosody = torch.randn(2, LENGTH, 3)
    base = drive(brain, ids, state, prosody=prosody, grad=training)
    rng, worst = random.Random(str(toggles)), 0.0
    for t in (0, LENGTH - 2, *rng.sample(range(1, LENGTH - 2), 4)):
        louder = torch.cat([prosody[:, : t + 1], prosody[:, t + 1 :] + 3.0], 1)
        other = drive(brain, changed_after(ids, t, t), state, prosody=louder, grad=training)
        worst = max(worst, leak(base, other, t))
        assert base.gap(base.logits[:, t + 1 :], other.logits[:, t + 1 :]) > 1e-3  # the change was one
    measured("max_leak", worst)
    assert worst <= BOUND


def test_one_changed_token_at_every_place(tiny_brain, drive, tokens):
    """Singly, for all t, also cut into unequal pieces."""
    brain = tiny_brain()
    ids = tokens(2, LENGTH)
    base = drive(brain, ids, pieces=[5, 1, 9])
    for t in range(LENGTH - 1):
        other = ids.clone()
        other[:, t + 1] = (other[:, t + 1] + 1) % 300
        assert leak(base, drive(brain, other, pieces=[5, 1, 9]), t) <= BOUND


def test_prosody_reaches_later_logits_so_that_its_causality_means_something(tiny_brain, drive, tokens):
    brain, ids = tiny_brain(), tokens(2, LENGTH)
    quiet = drive(brain, ids, prosody=torch.zeros(2, LENGTH, 3))
    loud = drive(brain, ids, prosody=torch.full((2, LENGTH, 3), 2.0))
    silent = drive(brain, ids)
    assert torch.equal(quiet.logits, silent.logits)  # no prosody is silence
    assert float((quiet.events["affect"] - loud.events["affect"]).abs().max()) > 1e-2
    assert float((quiet.logits - loud.logits)[:, 16:].abs().max()) > 1e-3


def gradients(brain: Brain, ids: Tensor, state, t: int, row: int) -> Tensor:
    """d (a random projection of the logits of ``row`` at t) / d (every token's embedding): [B, T, D]."""
    seen: list[Tensor] = []

    def embed(part: Tensor, weight: Tensor) -> Tensor:
        seen.append(weight.detach()[part].requires_grad_())
        return seen[-1]

    brain.ops = dataclasses.replace(brain.ops, embed=embed)
    logits, at = [], 0
    while at < ids.shape[1]:
        part = ids[:, at : at + brain.remaining(state)]
        out = brain.scan(part, state)
        logits.append(out.logits)
        at += part.shape[1]
        state = brain.commit(out.state)[0] if brain.remaining(out.state) == 0 else out.state
    chosen = torch.cat(logits, 1)[row, t]
    weights = torch.randn(chosen.shape, generator=torch.Generator().manual_seed(t))
    grads = torch.autograd.grad((chosen * weights).sum(), seen, allow_unused=True)
    return torch.cat([torch.zeros_like(x) if g is None else g for g, x in zip(grads, seen, strict=True)], 1)


@pytest.mark.parametrize("filled", [True, False], ids=["memory filled", "memory empty"])
def test_no_gradient_reaches_a_later_token_or_another_row(toggles, filled, tiny_brain, drive, tokens):
    brain = tiny_brain(toggles)
    state, ids = states_after(brain, filled, drive, tokens), tokens(2, LENGTH)
    for t in (0, 8, LENGTH - 1):
        grad = gradients(brain, ids, state, t, row=1)
        assert not grad[:, t + 1 :].any()
        assert not grad[0].any()
        assert grad[1, t].abs().max() > 1e-4


def test_the_gradient_reaches_back_through_commit_and_read(tiny_brain, drive, tokens):
    """With the recurrences cut, a token of the first span is felt in the third through memory and hormones alone."""
    sets = ["cortex.mixers=window", "cortex.feedforwards=dense", "cortex.window=1"]
    ids = tokens(1, LENGTH)
    with_memory = tiny_brain(sets)
    grad = gradients(with_memory, ids, with_memory.init_state(1), LENGTH - 1, 0)
    assert (grad[0, :15].abs().amax(1) > 0).all()
    without = tiny_brain([*sets, "hippocampus.enabled=false", "endocrine.enabled=false", "procedural.enabled=false"])
    grad = gradients(without, ids, without.init_state(1), LENGTH - 1, 0)
    assert not grad[0, : LENGTH - 2].any() and grad[0, LENGTH - 2].any()  # a window of one besides the current token


@pytest.mark.parametrize("where", ["window", "relay", "memory"])
def test_the_fuzz_catches_a_leak(where, tiny_brain, drive, tokens, monkeypatch):
    brain = tiny_brain()
    if where == "window":
        mixer = brain.regions["cortex"].layers[1].mixer
        bias = mixer._bias
        monkeypatch.setattr(mixer, "_bias", lambda n, seen: bias(n, seen).nan_to_num(neginf=-5.0))
    elif where == "relay":
        scan = brain.regions["thalamus"].scan

        def centred(inputs, state):
            outputs, state = scan(inputs, state)
            return outputs | {"relay": outputs["relay"] - outputs["relay"].mean(1, keepdim=True)}, state

        monkeypatch.setattr(brain.regions["thalamus"], "scan", centred)
    else:
        read = brain.regions["hippocampus"].memory.read

        def ranked(query, *stored):
            content, *rest = read(query, *stored)
            return content + query.mean((1, 2))[:, None, None], *rest

        monkeypatch.setattr(brain.regions["hippocampus"].memory, "read", ranked)
    ids = tokens(2, LENGTH)
    base = drive(brain, ids)
    assert max(leak(base, drive(brain, changed_after(ids, t, t), None), t) for t in (3, 20)) > BOUND
