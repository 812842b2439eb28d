"""Law: running each span again in the backward pass changes no bit of the gradient, and keeps less meanwhile."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from neuro import presets
from neuro.state import leaves
from neuro.train import objective

KEPT = dataclasses.replace(presets.tiny().train, memory_dropout=0.5)
RUN_AGAIN = dataclasses.replace(KEPT, checkpoint_activations=True)


def learn(brain, train, scored=None):
    tokens = torch.randint(0, 300, (3, 72), generator=torch.Generator().manual_seed(1))
    brain.zero_grad(set_to_none=True)
    kept: dict[int, int] = {}

    def keep(x: torch.Tensor) -> torch.Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with saved_tensors_hooks(keep, lambda x: x):
        loss = objective.window_loss(brain, tokens, brain.init_state(3), train, scored)
    loss.total.backward()
    return {name: p.grad for name, p in brain.named_parameters()}, loss, sum(kept.values())


def assert_equal(found, truth) -> None:
    for name, grad in truth[0].items():
        assert (found[0][name] is None) == (grad is None), name
        assert grad is None or torch.equal(found[0][name], grad), name
    assert torch.equal(found[1].total, truth[1].total) and torch.equal(found[1].nats, truth[1].nats)
    for (name, leaf), (_, other) in zip(leaves(found[1].state), leaves(truth[1].state), strict=True):
        assert torch.equal(leaf, other), name


def test_gradients_are_equal_to_the_bit(toggles, tiny_brain):
    brain = tiny_brain(toggles).train()
    assert_equal(learn(brain, RUN_AGAIN), learn(brain, KEPT))


def test_so_are_those_of_a_task_and_in_bfloat16(tiny_brain):
    brain = tiny_brain().train()
    scored = torch.zeros(3, 72, dtype=torch.bool)
    scored[:, 50] = True
    assert_equal(learn(brain, RUN_AGAIN, scored), learn(brain, KEPT, scored))
    brain.backend = dataclasses.replace(brain.backend, autocast=torch.bfloat16)
    assert_equal(learn(brain, RUN_AGAIN), learn(brain, KEPT))


def test_less_is_kept_for_the_backward_pass(tiny_brain, measured):
    brain = tiny_brain().train()
    share = learn(brain, RUN_AGAIN)[2] / learn(brain, KEPT)[2]
    measured("share of the bytes kept outside of spans", share)
    assert share < 0.2


def test_the_law_can_fail(tiny_brain):
    brain = tiny_brain().train()
    other = dataclasses.replace(RUN_AGAIN, rate_weight=1.0)
    with pytest.raises(AssertionError):
        assert_equal(learn(brain, other), learn(brain, KEPT))
