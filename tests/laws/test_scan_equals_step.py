"""Law: a scan equals a fold of steps, wherever a span is cut, with every region on or off, across commits.

(a) float64: equal to 1e-9, spikes identical.  (b) float32 from a forced state: a spike may differ only within 1e-5 of the
threshold, and at most 1 in 10^5.  (c) float32 running freely: the loss differs by at most 0.001 nats.
"""

from __future__ import annotations

import random

import pytest
import torch

from backends import native, portable, reference
from neuro.state import leaves

BOUND_64 = 1e-9
NEAR_THRESHOLD = 1e-5
MANY = ["cortex.feedforward_width=256", "cortex.feedforwards=spiking,spiking"]


def random_cuts(seed: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randint(1, 7) for _ in range(11)]


def distance(a, b) -> float:
    """The largest difference between two traces, over logits, surprise, every state leaf and every commit."""
    there = b.leaves()
    worst = max(a.gap(x, there[name]) for name, x in a.leaves().items())
    for mine, other in zip(a.commits, b.commits, strict=True):
        worst = max(worst, *(a.gap(x, y) for x, y in zip(mine, other, strict=True)))
    for name in ("affect", "salience", "novelty", "route", "surprise"):
        worst = max(worst, a.gap(a.events[name], b.events[name]))
    return max(worst, a.gap(a.logits, b.logits))


@pytest.mark.parametrize("ops", [native, portable], ids=["native", "portable"])
def test_float64_scan_of_a_span_equals_the_fold_of_steps(toggles, ops, tiny_brain, drive, tokens, measured):
    brain = tiny_brain(toggles, ops=ops.OPS, dtype=torch.float64)
    ids = tokens(2, 3 * 16 + 5)
    prosody = torch.randn(2, ids.shape[1], 3, dtype=torch.float64)
    whole = drive(brain, ids, prosody=prosody)
    fold = drive(brain, ids, prosody=prosody, pieces=1)
    assert whole.logits.dtype == torch.float64
    assert len(whole.commits) == len(fold.commits) == 3
    worst = distance(whole, fold)
    measured("max_difference", worst)
    assert worst <= BOUND_64
    assert torch.equal(whole.spikes, fold.spikes)
    if brain.config.hippocampus.enabled:
        assert all(commit.writes.min() > 0 for commit in whole.commits)


@pytest.mark.parametrize("seed", range(6))
def test_float64_random_cuts_and_early_commits_change_nothing(seed, tiny_brain, drive, tokens, measured):
    brain = tiny_brain(["cortex.feedforwards=spiking,spiking"], seed=seed, dtype=torch.float64, record_raster=True)
    ids = tokens(3, 70, seed)
    commits = sorted(random.Random(seed).sample(range(1, 70), 4))
    whole = drive(brain, ids, commits=commits)
    assert len({int(commit.tokens) for commit in whole.commits}) > 1  # partial spans among them
    worst = 0.0
    for pieces in (1, random_cuts(seed), random_cuts(seed + 100)):
        other = drive(brain, ids, commits=commits, pieces=pieces)
        worst = max(worst, distance(whole, other))
        assert torch.equal(whole.raster, other.raster)
    measured("max_difference", worst)
    assert worst <= BOUND_64


def test_float64_left_padding_may_be_cut_anywhere(tiny_brain, drive, tokens):
    brain = tiny_brain(dtype=torch.float64)
    ids = tokens(3, 40)
    valid = (torch.arange(40) >= torch.tensor([[0], [5], [21]])).double()
    whole = drive(brain, ids, valid=valid)
    for pieces in (1, random_cuts(1)):
        other = drive(brain, ids, valid=valid, pieces=pieces)
        assert distance(whole, other) <= BOUND_64
        assert torch.equal(whole.spikes, other.spikes)


