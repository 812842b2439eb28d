"""Remembering on purpose: items are read into the memories of one stream, once each, and can be forgotten for good.

    memory = remember.Memory(brain)
    remember.read(memory, [Item("The password of the vault is crimson.", "me")])
    memory = remember.forget(memory, [0])

Each item is read with fresh activity (membranes, window, recurrence) and the memories of all items before it, and committed.
So the same items in the same order give the same memories bit for bit, whether they were read in one go or in several. That
is what makes forgetting exact: fast weights cannot give back what one text added to them, so the items that stay are read
again, and the result is the memory of a stream that never met the others. Where the stream slept (`neuro.sleep`) it sleeps
again, over what is left.
"""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator

import numpy as np
import torch

from neuro import memory_file, recall
from neuro import sleep as sleeping
from neuro.brain import Brain
from neuro.errors import UsageError
from neuro.events import Observer
from neuro.items import Item
from neuro.memory import contents
from neuro.session import Session
from neuro.state import BrainState, HippocampusState
from neuro.transcript import Transcript


@dataclasses.dataclass
class Memory:
    """The memories of one stream, between two items, and the text they come from.

    Args:
        brain: whose they are; without a memory it is refused.
        state: of one stream, committed; None has read nothing.
        transcript: what that stream has read.
    """

    brain: Brain
    state: BrainState = None  # type: ignore[assignment]
    transcript: Transcript = dataclasses.field(default_factory=Transcript)

    def __post_init__(self) -> None:
        if self.state is None:
            self.state = self.brain.init_state(1)
        if not contents.held(self.state):
            raise memory_file.without_memories()

    def held(self) -> list[int]:
        """How many episodic slots hold a token of each item."""
        memory = self.state.regions.hippocampus
        if not isinstance(memory, HippocampusState):
            return [0] * len(self.transcript.items())
        origins = memory.origins[0][memory.strengths[0] > 0].cpu().numpy()
        return [int(((origins >= item.start) & (origins < item.stop)).sum()) for item in self.transcript.items()]


def read(memory: Memory, items: Iterable[Item], observers: Collection[Observer] = ()) -> Iterator[bool]:
    """Read the items in order; yields, for each, whether it was read: one that ``memory`` has read already is passed over.

    ``memory`` is as after the last whole item at every yield, and stays so when reading an item fails or is interrupted.
    """
    known = {_digest(memory.transcript.ids[item.start : item.stop]) for item in memory.transcript.items()}
    for item in items:
        ids = [memory.brain.tokenizer.bos_id, *memory.brain.tokenizer.encode(item.text)]
        new = _digest(ids) not in known
        if new:
            _read(memory, [(item.source, ids)], observers)
            known.add(_digest(ids))
        yield new


def forget(memory: Memory, chosen: Collection[int], each: Callable[[], None] = lambda: None) -> Memory:
    """The memory of a stream that read the same items without those numbered ``chosen``; ``memory`` stays as it is.

    Args:
        each: called after each item that was read again.

    Raises:
        UsageError: a number that is no item's.
    """
    items = memory.transcript.items()
    for number in chosen:
        if not 0 <= number < len(items):
            raise UsageError(
                f"memory: there is no item {number}, expected 0 to {len(items) - 1}."
                if items
                else f"memory: there is no item {number}: nothing has been read.",
                "List them with: neuro memory ls.",
            )
    kept = Memory(memory.brain)
    for number, item in enumerate(items):
        if number not in chosen:
            _read(kept, memory.transcript.parts(item), ())
            each()
        for rounds in memory.transcript.rests(item):
            if kept.transcript.ids:  # who has read nothing has nothing to dream of
                sleep(kept, rounds)
    return kept


def sleep(memory: Memory, rounds: int) -> sleeping.Report:
    """Let the stream sleep between two items, and note that it did -> what happened.

    Raises:
        UsageError: as `neuro.sleep.sleep`, or nothing has been read.
    """
    if not memory.transcript.ids:
        raise UsageError("sleep: nothing has been read, so there is nothing to replay.", "Read something first.")
    memory.state, report = sleeping.sleep(memory.brain, memory.state, rounds)
    memory.transcript.begin()  # nothing read later belongs to what was read before
    memory.transcript.sleeps.append((len(memory.transcript.ids), rounds))
    return report


def search(memory: Memory, query: str) -> list[tuple[int, float]]:
    """(item, recall) for every item that the episodic memory recalls while it reads ``query``, the most recalled first.

    Recall is the sum over the query's tokens of the gate times the item's share of the content; nothing is changed.

    Raises:
        UsageError: a brain without an episodic memory, or an empty query.
    """
    brain, items = memory.brain, memory.transcript.items()
    if not isinstance(memory.state.regions.hippocampus, HippocampusState):
        raise UsageError("search: this brain has no episodic memory.", "Use a model with brain.hippocampus.enabled.")
    if not query.strip():
        raise UsageError("search: got an empty text, expected what to look for.", "Give a query.")
    ids = [brain.tokenizer.bos_id, *brain.tokenizer.encode(query)]
    found = recall.read(brain, contents.put(brain.init_state(1), contents.held(memory.state)), ids)
    starts = [item.start for item in items]
    total: dict[int, float] = {}
    for gate, slots in zip(found.gate.tolist(), found.recalled, strict=True):
        for slot in slots:
            if slot.origin < len(memory.transcript.ids):  # later ones are the query's own
                number = bisect.bisect_right(starts, slot.origin) - 1
                total[number] = total.get(number, 0.0) + gate * slot.share
    return sorted(total.items(), key=lambda pair: (-pair[1], pair[0]))


def _digest(ids: list[int]) -> bytes:
    return hashlib.sha256(np.array(ids, dtype=np.int32).tobytes()).digest()


def _read(memory: Memory, parts: list[tuple[str, list[int]]], observers: Collection[Observer]) -> None:
    """Read one item, or nothing of it."""
    length = len(memory.transcript.ids)
    memory.transcript.begin()
    session = Session(memory.brain, memory.state, observers=list(observers), transcript=memory.transcript)
    try:
        for source, ids in parts:
            session.feed(torch.tensor([ids]), source=source)
        session.reset(keep_memories=True)
    except BaseException:
        memory.transcript.cut(length)
        raise
    memory.state = session.state
