"""Laws of remembering on purpose: once each, in any number of sittings the same, and forgotten as if never read."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from neuro import memory_file, recall, remember
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
    Item("The bridge was closed in the year of the storm, and opened again when the keeper had counted it.", "news"),
]


@pytest.fixture(params=["three-factor", "delta"])
def brain(request, tiny_brain) -> Brain:
    tokenizer = Tokenizer.train([item.text for item in ITEMS] * 10, 300)
    sets = [f"vocab_size={tokenizer.vocab_size}", f"procedural.rule={request.param}"]
    made = tiny_brain(sets).eval()
    made.tokenizer = tokenizer
    return made


@pytest.fixture
def remembering(brain) -> Callable[..., Memory]:
    def make(items: list[Item]) -> Memory:
        memory = Memory(brain)
        assert all(remember.read(memory, items))
        return memory

    return make


def file_of(memory: Memory, path) -> bytes:
    memory_file.save(path, memory.brain, memory.state, memory.transcript)
    return path.read_bytes()


@pytest.mark.parametrize("chosen", [{0}, {3}, {1, 2}, {0, 1, 2, 3}, set()])
def test_what_is_forgotten_was_never_read(remembering, chosen, tmp_path):
    memory = remembering(ITEMS)
    before = file_of(memory, tmp_path / "before")
    kept = remember.forget(memory, chosen)
    never = remembering([item for number, item in enumerate(ITEMS) if number not in chosen])
    assert file_of(kept, tmp_path / "kept") == file_of(never, tmp_path / "never")
    for (path, a), (_, b) in zip(leaves(kept.state), leaves(never.state), strict=True):
        assert torch.equal(a, b), path
    assert file_of(memory, tmp_path / "before") == before, "what was given is left as it was"
    cue = torch.tensor([[memory.brain.tokenizer.bos_id, *memory.brain.tokenizer.encode("The keeper of the lamp")]])
    said = [Session(memory.brain, m.state).feed(cue) for m in (memory, kept, never)]
    assert torch.equal(said[1], said[2])
    assert torch.equal(said[0], said[1]) == (not chosen)


def test_several_sittings_are_one(remembering, brain, tmp_path):
    whole = file_of(remembering(ITEMS), tmp_path / "whole")
    path = tmp_path / "parts"
    for sitting in (ITEMS[:1], ITEMS[:3], ITEMS):  # each begins again from the first item, as the same command would
        memory = Memory(brain, *memory_file.open_or_new(path, brain, brain.init_state(1)))
        list(remember.read(memory, sitting))
        memory_file.save(path, brain, memory.state, memory.transcript)
    assert path.read_bytes() == whole


def test_the_same_item_is_read_once(remembering, brain, tmp_path):
    memory = Memory(brain)
    assert (
        list(remember.read(memory, [*ITEMS, ITEMS[1], ITEMS[0]._replace(source="elsewhere")]))
        == [True] * 4 + [False] * 2
    )
    assert list(remember.read(memory, ITEMS)) == [False] * 4
    assert file_of(memory, tmp_path / "a") == file_of(remembering(ITEMS), tmp_path / "b")


class _StopsAt:
    """An observer that is interrupted in the second span of what is read."""

    def __init__(self) -> None:
        self.spans = 0

    def span(self, events, commit) -> None:
        self.spans += 1
        if self.spans == 2:
            raise KeyboardInterrupt


def test_half_an_item_is_not_remembered(remembering, brain, tmp_path):
    first = remembering(ITEMS[:1])
    before = file_of(first, tmp_path / "before")
    long = Item(" ".join(item.text for item in ITEMS), "long")
    with pytest.raises(KeyboardInterrupt):
        list(remember.read(first, [long], observers=[_StopsAt()]))
    assert file_of(first, tmp_path / "after") == before


def test_what_one_run_read_and_wrote_is_one_item_of_two_sources(remembering, brain):
    memory = remembering(ITEMS[:2])
    memory.transcript.begin()
    session = Session(brain, memory.state, transcript=memory.transcript)
    session.feed(torch.tensor([[brain.tokenizer.bos_id, 9, 8, 7]]))
    for token in (5, 6):
        session.feed(torch.tensor([[token]]), source="written")
    session.reset(keep_memories=True)
    memory.state = session.state
    assert memory.transcript.parts(memory.transcript.items()[2]) == [
        ("prompt", [brain.tokenizer.bos_id, 9, 8, 7]), ("written", [5, 6]),
    ]  # fmt: skip
    kept = remember.forget(memory, {0})
    assert [kept.transcript.source(item.start) for item in kept.transcript.items()] == ["places.txt", "prompt"]
    assert kept.transcript.ids[-2:] == [5, 6] and kept.transcript.source(len(kept.transcript.ids) - 1) == "written"


def test_search_shares_out_what_is_recalled_and_changes_nothing(remembering, tmp_path):
    memory = remembering(ITEMS)
    before = file_of(memory, tmp_path / "before")
    query = "The keeper of"
    ids = [memory.brain.tokenizer.bos_id, *memory.brain.tokenizer.encode(query)]
    assert len(ids) < memory.brain.config.plasticity_span  # in its first span it recalls nothing of itself
    found = remember.search(memory, query)
    assert sorted(number for number, _ in found) == [0, 1, 2, 3]
    assert [much for _, much in found] == sorted((much for _, much in found), reverse=True)
    let_in = recall.read(memory.brain, memory.state, ids).gate.sum()
    assert sum(much for _, much in found) == pytest.approx(let_in, rel=1e-5)
    assert file_of(memory, tmp_path / "before") == before
    assert remember.search(Memory(memory.brain), "The keeper") == []


def test_an_items_share_of_the_slots_is_counted(remembering, brain):
    memory = remembering(ITEMS)
    held = memory.held()
    filled = int((memory.state.regions.hippocampus.strengths > 0).sum())
    assert sum(held) == filled > 0 and len(held) == 4
    assert all(count < len(item) for count, item in zip(held, memory.transcript.items(), strict=True))


def test_mistakes_are_named(remembering, tiny_brain):
    memory = remembering(ITEMS[:2])
    with pytest.raises(UsageError, match="there is no item 2, expected 0 to 1"):
        remember.forget(memory, {2})
    with pytest.raises(UsageError, match="there is no item 0: nothing has been read"):
        remember.forget(Memory(memory.brain), {0})
    with pytest.raises(UsageError, match="got an empty text"):
        remember.search(memory, " ")
    with pytest.raises(UsageError, match="this brain has none"):
        Memory(tiny_brain(["hippocampus.enabled=false", "procedural.enabled=false"]))
    habits = tiny_brain(["hippocampus.enabled=false"])
    with pytest.raises(UsageError, match="no episodic memory"):
        remember.search(Memory(habits), "x")
    assert Memory(habits).held() == []


def test_the_texts_are_in_the_file_until_they_are_forgotten(remembering, brain, tmp_path):
    memory = remembering(ITEMS)
    ids = torch.tensor(brain.tokenizer.encode(ITEMS[3].text), dtype=torch.int32).numpy().tobytes()
    assert ids in file_of(memory, tmp_path / "m")
    kept = remember.forget(memory, {3})
    assert ids[:16] not in file_of(kept, tmp_path / "m") and b"news" not in (tmp_path / "m").read_bytes()
    assert contents.held(kept.state)["position"] == len(kept.transcript.ids)


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield
