"""Laws of the pointer: what followed stored moments gains chance, nothing else changes but to make room for it."""

import dataclasses

import pytest
import torch

from backends import portable, reference, select
from neuro import memory_file, presets, sleep
from neuro.config import RunConfig, apply_sets
from neuro.errors import UsageError
from neuro.evaluate.arms import without_memory
from neuro.memory import contents
from neuro.memory.pointer import Pointer, mixed
from neuro.state import HippocampusState
from neuro.train import loop, objective

POINTS = ["hippocampus.pointer=true"]


@pytest.fixture(params=["reference", "portable", "cpu"])
def pointer(request) -> Pointer:
    ops = {"reference": reference.OPS, "portable": portable.OPS, "cpu": select("cpu").ops}[request.param]
    return Pointer(4, 7, ops).double()


def read(pointer: Pointer, strengths: list[float], ids: list[int], cosines: list[float]) -> torch.Tensor:
    made = (torch.tensor([x]).double() for x in (strengths, ids))
    one = torch.ones(1, 1).double()
    return pointer(torch.tensor([[cosines]]).double(), *made, torch.ones(1, 1, 4).double(), 0.3 * one)


def test_it_gives_each_token_the_shares_of_its_slots(pointer):
    """Plain numbers: two slots of token 5, one of token 2, one unfilled."""
    copied = read(pointer, [0.5, 1.0, 0.25, 0.0], [5, 2, 5, 3], [0.9, 0.8, 0.1, 1.0])[0, 0]
    scale, age = pointer.log_scale.exp(), pointer.log_age.exp()
    score = scale * torch.tensor([0.9, 0.8, 0.1]).double() + age * torch.tensor([0.5, 1.0, 0.25]).double().log()
    drive = pointer.evidence * score.logsumexp(0) + pointer.trust * 0.3 + pointer.gate.bias
    share = score.softmax(0) * drive.sigmoid() * (1 - 1e-4)
    expected = torch.zeros(7).double()
    expected[5], expected[2] = share[0] + share[2], share[1]
    assert torch.allclose(copied, expected, atol=1e-12)


def test_the_mixture_is_a_distribution_that_gives_room_to_what_was_copied():
    draw = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(2, 3, 9, dtype=torch.float64, generator=draw) + 5
    copied = torch.rand(2, 3, 9, dtype=torch.float64, generator=draw) * (torch.rand(2, 3, 9, generator=draw) < 0.4)
    copied = 0.6 * copied / copied.sum(-1, keepdim=True).clamp_min(1e-9)
    found = mixed(logits, copied)
    expected = (1 - copied.sum(-1, keepdim=True)) * logits.softmax(-1) + copied
    assert torch.allclose(found.softmax(-1), expected, atol=1e-12)
    assert torch.allclose(found.logsumexp(-1), logits.logsumexp(-1), atol=1e-12)


def test_a_token_without_chance_that_is_copied_stays_finite():
    logits = torch.tensor([[[0.0, -200.0]]], requires_grad=True)
    found = mixed(logits, torch.tensor([[[0.0, 0.5]]]))
    found.logsumexp(-1).sum().backward()
    assert found.isfinite().all() and logits.grad.isfinite().all()


def test_an_empty_memory_leaves_every_logit_bit_for_bit(pointer, tiny_brain, tokens):
    assert not read(pointer, [0.0] * 3, [1, 2, 3], [-2.0] * 3).any()
    logits = torch.randn(2, 3, 9)
    assert torch.equal(mixed(logits, torch.zeros(2, 3, 9)), logits)


