"""Time since an event in the keys of the brain: the same however tokens are cut, none of it from padding or the future."""

import pytest
import torch

import backends
from neuro.errors import UsageError
from neuro.memory.event_clock import EventClock
from neuro.state import leaves

K = 8
OPS = backends.select("cpu").ops


def stream(rows: int = 2, tokens: int = 260) -> torch.Tensor:
    """Unit keys that drift slowly, and turn at once at token 150 and, in row 1, at token 230."""
    generator = torch.Generator().manual_seed(0)
    walk = torch.randn(rows, tokens, K, generator=generator).mul(0.05).cumsum(1) + 3.0
    walk[:, 150:] += 9.0 * torch.randn(rows, 1, K, generator=generator)
    walk[1, 230:] -= 20.0 * torch.randn(K, generator=generator)
    return torch.nn.functional.normalize(walk, dim=-1)


def clock() -> EventClock:
    return EventClock(12, K, OPS)


def test_time_starts_anew_where_the_keys_turn_and_goes_on_elsewhere():
    keys, own = stream(), clock()
    elapsed = []
    state = own.init_state(2, keys.device)
    for t in range(keys.shape[1]):
        rates, state = own.scan(keys[:, t : t + 1], torch.ones(2, 1), state)
        elapsed.append(state.elapsed)
    elapsed = torch.stack(elapsed, 1)
    assert elapsed[:, 149].tolist() == [150.0, 150.0], "from the stream's beginning, with no event before"
    starts = [(row == 0).nonzero().squeeze(1).tolist() for row in elapsed]
    assert starts == [[150], [150, 230]]
    assert rates.shape == (2, 1, 12) and int(rates[0].argmax()) > int(rates[1].argmax()), "longer ago, a later cell"


def test_rates_are_the_same_however_tokens_are_cut_and_whatever_padding_lies_before():
    keys, own = stream(), clock()
    valid = torch.ones(2, 260)
    whole, end = own.scan(keys, valid, own.init_state(2, keys.device))
    state, parts = own.init_state(2, keys.device), []
    for part, live in zip(keys.split([1, 70, 88, 101], 1), valid.split([1, 70, 88, 101], 1), strict=True):
        rates, state = own.scan(part, live, state)
        parts.append(rates)
    assert (torch.cat(parts, 1) - whole).abs().max() < 1e-5
    assert all((a - b).abs().max() < 1e-4 for (_, a), (_, b) in zip(leaves(state), leaves(end), strict=True))
    padded = torch.cat([stream()[:, :9], keys], 1)  # what lies in the padding must not matter
    late, after = own.scan(padded, torch.cat([torch.zeros(2, 9), valid], 1), own.init_state(2, keys.device))
    assert (late[:, 9:] - whole).abs().max() < 1e-5 and torch.allclose(after.elapsed, end.elapsed)


def test_a_brain_begins_as_without_a_clock_and_learns_what_time_does_to_a_key(tiny_brain, tokens):
    plain, timed = tiny_brain(), tiny_brain(["hippocampus.time_cells=6"])
    timed.load_state_dict(plain.state_dict(), strict=False)
    weight = timed.regions["hippocampus"].time.weight
    ids = tokens(2, 16)
    with torch.no_grad():
        weight.zero_()
        keys = [brain.scan(ids, brain.init_state(2)).state.buffer.keys for brain in (plain, timed)]
    assert (keys[0] - keys[1]).abs().max() < 1e-6
    torch.nn.init.normal_(weight)
    out = timed.scan(ids, timed.init_state(2))
    assert (out.state.buffer.keys - keys[0]).abs().max() > 0.05
    timed.commit(out.state)[0].regions.hippocampus.keys.sum().backward()
    assert weight.grad is not None and weight.grad.abs().max() > 1e-3


def test_one_cell_is_no_clock(tiny_brain):
    with pytest.raises(UsageError) as error:
        tiny_brain(["hippocampus.time_cells=1"])
    assert "hippocampus.time_cells: got 1, expected 0 or at least 2" in error.value.what and error.value.do
