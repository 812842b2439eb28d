"""Sampled softmax: the whole vocabulary when all are candidates, right in the mean when they are not, the same draws again."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from neuro.config import TrainConfig, apply_sets
from neuro.errors import UsageError
from neuro.presets import tiny
from neuro.state import leaves
from neuro.train import objective, sampled
from neuro.train.sampled import Candidates, Sampler

TRAIN = TrainConfig(sampled=8, rate_weight=0.0, route_weight=0.0)


def everything(tokens: torch.Tensor, vocab: int) -> Candidates:
    return Candidates(torch.arange(vocab), torch.zeros(vocab), tokens)


def nats(logits: torch.Tensor, candidates: Candidates) -> torch.Tensor:
    """The mean loss of features that are the logits themselves."""
    return sampled.mean_nats(logits, torch.eye(logits.shape[2], dtype=logits.dtype), candidates)


def test_with_every_candidate_it_is_the_whole_softmax(tiny_brain, tokens):
    """Loss, gradient of every parameter and the state that goes on, from fresh streams."""
    brain = tiny_brain(dtype=torch.float64)
    tokens, state = tokens(3, 32), brain.init_state(3)
    full = objective.window_loss(brain, tokens, state, TRAIN)
    full.total.backward()
    wanted = {name: p.grad.clone() for name, p in brain.named_parameters() if p.grad is not None}
    brain.zero_grad(set_to_none=True)
    loss = objective.sampled_loss(brain, everything(tokens, brain.config.vocab_size), state, TRAIN)
    loss.total.backward()
    assert float(loss.nats) == pytest.approx(float(full.nats), abs=1e-6)
    for name, p in brain.named_parameters():
        if name in wanted:
            torch.testing.assert_close(p.grad, wanted[name], atol=1e-6, rtol=1e-5, msg=name)
    for (name, got), (_, expected) in zip(leaves(loss.state), leaves(full.state), strict=True):
        assert got.shape == expected.shape, name
        if name != "logits":  # what comes next is predicted over other candidates
            torch.testing.assert_close(got, expected, atol=1e-9, rtol=1e-9, msg=name)


def test_the_sum_over_candidates_is_right_in_the_mean():
    """exp(loss) is Z / exp(s): its mean over draws is that of the whole vocabulary, common and rare targets alike."""
    rng = np.random.default_rng(0)
    text = rng.zipf(1.5, 4000).clip(1, 60).astype(np.int64) - 1
    sampler = Sampler(text, 60, 20, seed=3)
    scores = torch.from_numpy(rng.standard_normal(60))
    window = torch.tensor([[0, 1, 40]])  # the first is never scored
    found = []
    for step in range(4000):
        drawn = sampler.draw(step, torch.from_numpy(rng.choice(text, (1, 30))))
        ids = np.union1d(drawn.ids.numpy(), window.numpy())  # the targets are there as in any window that has them
        absent = 30 * np.log1p(-sampler.of_text[ids]) + 20 * np.log1p(-sampler.drawn[ids])
        places = torch.from_numpy(np.searchsorted(ids, window.numpy()))
        inside = np.isin(ids, drawn.ids.numpy()) | np.isin(ids, window.numpy())
        candidates = Candidates(torch.from_numpy(ids), torch.from_numpy(np.log(-np.expm1(absent))), places)
        logits = torch.where(torch.from_numpy(inside), scores[candidates.ids], -torch.inf).expand(1, 3, -1)
        # A target that was not drawn stands in the other token's sum with its whole weight: leave it out there.
        for t in (0, 1):
            only = logits.clone()
            other = int(places[0, 2 - t])
            if ids[other] not in drawn.ids:
                only[:, :, other] = -1e9
            pair = candidates._replace(tokens=candidates.tokens[:, t : t + 2])
            found.append((t, float(nats(only[:, t : t + 2], pair))))
    for t, target in enumerate((1, 40)):
        mean = np.mean([np.exp(nats) for at, nats in found if at == t])
        whole = float(torch.exp(torch.logsumexp(scores, 0) - scores[target]))
        assert mean == pytest.approx(whole, rel=0.03)


def test_a_step_draws_the_same_again_and_another_something_else():
    sampler = Sampler(np.arange(500).repeat(3), 500, 40, seed=1)
    tokens = torch.arange(20).reshape(2, 10)
    first, again, other = sampler.draw(7, tokens), sampler.draw(7, tokens), sampler.draw(8, tokens)
    assert torch.equal(first.ids, again.ids) and not torch.equal(first.ids, other.ids)
    assert torch.equal(first.ids[first.tokens], tokens)
    assert bool((first.log_chance <= 0).all()) and len(first.ids) <= 60


def test_a_word_that_the_text_never_has_is_a_finite_candidate():
    sampler = Sampler(np.zeros(50, dtype=np.int64), 4, 3, seed=0)
    drawn = sampler.draw(0, torch.tensor([[0, 3]]))
    loss = nats(torch.zeros(1, 2, len(drawn.ids)), drawn)
    assert drawn.ids.tolist() == [0, 3] and bool(torch.isfinite(loss))


def test_dropped_tokens_are_dropped_where_they_are_read_and_not_where_they_are_said(tiny_brain, tokens):
    brain = tiny_brain()
    ids, state = tokens(3, 16), brain.init_state(3)
    candidates = everything(ids, brain.config.vocab_size)
    dropping = dataclasses.replace(TRAIN, embedding_dropout=0.9)

    def loss(seed: int, config: TrainConfig = dropping) -> float:
        generator = torch.Generator().manual_seed(seed)
        return float(objective.sampled_loss(brain, candidates, state, config, generator).nats)

    assert loss(1) == loss(1) != loss(2)
    assert loss(1, TRAIN) == loss(2, TRAIN) != loss(1)
    rows = brain.embedding.detach().clone()
    rows.requires_grad_()
    read = torch.zeros_like(rows)
    sampled.within(brain, rows, read, lambda: brain.scan(ids[:, :4], state).logits.sum()).backward()
    assert float(rows.grad.abs().sum()) > 0
    assert brain.regions["readout"].weight is brain.embedding  # put back


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["train.embedding_dropout=0.1"], "train.embedding_dropout"),
        (["train.optimizer=sgd"], "adamw or muon"),
        (["train.dropout=1.0"], r"in \[0, 1\)"),
        (["train.average=1"], r"in \[0, 1\)"),
        (["train.sampled=-1"], "at least 0"),
        (["train.sampled=8", "train.accumulate=2"], "train.sampled: got 8, expected 0 with accumulate"),
        (["train.sampled=8", "train.checkpoint_activations=true"], "train.sampled: got 8"),
        (["train.dropout=0.1", "train.parallel=ddp"], "train.dropout: got 0.1, expected 0 with accumulate"),
        (["train.dropout=0.1", "train.compile=true"], "train.dropout: got 0.1"),
        (["train.optimizer=muon", "train.parallel=fsdp"], "train.optimizer: got muon, expected adamw"),
        (["train.average=0.9", "train.parallel=fsdp"], "train.average: got 0.9"),
        (["train.only=cortex", "train.parallel=fsdp"], "train.only"),
        (["brain.hippocampus.key_trace=1.0"], r"key_trace: got 1.0, expected in \[0, 1\)"),
    ],
)
def test_settings_that_mean_nothing_are_refused(sets, said):
    with pytest.raises(UsageError, match=said):
        apply_sets(tiny(), sets)


def test_one_token_is_nothing_to_predict():
    with pytest.raises(UsageError, match="nothing to predict"):
        nats(torch.zeros(1, 1, 4), everything(torch.zeros(1, 1, dtype=torch.int64), 4))


@pytest.mark.parametrize("part", [4, 512])
def test_the_loss_in_parts_is_cross_entropy_and_so_is_its_gradient(part, monkeypatch):
    """Of scores less the log chance of a candidate, and not of the token that came."""
    monkeypatch.setattr(sampled, "_PART", part)
    generator = torch.Generator().manual_seed(0)
    features, rows, chance = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((2, 8, 5), (9, 5), (9,))
    )
    tokens = torch.randint(0, 9, (2, 8), generator=generator)
    features.requires_grad_()
    rows.requires_grad_()
    there = -chance.abs()
    scores = (features[:, :-1] @ rows.T - there).flatten(0, 1)
    target = tokens[:, 1:].flatten()
    scores = scores + F.one_hot(target, 9) * there
    expected = 3.0 * F.cross_entropy(scores, target)
    found = 3.0 * sampled.mean_nats(features, rows, Candidates(torch.arange(9), there, tokens))
    torch.testing.assert_close(found, expected)
    for got, want in zip(*(torch.autograd.grad(loss, (features, rows)) for loss in (found, expected)), strict=True):
        torch.testing.assert_close(got, want)


def test_a_brain_that_nobody_listens_to_learns_the_same(tiny_brain, tokens, monkeypatch):
    """Without regions that read a surprise no span computes logits; loss, gradients and state are those with them."""
    regions = ("thalamus", "amygdala", "endocrine", "hippocampus", "procedural")
    brain = tiny_brain([f"{name}.enabled=false" for name in regions], dtype=torch.float64)
    ids, state = tokens(3, 32), brain.init_state(3)
    found = []
    for hears in (False, True):
        assert not sampled.hears_itself(brain.config)
        with monkeypatch.context() as patch:
            if hears:
                patch.setattr(sampled, "hears_itself", lambda config: True)
            brain.zero_grad(set_to_none=True)
            loss = objective.sampled_loss(brain, everything(ids, brain.config.vocab_size), state, TRAIN)
        loss.total.backward()
        gradients = {name: p.grad.clone() for name, p in brain.named_parameters() if p.grad is not None}
        found.append((loss, gradients))
    (silent, quiet), (heard, loud) = found
    torch.testing.assert_close(silent.nats, heard.nats)
    assert quiet.keys() == loud.keys()
    for name in loud:
        torch.testing.assert_close(quiet[name], loud[name], msg=name)
    for (name, got), (_, expected) in zip(leaves(silent.state), leaves(heard.state), strict=True):
        assert got.shape == expected.shape, name
        if "surprise" not in name:  # what nobody reads
            torch.testing.assert_close(got, expected, msg=name)
