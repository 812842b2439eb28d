"""Token streams for training: parallel, endless, resumable to the token.

A stream reads documents in random order without a gap. Now and then it is shown an earlier part of itself again
(rehearsal), so that recalling pays; now and then it starts afresh at a document, so that an empty memory is familiar.
A document longer than a stream usually lives before that has several places to start at, one such life apart; the document's
first token (<bos>) is read there too. Otherwise a text that is one long document would never be read beyond its opening.
"""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import numpy as np

from neuro.errors import FormatError

FRESH_START = 0.02  # chance per stream and window
REHEARSAL_REACH = (2, 64)  # spans back; as many from 2 to 4 as from 32 to 64


class Window(NamedTuple):
    """What one training step reads."""

    tokens: np.ndarray  # [B, T] int64
    fresh: np.ndarray  # [B] bool: the row starts a new life here
    scored: np.ndarray | None = None  # [B, T] bool: only these tokens are to be predicted; None: all


class Streams:
    """``batch`` streams over the documents of one token array.

    Args:
        tokens: [N] ids.
        starts: [documents] where each document begins; the first one at 0.
        batch, span: streams and tokens per span.
        rehearsal: chance that a span repeats an earlier one.
        seed: of the order of documents and of every chance.
    """

    def __init__(
        self, tokens: np.ndarray, starts: np.ndarray, batch: int, span: int, rehearsal: float, seed: int
    ) -> None:
        self.tokens, self.batch, self.span, self.rehearsal = tokens, batch, span, rehearsal
        self.starts, self.ends = starts, np.append(starts[1:], len(tokens))
        self.text = zlib.crc32(tokens.tobytes())
        self.random = np.random.default_rng(seed)
        self.document = self.random.integers(0, len(self.starts), batch)
        # Streams begin at random places so that they do not march in step.
        self.offset = (self.random.random(batch) * (self.ends - self.starts)[self.document]).astype(np.int64)
        self.history: list[list[np.ndarray]] = [[] for _ in range(batch)]

    def window(self, spans: int) -> Window:
        """The next ``spans`` spans of every stream."""
        fresh = self.random.random(self.batch) < FRESH_START
        rows = []
        for row in range(self.batch):
            if fresh[row]:
                self._new_document(row)
                self._start_inside(row, life=int(spans * self.span / FRESH_START))
                self.history[row].clear()
            rows.append(np.concatenate([self._span(row, bool(fresh[row]) and not n) for n in range(spans)]))
        return Window(np.stack(rows), fresh)

    def _span(self, row: int, opens: bool) -> np.ndarray:
        history = self.history[row]
        low, high = REHEARSAL_REACH
        if len(history) > low and self.random.random() < self.rehearsal:
            reach = min(high, len(history)) / low
            return history[-int(low * reach ** self.random.random())]
        parts, missing = [], self.span
        if opens and self.offset[row]:
            first = self.starts[self.document[row]]
            parts, missing = [self.tokens[first : first + 1].astype(np.int64)], self.span - 1
        while missing:
            start, end = self.starts[self.document[row]] + self.offset[row], self.ends[self.document[row]]
            part = self.tokens[start : min(start + missing, end)].astype(np.int64)
            parts.append(part)
            missing -= len(part)
            self.offset[row] += len(part)
            if start + len(part) >= end:
                self._new_document(row)
        span = np.concatenate(parts)
        history.append(span)
        del history[: -high - 1]
        return span

    def _new_document(self, row: int) -> None:
        lengths = self.ends - self.starts
        self.document[row] = self.random.choice(len(lengths), p=lengths / lengths.sum())
        self.offset[row] = 0

    def _start_inside(self, row: int, life: int) -> None:
        """Move to one of the places, ``life`` tokens apart, where the document of a fresh stream may be begun."""
        length = int((self.ends - self.starts)[self.document[row]])
        if length > life:
            self.offset[row] = int(self.random.integers(0, length)) // life * life

    def state(self) -> dict[str, Any]:
        """JSON-able position; `restore` continues from it exactly."""
        return {
            "text": self.text,
            "document": self.document.tolist(),
            "offset": self.offset.tolist(),
            "history": [[span.tolist() for span in history] for history in self.history],
            "random": self.random.bit_generator.state,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a position.

        Raises:
            FormatError: it is a position in another text.
        """
        if state.get("text", self.text) != self.text:
            raise FormatError("streams: the training text is not the one this run began with.", "Put it back.")
        self.document = np.array(state["document"])
        self.offset = np.array(state["offset"])
        self.history = [[np.array(span) for span in history] for history in state["history"]]
        self.random.bit_generator.state = state["random"]