def test_the_brain_under_test_is_not_trivial(tiny_brain, drive, tokens, measured):
    """Fires at 2 to 20 %, and 1,000 updates and more lie within 1e-3 of the threshold (found from the membranes)."""
    brain = tiny_brain(MANY, dtype=torch.float64, record_raster=True)
    decay, threshold, near, updates = brain.config.cortex.decay, brain.config.cortex.v_threshold, 0, 0
    state, ids, rates = brain.init_state(16), tokens(16, 400), []
    with torch.no_grad():
        for token in ids.T:
            out = brain.step(token, state)
            raster = out.events.raster[:, 0].unbind(1)
            for layer, spikes in zip(out.state.regions.cortex.layers, raster, strict=True):
                u = layer.feedforward.v + threshold * spikes
                near, updates = near + int(((u - threshold).abs() < 1e-3).sum()), updates + u.numel()
            rates.append(out.events.raster.mean((0, 1, 3)))
            state = brain.commit(out.state)[0] if brain.remaining(out.state) == 0 else out.state
    rate = torch.stack(rates).mean(0)
    measured("rates", rate.tolist())
    measured("near_threshold", near)
    assert ((rate >= 0.02) & (rate <= 0.20)).all()
    assert near >= 1000
    assert decay > 0 and updates > 2_000_000


@pytest.mark.parametrize("ops", [native, portable], ids=["native", "portable"])
def test_float32_from_a_forced_state_spikes_differ_only_at_the_threshold(ops, tiny_brain, tokens, measured):
    """The truth runs step by step on the plainest loops; the brain under test starts each pair of tokens from its state."""
    truth = tiny_brain(MANY, ops=reference.OPS, record_raster=True)
    brain = tiny_brain(MANY, ops=ops.OPS, record_raster=True)
    brain.load_state_dict(truth.state_dict())
    threshold, ids, state = truth.config.cortex.v_threshold, tokens(8, 128), truth.init_state(8)
    differ = updates = 0
    margin = leaf = 0.0
    with torch.no_grad():
        for t in range(0, ids.shape[1], 2):
            forced = brain.scan(ids[:, t : t + 2], state)
            for k in range(2):
                out = truth.step(ids[:, t + k], state)
                state, raster = out.state, out.events.raster[:, 0]
                u = torch.stack([layer.feedforward.v for layer in state.regions.cortex.layers], 1) + threshold * raster
                wrong = forced.events.raster[:, k] != raster
                differ, updates = differ + int(wrong.sum()), updates + wrong.numel()
                if wrong.any():
                    margin = max(margin, float((u - threshold).abs()[wrong].max()))
            if not differ:
                pairs = zip(leaves(forced.state), leaves(state), strict=True)
                leaf = max(
                    leaf, *(float((a.double() - b.double()).abs().nan_to_num(nan=9).max()) for (_, a), (_, b) in pairs)
                )
            if truth.remaining(state) == 0:
                state = truth.commit(state)[0]
    for name, value in {"spikes_that_differ": differ, "updates": updates, "margin": margin, "state": leaf}.items():
        measured(name, value)
    assert margin <= NEAR_THRESHOLD * max(1.0, abs(threshold))
    assert differ <= max(1, updates // 100_000)
    assert leaf <= 1e-4


@pytest.mark.parametrize("ops", [native, portable], ids=["native", "portable"])
def test_float32_running_freely_loses_no_more_than_a_thousandth_of_a_nat(ops, tiny_brain, drive, tokens, measured):
    brain = tiny_brain(MANY, ops=ops.OPS, record_raster=True)
    ids = tokens(8, 256, seed=5)
    whole, fold = drive(brain, ids), drive(brain, ids, pieces=1)
    wrong = (whole.raster != fold.raster).flatten(2).any(2).any(0)
    first = int(wrong.nonzero()[0]) if wrong.any() else -1
    loss = whole.gap(whole.surprise.double().mean(), fold.surprise.double().mean())
    measured("first_divergence", first)
    measured("loss_difference", loss)
    measured("logit_difference", whole.gap(whole.logits, fold.logits))
    assert loss <= 1e-3


def test_the_law_can_fail(tiny_brain, drive, tokens, monkeypatch):
    """A membrane that is not carried from token to token is caught."""
    brain = tiny_brain(dtype=torch.float64)
    lif = brain.regions["cortex"].layers[0].feedforward
    scan = lif.scan

    def forgetful(x, route, state):
        return scan(x, route, state._replace(v=torch.zeros_like(state.v)))

    monkeypatch.setattr(lif, "scan", forgetful)
    ids = tokens(2, 40)
    whole, fold = drive(brain, ids), drive(brain, ids, pieces=1)
    assert distance(whole, fold) > BOUND_64
    assert not torch.equal(whole.spikes, fold.spikes)
