"""What the episodic memory recalls, and why: the slots behind the last token's recall, or behind every token's of a text;
and which tokens its pointer, where it has one, predicts outright.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from neuro.brain import Brain
from neuro.errors import UsageError
from neuro.events import CommitEvents, Events
from neuro.regions.hippocampus import Hippocampus
from neuro.session import Session
from neuro.state import BrainState, HippocampusState, tree_map


@dataclasses.dataclass(frozen=True)
class Recalled:
    """One slot that was read."""

    origin: int  # which token of the stream is stored in it
    cosine: float  # of its key with the key of now
    share: float  # of the content, over all slots read
    strength: float  # what is left of it
    age_tokens: int
    same_words: float | None  # how much the words that led there are those that led here, 0 to 1; None without phrases


@torch.no_grad()
def explain(brain: Brain, state: BrainState, most: int = 5) -> list[Recalled]:
    """The ``most`` slots with the largest share in what row 0 recalls after its last token, the largest first.

    Right after a commit the token before is not held any more: the shares are then without contiguity.

    Raises:
        UsageError: a brain without a hippocampus.
    """
    memory = state.regions.hippocampus
    if not isinstance(memory, HippocampusState):
        raise UsageError("recall: this brain has no episodic memory.", "Use a model with brain.hippocampus.enabled.")
    region = brain.regions["hippocampus"]
    assert isinstance(region, Hippocampus)
    query = region.keys(memory.last_key[:1]).unsqueeze(1)
    lift = _lift(region, state)
    same = region.same_words_now(memory)
    score, cosine, chosen = region.memory.scores(query, memory.keys[:1], memory.strengths[:1], lift, same=same)
    share = (torch.softmax(score, -1) * chosen)[0, 0]
    now = int(memory.position[0]) + int(state.buffer.valid[0].sum())
    found = []
    for slot in torch.argsort(share, descending=True)[: min(most, int(chosen.sum()))].tolist():
        origin = int(memory.origins[0, slot])
        found.append(
            Recalled(
                origin=origin,
                cosine=float(cosine[0, 0, slot] - (0.0 if same is None else same[0, 0, slot])),
                share=float(share[slot]),
                strength=float(memory.strengths[0, slot]),
                age_tokens=now - origin,
                same_words=None if same is None else float(same[0, 0, slot]) / brain.config.hippocampus.phrase,
            )
        )
    return found


@dataclasses.dataclass(frozen=True)
class Copied:
    """One token that followed stored moments and is predicted outright."""

    token: int
    probability: float  # that the pointer gives it
    moments: int  # filled slots it is in
    origin: int  # which token of the stream is stored in the slot that gives the most


@torch.no_grad()
def point(brain: Brain, state: BrainState, token: int, most: int = 5) -> tuple[float, list[Copied]] | None:
    """What the pointer predicts for row 0 once it has read ``token`` on top of ``state``, which stays as it is.

    Returns:
        the share lambda of the prediction that is copied and the ``most`` tokens it goes to, the likeliest first;
        None for a brain without a pointer.
    """
    memory = state.regions.hippocampus
    region = brain.regions["hippocampus"] if "hippocampus" in brain.regions else None
    if not isinstance(memory, HippocampusState) or not isinstance(region, Hippocampus) or region.pointer is None:
        return None
    rows = state.started.shape[0]
    out = brain.scan(torch.full((rows, 1), token, device=brain.embedding.device), state)
    assert out.aux.copied is not None and isinstance(memory.ids, Tensor)
    after = out.state.regions.hippocampus
    assert isinstance(after, HippocampusState)
    query = region.keys(after.last_key[:1]).unsqueeze(1)
    same = region.same_words_now(after)
    _, cosine, _ = region.memory.scores(query, memory.keys[:1], memory.strengths[:1], same=same)
    share = region.pointer.shares(cosine, memory.strengths[:1])[0][0, 0]
    copied, ids, filled = out.aux.copied[0, -1], memory.ids[0].long(), memory.strengths[0] > 0
    found = []
    for said in torch.argsort(copied, descending=True)[:most].tolist():
        places = filled & (ids == said)
        if not places.any():
            break
        slot = int(torch.where(places, share, torch.full_like(share, -1.0)).argmax())
        found.append(Copied(said, float(copied[said]), int(places.sum()), int(memory.origins[0, slot])))
    return float(copied.sum()), found


def _lift(region: Hippocampus, state: BrainState) -> Tensor | None:
    """What contiguity adds to the cosines [1,1,M] of row 0 after its last token; None where it is off or not known."""
    last, memory = int(state.clock) - 1, state.regions.hippocampus
    strength = region.config.hippocampus.contiguity
    if not strength or last < 0 or not isinstance(memory, HippocampusState):
        return None
    row = tree_map(lambda leaf: leaf[:1], memory)
    before, came, told = (
        x[:1, last : last + 1] for x in (state.buffer.keys, state.buffer.values, state.buffer.candidate)
    )
    return strength * told.unsqueeze(-1) * region.memory.following(before, came, row)


@dataclasses.dataclass(frozen=True)
class Reading:
    """A text of T tokens, read with a memory."""

    surprise: np.ndarray  # [T] nats
    salience: np.ndarray  # [T]
    gate: np.ndarray  # [T]
    stored: np.ndarray  # [T] bool: held by a slot after the last commit
    recalled: list[list[Recalled]]  # by token, the largest share first
    commits: list[int]  # tokens after which there was a commit


def read(brain: Brain, state: BrainState, ids: Sequence[int]) -> Reading:
    """What is recalled at every one of ``ids`` while they are read from ``state`` on, which stays as it is.

    Raises:
        UsageError: a brain without a hippocampus.
    """
    kept: list[Events] = []

    class Keep:
        def span(self, events: Sequence[Events], commit: CommitEvents) -> None:
            kept.extend(events)

    session, recalled, commits = Session(brain, state, observers=[Keep()]), [], []
    memory = state.regions.hippocampus
    first = int(memory.position[0]) if isinstance(memory, HippocampusState) else 0
    for place, token in enumerate(ids):
        session.feed(torch.tensor([[token]]))
        recalled.append(explain(brain, session.state, most=brain.config.hippocampus.slots))
        if int(session.state.clock) == 0:
            commits.append(place)
    session.commit()
    after = session.state.regions.hippocampus
    assert isinstance(after, HippocampusState)
    origins = after.origins[0][after.strengths[0] > 0].cpu().numpy()

    def trace(name: str) -> np.ndarray:
        return torch.cat([getattr(event, name)[0] for event in kept]).double().cpu().numpy()

    stored = np.isin(first + np.arange(len(ids)), origins)
    return Reading(trace("surprise"), trace("salience"), trace("recall_gate"), stored, recalled, commits)
