"""Event boundaries: where surprise rises above what it has been."""

from __future__ import annotations

import math

import pytest
import torch

from backends import portable, reference
from neuro.errors import UsageError
from neuro.memory.segments import Segments

SURPRISE = torch.rand(3, 90, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 4.0


@pytest.fixture(params=[reference.OPS, portable.OPS], ids=["reference", "portable"])
def segments(request) -> Segments:
    return Segments(2.0, 12.0, 0.7, request.param)


def test_a_scan_is_the_formula_token_by_token_wherever_it_is_cut(segments):
    expected = torch.zeros_like(SURPRISE)
    for row, values in enumerate(SURPRISE.tolist()):
        now, weight, f, f2, usual, above = 0.0, 0.0, 0.0, 0.0, 0.0, False
        for t, value in enumerate(values):
            now, weight = now * 2 ** (-1 / 2) + value, weight * 2 ** (-1 / 2) + 1.0
            mean, was = now / weight, above
            above = False
            if usual * (1 - 2 ** (-1 / 12)) >= 0.5:
                above = mean > f / usual + 0.7 * math.sqrt(max(f2 / usual - (f / usual) ** 2, 1e-9))
            expected[row, t] = above and not was
            f, f2, usual = (2 ** (-1 / 12) * old + new for old, new in ((f, mean), (f2, mean * mean), (usual, 1.0)))
    assert expected.sum() > 6 and not expected[:, :12].any()
    state = segments.init_state(3)
    state = type(state)(*(part.double() for part in state))
    whole, end = segments.scan(SURPRISE, state)
    assert torch.equal(whole, expected)
    parts = []
    for part in SURPRISE.split([1, 40, 7, 42], 1):
        begun, state = segments.scan(part, state)
        parts.append(begun)
    assert torch.equal(torch.cat(parts, 1), expected)
    assert all(torch.allclose(a, b) for a, b in zip(state, end, strict=True))


def test_a_step_in_surprise_is_one_boundary_and_the_next_text_is_another(segments):
    surprise = 2.0 + 0.2 * torch.rand(1, 120, generator=torch.Generator().manual_seed(1))
    surprise[:, 60:75] += 4.0
    begun, _ = Segments(2.0, 30.0, 4.0, segments.ops).scan(surprise, segments.init_state(1))
    assert begun.nonzero()[:, 1].tolist() == [60]


def test_what_is_no_token_lets_no_time_pass_before_the_first_or_after_the_last(segments):
    """A span that is cut short leaves its buffer's last places empty: the next one goes on as if they were not there."""
    state = segments.init_state(3)
    state = type(state)(*(part.double() for part in state))
    whole, end = segments.scan(SURPRISE, state)
    parts = []
    for part in SURPRISE.split([13, 30, 17, 30], 1):
        length = part.shape[1]
        valid = torch.nn.functional.pad(torch.ones_like(part), (0, 6))
        begun, state = segments.scan(torch.nn.functional.pad(part, (0, 6), value=9.0), state, valid)
        assert not begun[:, length:].any()
        parts.append(begun[:, :length])
    assert torch.equal(torch.cat(parts, 1), whole)
    assert all(torch.allclose(a, b) for a, b in zip(state, end, strict=True))
    first = torch.nn.functional.pad(torch.ones_like(SURPRISE), (6, 0))
    start = type(end)(*(torch.zeros_like(part) for part in end))
    begun, state = segments.scan(torch.nn.functional.pad(SURPRISE, (6, 0), value=9.0), start, first)
    assert torch.equal(begun[:, 6:], whole) and not begun[:, :6].any()
    assert all(torch.allclose(a, b) for a, b in zip(state, end, strict=True))


def test_half_lives_that_do_not_grow_are_refused():
    with pytest.raises(UsageError, match="segments: got half-lives 8 and 4, expected 0 < fast < slow"):
        Segments(8.0, 4.0, 1.0, portable.OPS)
