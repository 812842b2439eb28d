"""What a stream has read, token by token, and from where: the text behind the ``origins`` of its episodic memory."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections.abc import Iterable


@dataclasses.dataclass
class Transcript:
    """Grows with the stream; token n of it is the one whose memory has origin n."""

    ids: list[int] = dataclasses.field(default_factory=list)
    sources: list[tuple[int, str]] = dataclasses.field(default_factory=list)
    """(first token, name), ascending: each source lasts until the next begins."""
    starts: list[int] = dataclasses.field(default_factory=list)
    """First token of each item, ascending: what was read in one go, with fresh activity and the memories so far."""
    sleeps: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    """(tokens read before it, rounds) of each sleep, in order; each lies between two items."""

    def begin(self) -> None:
        """What comes next is an item of its own."""
        if not self.starts or self.starts[-1] != len(self.ids):
            self.starts.append(len(self.ids))

    def extend(self, ids: Iterable[int], source: str) -> None:
        """Append tokens read from ``source``."""
        if not self.starts:
            self.begin()
        if not self.sources or self.sources[-1][1] != source:
            self.sources.append((len(self.ids), source))
        self.ids += ids

    def cut(self, length: int) -> None:
        """Drop what follows the first ``length`` tokens."""
        del self.ids[length:]
        self.sources = [(start, name) for start, name in self.sources if start < length]
        self.starts = [start for start in self.starts if start < length]
        self.sleeps = [(after, rounds) for after, rounds in self.sleeps if 0 < after <= length]

    def clear(self) -> None:
        """Forget everything: the stream begins anew."""
        self.cut(0)

    def source(self, origin: int) -> str:
        """The name of where token ``origin`` came from; "unknown" outside the transcript."""
        place = bisect.bisect_right([start for start, _ in self.sources], origin) - 1
        return self.sources[place][1] if place >= 0 and origin < len(self.ids) else "unknown"

    def around(self, origin: int, before: int, after: int) -> tuple[list[int], list[int]]:
        """The ids of up to ``before`` tokens up to ``origin`` (exclusive), and from it (inclusive) ``after``."""
        return self.ids[max(0, origin - before) : origin], self.ids[origin : origin + after]

    def items(self) -> list[range]:
        """The tokens of each item, in order."""
        edges = [*(start for start in self.starts if start < len(self.ids)), len(self.ids)]
        return [range(a, b) for a, b in itertools.pairwise(edges)]

    def rests(self, item: range) -> list[int]:
        """Rounds of each sleep between this item and the next."""
        return [rounds for after, rounds in self.sleeps if after == item.stop]

    def parts(self, item: range) -> list[tuple[str, list[int]]]:
        """(source, ids) of each stretch of an item that came from one source."""
        edges = [item.start, *(start for start, _ in self.sources if start in item and start > item.start), item.stop]
        return [(self.source(a), self.ids[a:b]) for a, b in itertools.pairwise(edges)]
