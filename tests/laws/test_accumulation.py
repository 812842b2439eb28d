"""Law: a batch in several backward passes has the gradient, the loss and the state of the batch in one."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from neuro import presets
from neuro.state import detach, leaves
from neuro.train import gradient, objective
from neuro.train.distributed import Team

TRAIN = dataclasses.replace(presets.tiny().train, memory_dropout=0.5)
KINDS = {
    "tiny": [],
    "spikes before every product": [
        "cortex.encoding=spikes",
        "cortex.mixers=recurrence,recurrence",
        "cortex.feedforwards=spiking,spiking",
        "procedural.enabled=false",
    ],
    "whole layers skipped": ["thalamus.skips=layer"],
    "no spikes": ["cortex.feedforwards=dense,dense"],
    "no cortex": ["cortex.enabled=false"],
    "a budget of place cells": ["hippocampus.learned_sparsity=true"],
}


@pytest.fixture
def learn(tiny_brain, monkeypatch):
    """``learn(parts, sets=, scored=, train=)`` -> gradients, loss and state of one window, and how many parts were run."""

    def of(parts: int, sets=(), scored=None, train=TRAIN):
        brain = tiny_brain(sets, dtype=torch.float64).train()
        tokens = torch.randint(0, 300, (4, 64), generator=torch.Generator().manual_seed(1))
        state = detach(objective.window_loss(brain, tokens[:, :32], brain.init_state(4), train).state)
        fresh = torch.tensor([False, True, False, False])  # so that the shards predict unequally many tokens
        state = objective.fresh_rows(state, brain.init_state(4), fresh)
        window_loss, runs = objective.window_loss, []

        def counted(*given):
            runs.append(given[1].shape[0])
            return window_loss(*given)

        chosen = dataclasses.replace(train, batch=4, accumulate=parts)
        with monkeypatch.context() as patch:
            patch.setattr(objective, "window_loss", counted)
            loss = gradient.of_window(brain, tokens[:, 32:], state, chosen, scored, Team())
        return {name: p.grad for name, p in brain.named_parameters()}, loss, runs

    return of


def assert_equal(found, truth) -> None:
    grads, loss, _ = found
    expected, whole, _ = truth
    for name, grad in expected.items():
        assert (grads[name] is None) == (grad is None), name
        if grad is not None:
            torch.testing.assert_close(grads[name], grad, rtol=1e-9, atol=1e-12, msg=name)
    for name in ("nats", "spike_rate", "route"):
        assert float(getattr(loss, name)) == pytest.approx(float(getattr(whole, name)), rel=1e-12), name
    for (name, leaf), (_, other) in zip(leaves(loss.state), leaves(whole.state), strict=True):
        torch.testing.assert_close(leaf.detach(), other.detach(), rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("parts", [2, 4])
def test_parts_have_the_gradient_of_the_whole(kind, parts, learn):
    assert_equal(learn(parts, KINDS[kind]), learn(1, KINDS[kind]))


def test_so_have_the_parts_of_a_task(learn):
    scored = torch.zeros(4, 32, dtype=torch.bool)
    scored[torch.arange(4), torch.tensor([5, 20, 31, 1])] = True
    assert_equal(learn(2, scored=scored), learn(1, scored=scored))


def test_parts_are_run_twice_only_for_a_budget(learn):
    free = dataclasses.replace(TRAIN, rate_weight=0.0, route_weight=0.0)
    assert learn(2)[2] == [2, 2, 2, 2]
    assert learn(2, train=free)[2] == [2, 2]
    assert_equal(learn(2, train=free), learn(1, train=free))


def test_the_law_can_fail(learn, monkeypatch):
    """Parts that hold the budgets by themselves have another gradient."""
    truth = learn(1)
    monkeypatch.setattr(objective, "has_budgets", lambda brain, config: False)
    found = learn(2)
    with pytest.raises(AssertionError):
        assert_equal(found, truth)