def test_a_passage_seen_again_is_foreseen_by_the_pointer_alone(tiny_brain, tokens):
    """Whatever the weights: the content of the memory says nothing (its way out is shut), and the same keys come again."""
    brain = tiny_brain(POINTS, dtype=torch.float64).eval()
    region = brain.regions["hippocampus"]
    with torch.no_grad():
        region.out.weight.zero_()
        region.pointer.log_scale.fill_(4.0)
        region.pointer.evidence.zero_()
        region.pointer.gate.bias.zero_()
    span = brain.config.plasticity_span
    text = tokens(1, 2 * span)

    def cost(kept: bool) -> float:
        state, total = brain.init_state(1), 0.0
        for number, part in enumerate([*text.split(span, 1), *text.split(span, 1)]):
            out = brain.scan(part, state)
            total += float(out.aux.surprise.detach().sum()) if number > 1 else 0.0
            state = brain.commit(out.state)[0]
            state = state if kept else without_memory(state)
        return total / (2 * span)

    assert cost(kept=True) < cost(kept=False) - 1.0


def test_stored_ids_are_the_tokens_that_came(tiny_brain, tokens):
    brain = tiny_brain(POINTS).eval()
    ids, state = tokens(1, 3 * brain.config.plasticity_span), brain.init_state(1)
    for part in ids.split(brain.config.plasticity_span, 1):
        state = brain.commit(brain.scan(part, state).state)[0]
    memory = state.regions.hippocampus
    filled = memory.strengths[0] > 0
    assert filled.any()
    assert torch.equal(memory.ids[0][filled].long(), ids[0][memory.origins[0][filled].long()])


def test_its_loss_reaches_keys_and_gate_and_no_id(tiny_brain, tokens):
    brain = tiny_brain(POINTS)
    ids = tokens(2, 2 * brain.config.plasticity_span).repeat(1, 2)
    train = dataclasses.replace(presets.tiny().train, mixed_precision=False)
    scored = torch.zeros(ids.shape, dtype=torch.bool)
    scored[:, -8:] = True
    for where in (None, scored):
        brain.zero_grad()
        loss = objective.window_loss(brain, ids, brain.init_state(2), train, where)
        loss.total.backward()
        gradients = [p.grad for p in brain.regions["hippocampus"].pointer.parameters()]
        assert all(g is not None and g.isfinite().all() and g.any() for g in gradients)
        if where is not None:  # the mean over the scored tokens of what the scan itself said
            state, nats = brain.init_state(2), []
            for part in ids.split(brain.config.plasticity_span, 1):
                out = brain.scan(part, state)
                nats.append(out.aux.surprise.detach())
                state = brain.commit(out.state)[0]
            assert float(loss.nats) == pytest.approx(float(torch.cat(nats, 1)[scored].mean()), rel=1e-5)


def test_the_ids_are_memory(tiny_brain, tokens, tmp_path):
    """They are held, saved and loaded, and a slot that sleep frees keeps none."""
    brain = tiny_brain(POINTS).eval()
    state = brain.init_state(1)
    once = tokens(1, brain.config.plasticity_span)
    for _ in range(3):
        state = brain.commit(brain.scan(once, state).state)[0]
    assert torch.equal(contents.held(state)["ids"], state.regions.hippocampus.ids)
    memory_file.save(tmp_path / "m", brain, state)
    loaded, _ = memory_file.load(tmp_path / "m", brain, brain.init_state(1))
    assert torch.equal(loaded.regions.hippocampus.ids, state.regions.hippocampus.ids)
    rested, report = sleep.sleep(brain, state, 1, replays=False, strengthens=False)
    assert isinstance(rested.regions.hippocampus, HippocampusState)
    free = rested.regions.hippocampus.strengths == 0
    assert not rested.regions.hippocampus.ids[free].any()
    assert report.merged


def test_a_sampled_vocabulary_is_refused(tmp_path):
    run = apply_sets(presets.tiny(), ["train.sampled=8", "brain.hippocampus.pointer=true"])
    assert isinstance(run, RunConfig)
    with pytest.raises(UsageError, match=r"train.sampled: a pointer gives .*\nSet train.sampled=0"):
        loop.train(run, tmp_path)
