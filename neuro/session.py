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
from neuro.memory import contents
from neuro.sampling import Sampler
from neuro.state import BrainState, clone
from neuro.transcript import Transcript


class Session:
    """One batch of streams through a brain, in evaluation mode and without gradients.

    Args:
        brain: the model; its weights are never changed.
        state: to continue from; None starts afresh.
        batch: rows of a fresh state.
        observers: told of every committed span.
        transcript: kept up to date with what row 0 reads and writes, so that its memories can be traced to their text.
    """

    def __init__(
        self,
        brain: Brain,
        state: BrainState | None = None,
        batch: int = 1,
        observers: Sequence[Observer] = (),
        transcript: Transcript | None = None,
    ) -> None:
        self.brain, self.transcript = brain, transcript
        self.state = state if state is not None else brain.init_state(batch)
        self.observers = list(observers)
        self._events: list[Events] = []

    @torch.no_grad()
    def feed(self, tokens: Tensor, keep_logits: bool = False, source: str = "prompt") -> Tensor:
        """Run tokens [B, T] of any length in constant memory.

        Args:
            tokens: int64 ids.
            keep_logits: of every token, not only of the last.
            source: where they come from, for the transcript.

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
            if self.transcript is not None:
                self.transcript.extend(part[0].tolist(), source)
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

        Hormones change the temperature where the configuration says so (`Brain.warmth`).

        Raises:
            UsageError: a batch other than 1.
        """
        if self.state.started.shape[0] != 1:
            raise UsageError("generate: got a batch, expected one stream.", "Use neuro.hf for batched generation.")
        logits = self.state.logits
        for _ in range(most):
            token = sampler(logits[0], float(self.brain.warmth(self.state)[0]))
            yield token
            logits = self.feed(torch.tensor([[token]]), source="written")

    def reset(self, keep_memories: bool) -> None:
        """Between two documents: commit, then start afresh, with what was learned (a soft reset) or without (a hard one)."""
        self.commit()
        fresh = self.brain.init_state(self.state.started.shape[0])
        self.state = contents.put(fresh, contents.held(self.state)) if keep_memories else fresh
        if self.transcript is not None and not keep_memories:
            self.transcript.clear()

    def snapshot(self) -> BrainState:
        """An independent copy of the state; assign it to ``state`` to restore."""
        return clone(self.state)
