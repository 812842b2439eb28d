"""State: nested named tuples, their paths, and the few things done to all of them."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from neuro.state import BrainState, clone, detach, leaves, replace_leaves, select_rows, tree_map


class Inner(NamedTuple):
    a: Tensor
    b: Tensor


class Outer(NamedTuple):
    first: Inner
    rest: tuple
    none: tuple
    clock: Tensor


def example() -> Outer:
    numbers = [torch.arange(6.0).reshape(3, 2) + 10 * i for i in range(4)]
    return Outer(Inner(numbers[0], numbers[1]), (numbers[2], Inner(numbers[3], numbers[0])), (), torch.tensor(7))


def test_paths_are_fields_and_places():
    paths = [path for path, _ in leaves(example())]
    assert paths == ["first.a", "first.b", "rest.0", "rest.1.a", "rest.1.b", "clock"]
    assert leaves(torch.ones(1), "x")[0][0] == "x"
    assert leaves(()) == []


def test_map_keeps_types_and_order():
    doubled = tree_map(lambda x: x * 2, example())
    assert type(doubled) is Outer and type(doubled.rest[1]) is Inner and doubled.none == ()
    for (_, a), (_, b) in zip(leaves(doubled), leaves(example()), strict=True):
        assert torch.equal(a, 2 * b)
    summed = tree_map(lambda a, b, c: a + b + c, example(), example(), example())
    assert torch.equal(summed.rest[0], 3 * example().rest[0])


def test_map_over_trees_of_another_shape_fails():
    with pytest.raises(ValueError):
        tree_map(lambda a, b: a, example(), example()._replace(rest=(torch.ones(1),)))


def test_replace_leaves_undoes_leaves():
    tree = example()
    tensors = [x + 1 for _, x in leaves(tree)]
    back = replace_leaves(tree, tensors)
    assert type(back) is Outer
    assert all(a is b for (_, a), b in zip(leaves(back), tensors, strict=True))


def test_detach_shares_and_clone_does_not():
    tree = tree_map(lambda x: x.float().requires_grad_() * 1.0, example())
    cut, copy = detach(tree), clone(tree)
    for (_, x), (_, d), (_, c) in zip(leaves(tree), leaves(cut), leaves(copy), strict=True):
        assert x.requires_grad and not d.requires_grad and not c.requires_grad
        assert x.data_ptr() == d.data_ptr() != c.data_ptr()
        assert torch.equal(x, c)


def test_select_rows_takes_rows_and_leaves_scalars():
    picked = select_rows(example(), torch.tensor([2, 0, 2, 1]))
    assert torch.equal(picked.first.a, example().first.a[[2, 0, 2, 1]])
    assert picked.clock.item() == 7


def test_fresh_rows_begin_a_new_life_and_the_others_go_on_detached(tiny_brain, tokens):
    from neuro.train.objective import fresh_rows

    brain = tiny_brain()
    initial = brain.init_state(3)
    state = brain.commit(brain.scan(tokens(3, 16), initial).state)[0]
    mixed = fresh_rows(state, initial, torch.tensor([False, True, False]))
    for (name, new), (_, old), (_, start) in zip(leaves(mixed), leaves(state), leaves(initial), strict=True):
        assert not new.requires_grad
        if new.dim():
            assert torch.equal(new[1], start[1]) and torch.equal(new[[0, 2]], old[[0, 2]]), name
    assert any(x.requires_grad for _, x in leaves(state))


def test_the_training_loss_is_the_mean_surprise_and_two_budgets(tiny_brain, drive, tokens):
    from neuro import presets
    from neuro.train.objective import window_loss

    brain, ids, t = tiny_brain(["cortex.feedforwards=spiking,spiking"]), tokens(2, 40), presets.tiny().train
    loss, trace = window_loss(brain, ids, brain.init_state(2), t), drive(brain, ids, commits=[16, 32, 40])
    nats = torch.nn.functional.cross_entropy(trace.logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert torch.allclose(loss.nats, nats, atol=1e-5)
    # Each span counts once, however short: spans of 16, 16 and 8.
    rates = torch.stack([part.float().mean((0, 1)) / 48 for part in trace.spikes.split(16, 1)]).mean(0)
    route = torch.stack([part.mean() for part in trace.events["route"].split(16, 1)]).mean()
    budgets = t.rate_weight * ((rates - 0.08) ** 2).sum() + t.route_weight * (route - 0.8) ** 2
    assert torch.allclose(loss.total, nats + budgets, atol=1e-5)
    assert torch.allclose(loss.spike_rate, rates.mean()) and torch.allclose(loss.route, route)
    assert not loss.nats.requires_grad and loss.total.requires_grad


def test_the_paths_of_a_brain_are_stable(tiny_brain):
    """They become port names of an export."""
    state = tiny_brain().init_state(2)
    assert isinstance(state, BrainState)
    assert [path for path, _ in leaves(state)] == [
        "regions.amygdala.affect",
        "regions.endocrine.modulators",
        "regions.cortex.layers.0.mixer.h",
        "regions.cortex.layers.0.feedforward.v",
        "regions.cortex.layers.1.mixer.keys",
        "regions.cortex.layers.1.mixer.values",
        "regions.cortex.layers.1.mixer.seen",
        "regions.cortex.procedural.fast",
        "regions.cortex.procedural.last_eligibility",
        "regions.hippocampus.keys",
        "regions.hippocampus.values",
        "regions.hippocampus.strengths",
        "regions.hippocampus.origins",
        "regions.hippocampus.position",
        "regions.hippocampus.last_key",
        "regions.hippocampus.has_key",
        "regions.hippocampus.last_content",
        "regions.hippocampus.trust",
        "regions.readout.last_input",
        *(f"buffer.{name}" for name in ("keys", "values", "candidate", "salience", "novelty", "affect", "surprise",
                                         "spike_rate", "valid", "error", "eligibility")),
        *(f"held.{name}" for name in ("affect", "surprise", "novelty", "spike_rate")),
        "logits",
        "started",
        "clock",
    ]  # fmt: skip


def test_a_state_keeps_its_types_and_shapes_for_ever(toggles, tiny_brain, drive, tokens):
    """What comes out of scan and commit goes in again: no shape or type changes, none shares memory with another row."""
    brain = tiny_brain(toggles)
    fresh, after = brain.init_state(2), drive(brain, tokens(2, 37)).state
    for (name, a), (_, b) in zip(leaves(fresh), leaves(after), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype), name
        assert a.dtype == (torch.int64 if name == "clock" else torch.float32), name
