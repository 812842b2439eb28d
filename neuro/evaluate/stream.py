"""One evaluated stream: tokens in, what each of them cost out, with the memories that its arm keeps."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from neuro.brain import Brain
from neuro.evaluate import arms
from neuro.events import CommitEvents, Events
from neuro.session import Session
from neuro.state import BrainState


class Stream:
    """Batch 1, from a fresh state or from a given one; commits where a session does and wherever a reading ends.

    Args:
        brain: in evaluation mode (`evaluating`).
        memories: what is kept ("episodic", "procedural"); the others are emptied after every commit.
        state: to go on from.
    """

    def __init__(self, brain: Brain, memories: Collection[str], state: BrainState | None = None) -> None:
        self.brain, self.memories = brain, memories
        self._nats: list[np.ndarray] = []
        self._session = Session(brain, state, observers=[self])

    def span(self, events: Sequence[Events], commit: CommitEvents) -> None:
        """Called by the session, once per committed span."""
        self._nats += [event.surprise[0].cpu().numpy().astype(np.float64) for event in events]

    def read(self, tokens: Sequence[int]) -> np.ndarray:
        """Nats of each token [T] given all before it, float64 (0 for a stream's very first); the span ends with the last."""
        self._nats = []
        for _ in self._feed(
            tokens
        ):  # the logits of a span are let go before the next: all of a text's would fill a machine
            pass
        self._session.commit()
        self.state = arms.keep_only(self.state, self.memories)
        return np.concatenate(self._nats)

    def predict(self, tokens: Sequence[int]) -> Tensor:
        """Logits [T, V] for the token after each of these; the span stays open."""
        return torch.cat(list(self._feed(tokens, keep_logits=True)))

    def _feed(self, tokens: Sequence[int], keep_logits: bool = False) -> Iterator[Tensor]:
        """Logits of each part as it is fed: of all its tokens, or of the last."""
        start = 0
        while start < len(tokens):
            part = tokens[start : start + self.brain.remaining(self.state)]
            logits = self._session.feed(torch.tensor([part]), keep_logits)[0]
            self.state = arms.keep_only(self.state, self.memories)
            start += len(part)
            yield logits

    @property
    def state(self) -> BrainState:
        return self._session.state

    @state.setter
    def state(self, state: BrainState) -> None:
        self._session.state = state


@contextmanager
def evaluating(brain: Brain) -> Iterator[None]:
    """Evaluation mode inside; afterwards the mode is what it was, also after an error."""
    training = brain.training
    brain.eval()
    try:
        yield
    finally:
        brain.train(training)
