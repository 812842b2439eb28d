"""Token streams for training: parallel, endless, resumable to the token.

A stream reads documents in random order without a gap. Now and then it is shown an earlier part of itself again
(rehearsal), so that recalling pays; now and then it starts afresh at a document, so that an empty memory is familiar.
All streams take their documents from one shuffled bag, which is filled again when it is empty: a pass over the text shows
every document once, whole unless its stream starts afresh in it. A document longer than a stream usually lives lies in it as
several parts, one such life apart; the document's first token (<bos>) is read before each. Otherwise a text that is one long
document would never be read beyond its opening.
"""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import numpy as np

from neuro.errors import FormatError

FRESH_START = 0.02  # chance per stream and window
LIFE_SPANS = 200  # of a document's parts: what a stream of windows of four spans lives
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
        self.starts = starts
        self.text = zlib.crc32(tokens.tobytes())
        self.random = np.random.default_rng(seed)
        life = LIFE_SPANS * span
        ends = np.append(starts[1:], len(tokens))
        self.parts = [
            (int(first), place, min(place + life, int(end)))
            for first, end in zip(starts, ends, strict=True)
            for place in range(int(first), int(end), life)
        ]
        self.bag: list[int] = []  # parts that this pass has not shown yet; the last is the next
        self.waiting: list[list[int]] = [[] for _ in range(batch)]  # a document's first token, where it is to be read
        self.place, self.end = [0] * batch, [0] * batch
        self.history: list[list[np.ndarray]] = [[] for _ in range(batch)]
        for row in range(batch):
            self._next_part(row)
            # Streams begin at random places so that they do not march in step.
            self.waiting[row] = []
            self.place[row] += int(self.random.random() * (self.end[row] - self.place[row]))

    def window(self, spans: int) -> Window:
        """The next ``spans`` spans of every stream."""
        fresh = self.random.random(self.batch) < FRESH_START
        rows = []
        for row in range(self.batch):
            if fresh[row]:
                self._next_part(row)
                self.history[row].clear()
            rows.append(np.concatenate([self._span(row) for _ in range(spans)]))
        return Window(np.stack(rows), fresh)

    def _span(self, row: int) -> np.ndarray:
        history = self.history[row]
        low, high = REHEARSAL_REACH
        if len(history) > low and self.random.random() < self.rehearsal:
            reach = min(high, len(history)) / low
            return history[-int(low * reach ** self.random.random())]
        parts: list[np.ndarray] = []
        missing = self.span
        while missing:
            if self.waiting[row]:
                part = self.tokens[self.waiting[row].pop()][None]
            else:
                part = self.tokens[self.place[row] : min(self.place[row] + missing, self.end[row])]
                self.place[row] += len(part)
            parts.append(part.astype(np.int64))
            missing -= len(part)
            if self.place[row] == self.end[row]:
                self._next_part(row)
        span = np.concatenate(parts)
        history.append(span)
        del history[: -high - 1]
        return span

    def _next_part(self, row: int) -> None:
        if not self.bag:
            self.bag = self.random.permutation(len(self.parts)).tolist()
        first, self.place[row], self.end[row] = self.parts[self.bag.pop()]
        self.waiting[row] = [first] if self.place[row] > first else []

    def state(self) -> dict[str, Any]:
        """JSON-able position; `restore` continues from it exactly."""
        return {
            "text": self.text,
            "parts": len(self.parts),
            "bag": list(self.bag),
            "waiting": [list(first) for first in self.waiting],
            "place": list(self.place),
            "end": list(self.end),
            "history": [[span.tolist() for span in history] for history in self.history],
            "random": self.random.bit_generator.state,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a position.

        Raises:
            FormatError: it is a position in another text, or of a version that read documents in another way.
        """
        if state.get("text", self.text) != self.text:
            raise FormatError("streams: the training text is not the one this run began with.", "Put it back.")
        if state.get("parts") != len(self.parts):
            raise FormatError(
                "streams: this run was begun by a version that read documents in another order.",
                "Go on with that version, or begin anew in another --out.",
            )
        self.bag = list(state["bag"])
        self.waiting = [list(first) for first in state["waiting"]]
        self.place, self.end = list(state["place"]), list(state["end"])
        self.history = [[np.array(span) for span in history] for history in state["history"]]
        self.random.bit_generator.state = state["random"]
