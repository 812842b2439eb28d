"""What the episodic memory recalls right now, and why: the slots behind the last token's recall."""

from __future__ import annotations

import dataclasses

import torch

from neuro.brain import Brain
from neuro.errors import UsageError
from neuro.regions.hippocampus import Hippocampus
from neuro.state import BrainState, HippocampusState


@dataclasses.dataclass(frozen=True)
class Recalled:
    """One slot that was read."""

    origin: int  # which token of the stream is stored in it
    cosine: float  # of its key with the key of now
    share: float  # of the content, over all slots read
    strength: float  # what is left of it
    age_tokens: int


@torch.no_grad()
def explain(brain: Brain, state: BrainState, most: int = 5) -> list[Recalled]:
    """The ``most`` slots with the largest share in what row 0 recalls after its last token, the largest first.

    Raises:
        UsageError: a brain without a hippocampus.
    """
    memory = state.regions.hippocampus
    if not isinstance(memory, HippocampusState):
        raise UsageError("recall: this brain has no episodic memory.", "Use a model with brain.hippocampus.enabled.")
    region = brain.regions["hippocampus"]
    assert isinstance(region, Hippocampus)
    query = memory.last_key[:1].unsqueeze(1)
    score, cosine, chosen = region.memory.scores(query, memory.keys[:1], memory.strengths[:1])
    share = (torch.softmax(score, -1) * chosen)[0, 0]
    now = int(memory.position[0]) + int(state.buffer.valid[0].sum())
    found = []
    for slot in torch.argsort(share, descending=True)[: min(most, int(chosen.sum()))].tolist():
        origin = int(memory.origins[0, slot])
        found.append(
            Recalled(
                origin=origin,
                cosine=float(cosine[0, 0, slot]),
                share=float(share[slot]),
                strength=float(memory.strengths[0, slot]),
                age_tokens=now - origin,
            )
        )
    return found
