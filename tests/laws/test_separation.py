"""Dentate gyrus, CA3 and CA1: codes move apart, cues become what was stored, and what is new is told."""

from __future__ import annotations

import pytest
import torch

from neuro.errors import UsageError
from neuro.memory.autoassociation import recall, store
from neuro.memory.dentate import DentateGyrus, overlap


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("noise", [0.3, 0.6, 1.0])
def test_codes_are_less_alike_than_what_they_code(noise):
    """Every degree of likeness below the whole becomes a lower one, in order."""
    dentate = DentateGyrus(64, 2000, 60, 16)
    x = draw(200, 64)
    y = x + noise * draw(200, 64, seed=1)
    before, after = overlap(x, y).mean(), overlap(dentate(x), dentate(y)).mean()
    assert 0.0 <= float(after) < float(before) - 0.1
    assert torch.allclose(overlap(dentate(x), dentate(x)), torch.ones(200), atol=1e-5)
    further = overlap(dentate(x), dentate(x + 2 * noise * draw(200, 64, seed=1))).mean()
    assert float(further) < float(after)


def test_codes_are_sparse_unit_and_not_negative():
    dentate = DentateGyrus(32, 500, 20, 8)
    code = dentate(draw(3, 40, 32))
    assert int((code > 0).sum(-1).max()) <= 20 and float(code.min()) == 0.0
    assert torch.allclose(code.norm(dim=-1), torch.ones(3, 40), atol=1e-5)
    assert ((dentate.weight != 0).sum(1) == 8).all()
    assert torch.equal(DentateGyrus(32, 500, 20, 8).weight, dentate.weight)
    assert not torch.equal(DentateGyrus(32, 500, 20, 8, seed=1).weight, dentate.weight)


def test_fitting_takes_out_what_varies_among_the_same():
    """A loud direction that says nothing about who it is no longer decides who is alike."""
    identity = draw(40, 16)
    same = torch.arange(40).repeat_interleave(6)
    loud = torch.zeros(16)
    loud[0] = 8.0
    x = identity[same] + draw(240, 1, seed=2) * loud + 0.1 * draw(240, 16, seed=3)

    def right(dentate: DentateGyrus) -> float:
        code = dentate(x)
        first, second = code[::6], code[1::6]
        return float(((second @ first.T).argmax(1) == torch.arange(40)).float().mean())

    plain, fitted = DentateGyrus(16, 1000, 100, 16), DentateGyrus(16, 1000, 100, 16)
    fitted.fit(x, same)
    assert right(plain) < 0.5 and right(fitted) > 0.9
    assert torch.allclose(fitted.mean, x.mean(0), atol=1e-5)


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_a_part_of_a_pattern_completes_to_the_whole(share):
    codes = torch.nn.functional.normalize(draw(300, 128), dim=1)
    patterns = store(codes, torch.eye(300))
    kept = torch.zeros(128)
    kept[: int(128 * share)] = 1.0
    found = recall(codes * kept, patterns, beta=60.0, rounds=2)
    assert (found.value.argmax(1) == torch.arange(300)).float().mean() > 0.98
    good = found.value.argmax(1) == torch.arange(300)
    assert float((found.completed[good] * codes[good]).sum(1).mean()) > 0.95
    assert torch.allclose(found.shares.sum(-1), torch.ones(300), atol=1e-5)


def test_one_pattern_added_leaves_the_others_recalled_and_is_found_at_once():
    codes = draw(50, 64)
    values = torch.arange(50.0).unsqueeze(1)
    before = store(codes[:49], values[:49])
    after = store(codes[49:], values[49:], before)
    assert torch.equal(after.codes[:49], before.codes) and len(before.codes) == 49
    found = recall(codes, after, beta=100.0)
    assert torch.allclose(found.value, values, atol=0.05)


def test_what_was_never_stored_is_new_and_an_empty_memory_knows_nothing():
    codes = draw(60, 96)
    patterns = store(codes[:30], torch.eye(30))
    known, new = recall(codes[:30], patterns, 50.0).novelty, recall(codes[30:], patterns, 50.0).novelty
    assert float(known.max()) < 0.05 < 0.3 < float(new.min())
    empty = recall(codes, store(torch.zeros(0, 96), torch.zeros(0, 7)))
    assert not empty.value.any() and empty.value.shape == (60, 7) and (empty.novelty == 1).all()


def test_recall_is_the_formula():
    codes = torch.nn.functional.normalize(draw(5, 8).double(), dim=1)
    cue = torch.nn.functional.normalize(draw(8, seed=1).double(), dim=0)
    found = recall(cue, store(codes, torch.eye(5).double()), beta=3.0, rounds=2)
    state = cue
    for _ in range(2):
        score = torch.tensor([3.0 * float(row @ state) for row in codes], dtype=torch.float64).exp()
        shares = score / score.sum()
        state = sum(p * row for p, row in zip(shares, codes, strict=True))
        state = state / state.norm()
    assert torch.allclose(found.shares, shares, atol=1e-9) and torch.allclose(found.completed, state, atol=1e-9)
    assert float(found.novelty) == pytest.approx(1 - max(0.0, float(cue @ state)), abs=1e-9)


def test_what_they_refuse():
    with pytest.raises(UsageError, match=r"active: got 11, expected 1 to 10.\nActivate some"):
        DentateGyrus(4, 10, 11, 2)
    with pytest.raises(UsageError, match=r"fan_in: got 5, expected 1 to 4.\nConnect"):
        DentateGyrus(4, 10, 2, 5)
    with pytest.raises(UsageError, match=r"fit: got no two inputs that ought to be the same.\nGive each number"):
        DentateGyrus(4, 10, 2, 2).fit(draw(3, 4), torch.arange(3))
    patterns = store(draw(3, 4), torch.eye(3))
    with pytest.raises(UsageError, match=r"store: got codes \[2, 4\] and values \[3, 3\], expected.*\nGive one value"):
        store(draw(2, 4), torch.eye(3))
    with pytest.raises(UsageError, match=r"store: got widths 5 and 3, expected 4 and 3 as stored.\nUse the code"):
        store(draw(3, 5), torch.eye(3), patterns)
    with pytest.raises(UsageError, match=r"recall: got cues of width 5, expected 4.\nUse the code"):
        recall(draw(5), patterns)
    with pytest.raises(UsageError, match=r"recall: got 0 rounds and beta 16.0, expected 1 or more.*\nRaise them"):
        recall(draw(4), patterns, rounds=0)
