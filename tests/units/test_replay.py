"""What sleep does to the slots of a store: use, strengthening, duplicates, stretches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import backends
from neuro.layers.norm import normalize
from neuro.memory import replay
from neuro.memory.episodic import EpisodicMemory


@pytest.fixture
def memory() -> EpisodicMemory:
    return EpisodicMemory(8, 3, 4, 1000.0, backends.select("cpu").ops)


def unit(*shape: int, seed: int = 0) -> Tensor:
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)))


def test_use_is_what_the_store_gave_each_later_query_and_was_right(memory):
    keys, values = unit(12, 5), unit(12, 8, seed=1)
    strengths = torch.rand(12, generator=torch.Generator().manual_seed(2)) + 0.5
    strengths[[3, 7]] = 0.0
    origins = torch.randperm(12, generator=torch.Generator().manual_seed(3)).float()
    expected = torch.zeros(12)
    for m in range(12):
        older = strengths * (origins < origins[m])  # the store that m's own key was asked of, one query at a time
        if strengths[m] == 0 or not older.any():
            continue
        score, _, chosen = memory.scores(keys[m].reshape(1, 1, -1), keys.unsqueeze(0), older.unsqueeze(0))
        share = (torch.softmax(score, -1) * chosen)[0, 0]
        expected += share * (values @ values[m]).clamp_min(0.0)
    found = replay.usefulness(memory, keys, values, strengths, origins)
    assert torch.allclose(found, expected, atol=1e-6) and expected.max() > 0.1
    assert found[[3, 7]].tolist() == [0.0, 0.0]


def test_strengthening_lifts_what_was_of_use_never_above_the_strongest_and_once():
    strengths, use = torch.tensor([0.0, 0.2, 0.2, 1.0, 0.5]), torch.tensor([9.0, 0.0, 4.0, 0.0, 1.0])
    once = replay.strengthened(strengths, use)
    assert torch.allclose(once, torch.tensor([0.0, 0.2, 1.0 - 2.0**-4, 1.0, 0.5]))
    assert torch.equal(replay.strengthened(once, use), once)


def test_of_equal_keys_with_the_same_token_the_newest_stays():
    keys = unit(6, 16)
    keys[2], keys[4] = keys[0], keys[0]
    tokens, origins = torch.tensor([5, 5, 5, 5, 6, 5]), torch.tensor([10.0, 1.0, 30.0, 2.0, 40.0, 3.0])
    freed, stays = replay.duplicates(keys, torch.ones(6), origins, tokens)
    assert (freed.tolist(), stays.tolist()) == ([0], [2]), "another token after the same key is another memory"
    unfilled = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    assert replay.duplicates(keys, unfilled, origins, tokens)[0].tolist() == []


def test_a_chain_of_near_keys_is_not_merged_end_to_end():
    angle = torch.tensor([0.0, 0.25, 0.5])  # neighbours at cosine .969, ends at .878
    keys = torch.stack([angle.cos(), angle.sin()], 1)
    freed, stays = replay.duplicates(keys, torch.ones(3), torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1, 1, 1]))
    assert (freed.tolist(), stays.tolist()) == ([1], [2])


def test_stretches_are_the_tokens_held_in_a_row():
    origins = torch.tensor([7.0, 0.0, 1.0, 2.0, 9.0, 6.0, 8.0, 3.0])
    strengths = torch.ones(8)
    strengths[7] = 0.0
    found = replay.sequences(strengths, origins, longest=3, shortest=1)
    assert [origins[piece].tolist() for piece in found] == [[0, 1, 2], [6, 7, 8], [9]]
    assert [len(piece) for piece in replay.sequences(strengths, origins, 3, 3)] == [3, 3]
    assert replay.sequences(torch.zeros(8), origins, 3, 1) == []
