"""A brain whose place cells learn how many of them a token takes: training holds their mean share to the budget."""

import dataclasses

import pytest
import torch

from neuro import presets
from neuro.errors import UsageError
from neuro.train import objective

SETS = ["hippocampus.learned_sparsity=true", "hippocampus.sparsity=0.1"]


def test_training_brings_the_mean_share_of_active_cells_to_the_budget(tiny_brain):
    brain = tiny_brain(SETS)
    threshold = brain.regions["hippocampus"].place_cells.threshold
    train = dataclasses.replace(presets.tiny().train, place_weight=1.0, mixed_precision=False)
    tokens = torch.randint(0, 300, (4, 16), generator=torch.Generator().manual_seed(1))

    def share() -> float:
        with torch.no_grad():
            return float(brain.scan(tokens, brain.init_state(4)).aux.place_share.mean())

    with torch.no_grad():
        threshold.fill_(2.5)
    before = share()
    optimizer = torch.optim.Adam([threshold], 0.05)
    for _ in range(40):
        optimizer.zero_grad()
        objective.window_loss(brain, tokens, brain.init_state(4), train).total.backward()
        optimizer.step()
    assert before < 0.03 and share() == pytest.approx(0.1, rel=0.15)
    assert threshold.unique().numel() > 10, "every cell has its own"


def test_a_token_takes_its_own_number_of_cells_and_a_fixed_share_has_no_budget(tiny_brain):
    tokens = torch.randint(0, 300, (2, 16), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        learned = tiny_brain(SETS).scan(tokens, tiny_brain(SETS).init_state(2)).aux.place_share
        fixed = tiny_brain()
        plain = fixed.scan(tokens, fixed.init_state(2)).aux.place_share
    assert learned.shape == (2, 16) and learned.unique().numel() > 2 and plain.shape == (2, 0)
    assert not objective._holds_places(fixed)


def test_inference_and_training_take_the_same_cells(tiny_brain):
    brain = tiny_brain(SETS)
    tokens = torch.randint(0, 300, (1, 12), generator=torch.Generator().manual_seed(3))
    sloped = brain.scan(tokens, brain.init_state(1))
    with torch.no_grad():
        plain = brain.scan(tokens, brain.init_state(1))
    assert torch.equal(sloped.aux.place_share, plain.aux.place_share) and torch.equal(sloped.logits, plain.logits)


def test_a_negative_weight_of_the_budget_is_refused():
    with pytest.raises(
        UsageError, match=r"config train.place_weight: got -1, expected at least 0.\nSet train.place_weight."
    ):
        dataclasses.replace(presets.tiny().train, place_weight=-1)
