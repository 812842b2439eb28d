"""Law: with ``rebind`` a key has one value, the newest, in one slot, whatever else is written; without it nothing changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from backends import native, portable, reference
from neuro.memory.episodic import EpisodicMemory, Pairs
from neuro.state import HippocampusState

TABLES = {"native": native.OPS, "portable": portable.OPS, "reference": reference.OPS}
SLOTS, WRITES, SPAN = 7, 3, 5


@pytest.fixture(params=list(TABLES))
def memory(request) -> EpisodicMemory:
    made = EpisodicMemory(width=2, top_k=2, writes=WRITES, half_life_tokens=1e9, ops=TABLES[request.param], rebind=True)
    return made.double().requires_grad_(False)


def empty() -> tuple[Tensor, Tensor, Tensor]:
    return torch.zeros(1, SLOTS, 12).double(), torch.zeros(1, SLOTS, 2).double(), torch.zeros(1, SLOTS).double()


def pairs_of(names: list[int], numbers: list[float], priority: list[float] | None = None) -> Pairs:
    """Pairs with the axis ``names`` as keys; each value holds its number."""
    keys = torch.eye(12).double()[names].unsqueeze(0)
    values = torch.tensor(numbers).double().reshape(1, -1, 1).expand(1, -1, 2)
    first = priority or [1.0 - 0.01 * i for i in range(len(names))]
    one = torch.ones(1, len(names)).double()
    return Pairs(keys, values, one, one, torch.tensor([first]).double())


def write(memory: EpisodicMemory, keys: Tensor, values: Tensor, strengths: Tensor, pairs: Pairs, tokens: Tensor):
    """(keys, values, strengths, writes, evictions): what a commit makes of a store whose provenance nobody asks for."""
    none = torch.zeros_like(strengths)
    rest = (none[:, 0], keys[:, 0], none[:, 0], values[:, 0], none[:, 0])
    store, *counts = memory.write(HippocampusState(keys, values, strengths, none, *rest), pairs, tokens)
    return *store[:3], *counts


def held(keys: Tensor, values: Tensor, strengths: Tensor) -> dict[int, float]:
    """Key -> value of the filled slots; a key may lie in one slot only."""
    names = [int(keys[0, m].argmax()) for m in range(SLOTS) if strengths[0, m] > 0]
    assert len(names) == len(set(names)), "a key lies in two slots"
    return {int(keys[0, m].argmax()): float(values[0, m, 0]) for m in range(SLOTS) if strengths[0, m] > 0}


def test_a_stored_key_keeps_its_slot_and_takes_the_new_value(memory):
    store = write(memory, *empty(), pairs_of([3, 4, 5], [1.0, 2.0, 3.0]), torch.zeros(1))[:3]
    keys, values, strengths, writes, evictions = write(memory, *store, pairs_of([4], [9.0]), torch.zeros(1))
    assert held(keys, values, strengths) == {3: 1.0, 4: 9.0, 5: 3.0}
    assert torch.equal(keys, store[0]) and (int(writes), int(evictions)) == (1, 1)


def test_of_equal_keys_in_a_span_the_newest_is_written_whatever_their_priority(memory):
    pairs = pairs_of([3, 4, 3], [1.0, 2.0, 3.0], priority=[0.9, 0.5, 0.1])
    *store, writes, _ = write(memory, *empty(), pairs, torch.zeros(1))
    assert held(*store) == {3: 3.0, 4: 2.0} and int(writes) == 2
    # Also where the key is stored already.
    *store, writes, evictions = write(memory, *store, pairs_of([3, 3, 6], [7.0, 8.0, 9.0]), torch.zeros(1))
    assert held(*store) == {3: 8.0, 4: 2.0, 6: 9.0} and (int(writes), int(evictions)) == (2, 1)


def test_two_keys_that_are_near_one_slot_but_not_each_other_do_not_share_it(memory):
    store = write(memory, *empty(), pairs_of([0], [1.0]), torch.zeros(1))[:3]
    lean = torch.zeros(2, 12).double()
    lean[:, 0], lean[0, 1], lean[1, 1] = 0.96, 0.28, -0.28  # 0.96 to the slot, 0.84 to each other
    pairs = pairs_of([0, 0], [5.0, 6.0])._replace(keys=lean.unsqueeze(0))
    _keys, values, strengths, writes, _ = write(memory, *store, pairs, torch.zeros(1))
    assert int(writes) == 1 and values[0, strengths[0] > 0, 0].tolist() == [6.0]


def test_a_key_that_is_only_similar_takes_a_slot_of_its_own(memory):
    store = write(memory, *empty(), pairs_of([0], [1.0]), torch.zeros(1))[:3]
    near = torch.zeros(1, 12).double()
    near[0, 0], near[0, 1] = 0.9, 0.19**0.5
    after = write(memory, *store, pairs_of([1], [2.0])._replace(keys=near.unsqueeze(0)), torch.zeros(1))
    assert sorted(after[1][0, after[2][0] > 0, 0].tolist()) == [1.0, 2.0]


def test_a_pair_without_priority_neither_writes_nor_hides_an_older_one(memory):
    *store, writes, _ = write(memory, *empty(), pairs_of([3, 3], [1.0, 2.0], priority=[0.5, 0.0]), torch.zeros(1))
    assert held(*store) == {3: 1.0} and int(writes) == 1


@pytest.mark.parametrize("seed", range(4))
def test_many_commits_equal_a_dictionary(memory, seed):
    """As long as no more keys come than there are slots, the memory is a dictionary, bit for bit."""
    generator, plain, store = torch.Generator().manual_seed(seed), {}, empty()
    for commit in range(12):
        names = torch.randint(0, SLOTS, (WRITES,), generator=generator).tolist()
        numbers = [float(10 * commit + i) for i in range(WRITES)]
        order = torch.rand(WRITES, generator=generator).add(0.1).tolist()
        *store, _, _ = write(memory, *store, pairs_of(names, numbers, order), torch.ones(1))
        plain |= dict(zip(names, numbers, strict=True))
        assert held(*store) == plain


@pytest.mark.parametrize("seed", range(4))
def test_a_full_store_loses_the_weakest_and_never_what_was_just_bound(memory, seed):
    generator, store = torch.Generator().manual_seed(seed), empty()
    for commit in range(20):
        names = torch.randperm(12, generator=generator)[:WRITES].tolist()
        strengths = torch.rand(1, WRITES, generator=generator).double() + 0.1
        pairs = pairs_of(names, [float(commit)] * WRITES)._replace(strengths=strengths)
        before = held(*store)
        *store, writes, _ = write(memory, *store, pairs, torch.zeros(1))
        after = held(*store)
        assert int(writes) == WRITES and all(after[name] == float(commit) for name in names)
        assert len(after) == min(SLOTS, len(before.keys() | set(names)))


def test_the_newest_binding_is_recalled(tiny_brain, tokens):
    """A whole brain without a cortex, whose key is the token alone: of two values of a token the later is in the store."""
    brain = tiny_brain(["hippocampus.rebind=true", "cortex.enabled=false", "endocrine.enabled=false"])
    ids = tokens(1, 16)
    ids[0, 2], ids[0, 9] = 7, 7
    ids[0, [i for i in range(16) if i not in (2, 9)]] = torch.arange(100, 114)
    with torch.no_grad():
        out = brain.scan(ids, brain.init_state(1))
        memory = brain.commit(out.state)[0].regions.hippocampus
        buffer = out.state.buffer
        match = (memory.keys[0] @ buffer.keys[0, 10] > 0.95) & (memory.strengths[0] > 0)
        assert int(match.sum()) == 1
        assert torch.equal(memory.values[0, match][0], buffer.values[0, 10])
