"""A running stream: feeds tokens, commits at every span's end, delivers events, samples; the one driver of a brain.

The command line, evaluation, export parity and serving all go through it, so boundaries commit everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from neuro.brain import Brain
from neuro.errors import UsageError
from neuro.events import CommitEvents, Events, Observer, deliver
from neuro.sampling import Sampler
from neuro.state import BrainState, clone


class Session:
    """One batch of streams through a brain, in evaluation mode and without gradients.

    Args:
        brain: the model; its weights are never changed.
        state: to continue from; None starts afresh.
        batch: rows of a fresh state.
        observers: told of every committed span.
    """

    def __init__(
        self, brain: Brain, state: BrainState | None = None, batch: int = 1, observers: Sequence[Observer] = ()
    ) -> None:
        self.brain = brain
        self.state = state if state is not None else brain.init_state(batch)
        self.observers = list(observers)
        self._events: list[Events] = []

    @torch.no_grad()
    def feed(self, tokens: Tensor, keep_logits: bool = False) -> Tensor:
        """Run tokens [B, T] of any length in constant memory.

        Returns:
            logits [B, V] after the last token, or [B, T, V] of every token when ``keep_logits``.
        """
        if tokens.dim() != 2 or tokens.shape[1] == 0:
            raise UsageError(
                f"feed: got tokens of shape {list(tokens.shape)}, expected [batch, at least 1].", "Feed <bos> first."
            )
        kept, start = [], 0
        while start < tokens.shape[1]:
            part = tokens[:, start : start + self.brain.remaining(self.state)]
            out = self.brain.scan(part.to(self.brain.embedding.device), self.state)
            self.state = out.state
            self._events.append(out.events)
            if keep_logits:
                kept.append(out.logits)
            start += part.shape[1]
            if self.brain.remaining(self.state) == 0:
                self.commit()
        return torch.cat(kept, 1) if keep_logits else out.logits[:, -1]

    @torch.no_grad()
    def commit(self) -> CommitEvents:
        """End the span now: at its boundary, at the end of a turn or document, on save and on exit."""
        self.state, commit = self.brain.commit(self.state)
        events, self._events = self._events, []
        deliver(self.observers, events, commit)
        return commit

    def generate(self, sampler: Sampler, most: int) -> Iterator[int]:
        """Sample up to ``most`` tokens of row 0, each fed back; continues from what was fed before.

        Raises:
            UsageError: a batch other than 1.
        """
        if self.state.started.shape[0] != 1:
            raise UsageError("generate: got a batch, expected one stream.", "Use neuro.hf for batched generation.")
        logits = self.state.logits
        for _ in range(most):
            token = sampler(logits[0])
            yield token
            logits = self.feed(torch.tensor([[token]]))

    def snapshot(self) -> BrainState:
        """An independent copy of the state; assign it to ``state`` to restore."""
        return clone(self.state)
