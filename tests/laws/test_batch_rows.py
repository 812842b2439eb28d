"""Law: the rows of a batch are strangers. Left padding, company and place in the batch change nothing in a row."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from backends import native, portable
from neuro.errors import UsageError
from neuro.state import leaves, select_rows

BOUND_64 = 1e-9


def row_distance(a, i: int, b, j: int) -> float:
    """The largest difference between row i of one trace and row j of another: logits, state, events of commits."""
    worst = a.gap(a.logits[i], b.logits[j])
    pairs = [(x, y) for (_, x), (_, y) in zip(leaves(a.state), leaves(b.state), strict=True)]
    for mine, other in zip(a.commits, b.commits, strict=True):
        pairs += zip(mine, other, strict=True)
    return max(worst, *(a.gap(x[i], y[j]) if x.dim() else a.gap(x, y) for x, y in pairs))


@pytest.mark.parametrize("ops", [native, portable], ids=["native", "portable"])
def test_changing_one_row_changes_no_other_row(toggles, ops, tiny_brain, drive, tokens):
    brain, ids = tiny_brain(toggles, ops=ops.OPS), tokens(3, 44)
    other = ids.clone()
    other[1] = (ids[1] + 1 + tokens(1, 44, seed=1, vocab_size=298)[0]) % 300
    prosody = torch.zeros(3, 44, 3)
    louder = prosody.clone()
    louder[1] = 2.0
    a, b = drive(brain, ids, prosody=prosody), drive(brain, other, prosody=louder)
    for row in (0, 2):
        assert row_distance(a, row, b, row) == 0.0  # bit for bit
        assert torch.equal(a.spikes[row], b.spikes[row])
    assert row_distance(a, 1, b, 1) > 1e-3


def test_a_row_equals_a_batch_of_one_wherever_it_sits(toggles, tiny_brain, drive, tokens, measured):
    brain, ids = tiny_brain(toggles, dtype=torch.float64), tokens(4, 44)
    together, worst = drive(brain, ids), 0.0
    turned = drive(brain, ids[[2, 0, 3, 1]])
    for row in range(4):
        alone = drive(brain, ids[row : row + 1])
        worst = max(worst, row_distance(together, row, alone, 0))
        worst = max(worst, row_distance(together, row, turned, [2, 0, 3, 1].index(row)))
        assert torch.equal(together.spikes[row], alone.spikes[0])
    measured("max_difference", worst)
    assert worst <= BOUND_64


def test_a_row_equals_a_batch_of_one_in_float32(tiny_brain, drive, tokens, measured):
    brain, ids = tiny_brain(), tokens(4, 44)
    together = drive(brain, ids)
    worst = max(together.gap(together.logits[i], drive(brain, ids[i : i + 1]).logits[0]) for i in range(4))
    measured("max_difference", worst)
    assert worst <= 1e-4


def padded(ids: list[Tensor], width: int) -> tuple[Tensor, Tensor]:
    """Rows of unequal length to [B, width] with rubbish on the left, and what is real."""
    rubbish = torch.randint(0, 300, (len(ids), width), generator=torch.Generator().manual_seed(7))
    valid = torch.zeros(len(ids), width)
    for row, real in enumerate(ids):
        rubbish[row, width - len(real) :] = real
        valid[row, width - len(real) :] = 1
    return rubbish, valid


@pytest.mark.parametrize("ops", [native, portable], ids=["native", "portable"])
def test_left_padding_changes_nothing(toggles, ops, tiny_brain, drive, tokens, measured):
    """Pads of 0, 3, 15 (one real token in the first span) and 20 (a whole span of padding), over three commits.

    The row without padding commits where the padded row does: after the same real tokens.
    """
    brain, worst = tiny_brain(toggles, ops=ops.OPS, dtype=torch.float64), 0.0
    width, pads = 55, (0, 3, 15, 20)
    rows = [tokens(1, width - pad, seed=pad)[0] for pad in pads]
    ids, valid = padded(rows, width)
    batch = drive(brain, ids, valid=valid.double())
    for row, pad in enumerate(pads):
        boundaries = [stop - pad for stop in (16, 32, 48) if stop > pad]
        alone = drive(brain, rows[row][None], commits=boundaries)
        assert len(alone.commits) == len(boundaries)
        worst = max(worst, batch.gap(batch.logits[row, pad:], alone.logits[0]))
        for name in ("surprise", "salience", "novelty", "affect", "spikes"):
            worst = max(worst, batch.gap(batch.events[name][row, pad:], alone.events[name][0]))
        for name in ("writes", "evictions", "filled", "modulators", "surprise", "novelty", "spike_rate"):
            mine, other = getattr(batch.commits[-1], name)[row], getattr(alone.commits[-1], name)[0]
            worst = max(worst, batch.gap(mine, other))
    measured("max_difference", worst)
    assert worst <= BOUND_64


def test_padding_itself_leaves_no_trace(toggles, tiny_brain, drive, tokens):
    """A row of nothing but padding, through a commit, is a fresh stream; it spikes not at all and writes nothing."""
    brain = tiny_brain(toggles, dtype=torch.float64)
    fresh = brain.init_state(2)
    valid = torch.tensor([[0.0], [1.0]], dtype=torch.float64).expand(2, 16)
    after = drive(brain, tokens(2, 16), valid=valid)
    assert not after.spikes[0].any() and not after.surprise[0].any()
    assert int(after.commits[0].writes[0]) == int(after.commits[0].filled[0]) == 0
    for (name, x), (_, y) in zip(leaves(after.state), leaves(fresh), strict=True):
        # What the row would predict next, and the window's keys and values behind the mask, may differ.
        if x.dim() and name != "logits" and not name.endswith(("last_key", "mixer.keys", "mixer.values")):
            assert torch.equal(x[0], y[0]), name


def test_the_kind_of_valid_does_not_matter(tiny_brain, drive, tokens):
    """An attention mask comes as int64 or bool."""
    brain, (ids, valid) = tiny_brain(), padded(list(tokens(1, 20)) + list(tokens(1, 13)), 20)
    base = drive(brain, ids, valid=valid)
    for kind in (torch.int64, torch.bool):
        other = drive(brain, ids, valid=valid.to(kind))
        assert torch.equal(base.logits, other.logits)
        assert all(x.dtype == y.dtype for (_, x), (_, y) in zip(leaves(base.state), leaves(other.state), strict=True))


@pytest.mark.parametrize("where", ["middle", "right", "after what was fed before"])
def test_padding_that_is_not_on_the_left_is_refused(where, tiny_brain, drive, tokens):
    brain, valid = tiny_brain(), torch.ones(2, 6)
    state = drive(brain, tokens(2, 3)).state if where.startswith("after") else brain.init_state(2)
    valid[1, {"middle": 2, "right": 5}.get(where, 0)] = 0
    with pytest.raises(
        UsageError, match="scan: got padding after a real token, expected padding only before .*\nPad on"
    ):
        brain.scan(tokens(2, 6), state, valid=valid)


def test_inputs_of_the_wrong_shape_are_refused(tiny_brain, tokens):
    brain = tiny_brain()
    state = brain.init_state(2)
    cases = [
        (
            dict(tokens=tokens(2, 4).float()),
            r"scan: got torch.float32 of shape \[2, 4\], expected int64 \[batch, tokens\]",
        ),
        (dict(tokens=tokens(2, 4)[0]), r"got torch.int64 of shape \[4\]"),
        (dict(tokens=tokens(2, 4)[:, :0]), "got no tokens, expected at least one"),
        (dict(tokens=tokens(3, 4)), "got batch 3, expected 2 as in the state"),
        (dict(tokens=tokens(2, 17)), "got 17 tokens, expected at most 16 before the span ends"),
        (dict(tokens=tokens(2, 4) - 300), r"got ids -\d+..-\d+, expected 0..299"),
        (dict(tokens=tokens(2, 4) + 300), r"got ids 3\d\d..\d+, expected 0..299"),
        (
            dict(tokens=tokens(2, 4), prosody=torch.zeros(2, 4, 2)),
            r"got prosody of shape \[2, 4, 2\], expected \[2, 4, 3\]",
        ),
        (dict(tokens=tokens(2, 4), valid=torch.ones(2, 3)), r"got valid of shape \[2, 3\], expected \[2, 4\]"),
    ]
    for inputs, message in cases:
        with pytest.raises(UsageError, match=message) as error:
            brain.scan(state=state, **inputs)
        assert error.value.exit_code == 2 and len(str(error.value).split("\n")) == 2
    with pytest.raises(UsageError, match="step: got tokens of shape"):
        brain.step(tokens(2, 4), state)
    with pytest.raises(UsageError, match="init_state: got batch 0"):
        brain.init_state(0)


def test_ids_are_checked_on_scatter_free_backends_too(tiny_brain, tokens):
    brain = tiny_brain(ops=portable.OPS)
    brain.backend = dataclasses.replace(brain.backend, scatter_free=True)
    with pytest.raises(UsageError, match="expected 0..299"):
        brain.scan(tokens(2, 4) + 300, brain.init_state(2))


def test_rows_selected_from_a_state_go_on_as_themselves(tiny_brain, drive, tokens):
    brain, ids = tiny_brain(dtype=torch.float64), tokens(3, 40)
    whole = drive(brain, ids)
    half = drive(brain, ids[:, :23])
    picked = select_rows(half.state, torch.tensor([2, 2, 0]))
    after = drive(brain, ids[[2, 2, 0], 23:], picked)
    for place, row in enumerate((2, 2, 0)):
        assert after.gap(after.logits[place], whole.logits[row, 23:]) <= BOUND_64


def test_the_law_can_fail(tiny_brain, drive, tokens, monkeypatch):
    """A normalisation over the batch is caught."""
    brain, ids = tiny_brain(), tokens(3, 44)
    norm = brain.regions["readout"].norm
    forward = norm.forward
    monkeypatch.setattr(norm, "forward", lambda x: forward(x) + 1e-3 * x.mean(0, keepdim=True))
    other = ids.clone()
    other[1] = (ids[1] + 1) % 300
    assert row_distance(drive(brain, ids), 0, drive(brain, other), 0) > 0.0
