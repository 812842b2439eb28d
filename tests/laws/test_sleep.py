"""Laws of sleep: replayed from the store alone, the same every time, and what is forgotten was never dreamt of."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from neuro import memory_file, remember
from neuro import sleep as sleeping
from neuro.brain import Brain
from neuro.errors import UsageError
from neuro.items import Item
from neuro.memory import contents
from neuro.remember import Memory
from neuro.session import Session
from neuro.state import leaves
from neuro.tokenizer import Tokenizer

ITEMS = [
    Item("The keeper of the lamp is called Victor.", "people.csv:1"),
    Item("The harbour lies under the old tower, and the tide turns twice a day.", "places.txt"),
    Item("Nobody knows the colour of the old boat.", "people.csv:2"),
]


@pytest.fixture(params=["three-factor", "delta"])
def brain(request, tiny_brain) -> Brain:
    tokenizer = Tokenizer.train([item.text for item in ITEMS] * 10, 300)
    sets = [f"vocab_size={tokenizer.vocab_size}", f"procedural.rule={request.param}", "hippocampus.slots=256"]
    made = tiny_brain(sets).eval()
    made.tokenizer = tokenizer
    return made


@pytest.fixture
def slept(brain) -> Callable[..., Memory]:
    """A memory that read two items, slept two rounds, read the others and slept once more."""

    def make(items: list[Item], before: int = 2) -> Memory:
        memory = Memory(brain)
        for part, rounds in ((items[:before], 2), (items[before:], 1)):
            assert all(remember.read(memory, part))
            if memory.transcript.ids:
                remember.sleep(memory, rounds)
        return memory

    return make


def file_of(memory: Memory, path) -> bytes:
    memory_file.save(path, memory.brain, memory.state, memory.transcript)
    return path.read_bytes()


@pytest.mark.parametrize("chosen", [{0}, {1}, {2}, {0, 1}, {0, 1, 2}])
def test_what_is_forgotten_was_never_dreamt_of(slept, brain, chosen, tmp_path):
    memory = slept(ITEMS)
    memory_file.save(tmp_path / "m", brain, memory.state, memory.transcript)
    loaded = Memory(brain, *memory_file.load(tmp_path / "m", brain, brain.init_state(1)))
    kept = remember.forget(loaded, chosen)
    stay = [number for number in range(3) if number not in chosen]
    never = slept([ITEMS[number] for number in stay], sum(number < 2 for number in stay))
    assert file_of(kept, tmp_path / "kept") == file_of(never, tmp_path / "never")
    for (path, a), (_, b) in zip(leaves(kept.state), leaves(never.state), strict=True):
        assert torch.equal(a, b), path


def test_forgetting_nothing_sleeps_as_before(slept, tmp_path):
    memory = slept(ITEMS)
    assert memory.transcript.sleeps == [(memory.transcript.items()[1].stop, 2), (len(memory.transcript.ids), 1)]
    assert file_of(remember.forget(memory, ()), tmp_path / "again") == file_of(memory, tmp_path / "first")


def test_the_store_alone_says_which_tokens_are_replayed(brain):
    memory = Memory(brain)
    assert all(remember.read(memory, ITEMS))
    held = memory.state.regions.hippocampus
    filled = held.strengths[0] > 0
    found = sleeping.tokens_of(brain, held.values[0][filled])
    assert found.tolist() == [memory.transcript.ids[int(n)] for n in held.origins[0][filled]]


def test_sleep_moves_the_memories_and_nothing_else(brain):
    memory = Memory(brain)
    assert all(remember.read(memory, ITEMS))
    before = [(path, leaf.clone()) for path, leaf in leaves(memory.state)]
    after, report = sleeping.sleep(brain, memory.state, 2)
    again, _ = sleeping.sleep(brain, memory.state, 2)
    allowed = {"keys", "values", "strengths", "origins", "fast", "last_step"}
    moved = set()
    for (path, old), (_, given), (_, new), (_, same) in zip(
        before, leaves(memory.state), leaves(after), leaves(again), strict=True
    ):
        assert torch.equal(old, given), "what was given is left as it was"
        assert torch.equal(new, same), "the same sleep every time"
        if not torch.equal(old, new):
            moved.add(path.rsplit(".", 1)[1])
    assert "fast" in moved and moved <= allowed
    assert report.replayed_tokens > 0 and len(report.surprise) == 2


def test_what_is_replayed_is_learned_by_the_habits_alone(brain):
    """Every round starts from less surprise, and then the fast weights alone expect the items more."""
    memory = Memory(brain)
    assert all(remember.read(memory, ITEMS))
    after, report = sleeping.sleep(brain, memory.state, 4)
    assert report.surprise == sorted(report.surprise, reverse=True) and report.surprise[-1] < report.surprise[0]
    ids = torch.tensor([brain.tokenizer.encode(ITEMS[1].text)])[:, : brain.config.plasticity_span]

    def cost(state) -> float:
        fresh = contents.put(brain.init_state(1), contents.held(state))
        return float(brain.scan(ids, contents.emptied(fresh, "episodic")).aux.surprise.mean())

    assert cost(after) < cost(memory.state)


def test_a_store_that_says_the_same_twice_has_room_again(brain):
    memory = Memory(brain)
    again = [*ITEMS, *(item._replace(text=f"{item.text} ") for item in ITEMS)]
    for item in again:
        ids = [brain.tokenizer.bos_id, *brain.tokenizer.encode(item.text)]
        session = Session(brain, memory.state)
        session.feed(torch.tensor([ids]))
        session.reset(keep_memories=True)
        memory.state = session.state
    held = int((memory.state.regions.hippocampus.strengths > 0).sum())
    after, report = sleeping.sleep(brain, memory.state, 1, replays=False, strengthens=False)
    slots = after.regions.hippocampus
    assert report.merged > 0 and report.held == held - report.merged == int((slots.strengths > 0).sum())
    free = slots.strengths[0] == 0
    assert not slots.keys[0][free].any() and not slots.values[0][free].any(), "nothing is left of what was freed"


def test_mistakes_are_named(brain, tiny_brain):
    memory = Memory(brain)
    with pytest.raises(UsageError, match="nothing has been read, so there is nothing to replay"):
        remember.sleep(memory, 1)
    assert all(remember.read(memory, ITEMS[:1]))
    with pytest.raises(UsageError, match="got 0 rounds, expected at least 1"):
        remember.sleep(memory, 0)
    assert memory.transcript.sleeps == []
    with pytest.raises(UsageError, match="got 2 streams, expected one"):
        sleeping.sleep(brain, brain.init_state(2), 1)
    begun = brain.scan(torch.tensor([[1, 2, 3]]), brain.init_state(1)).state
    with pytest.raises(UsageError, match="3 tokens are not committed"):
        sleeping.sleep(brain, begun, 1)
    habits = tiny_brain(["hippocampus.enabled=false"])
    with pytest.raises(UsageError, match="this brain has no episodic memory"):
        sleeping.sleep(habits, habits.init_state(1), 1)


def test_who_has_stored_nothing_dreams_of_nothing(brain):
    state = brain.init_state(1)
    after, report = sleeping.sleep(brain, state, 1)
    assert (report.replayed_tokens, report.merged, report.strengthened, report.held) == (0, 0, 0, 0)
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(leaves(state), leaves(after), strict=True))


def test_without_habits_there_is_nobody_to_replay_to(tiny_brain):
    brain = tiny_brain(["procedural.enabled=false"]).eval()
    session = Session(brain)
    session.feed(torch.arange(1, 60).unsqueeze(0))
    session.commit()
    after, report = sleeping.sleep(brain, session.state, 1)
    assert (report.stretches, report.replayed_tokens) == (0, 0) and report.held > 0
    assert after.regions.cortex == session.state.regions.cortex


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield
