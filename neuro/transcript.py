"""What a stream has read, token by token, and from where: the text behind the ``origins`` of its episodic memory."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Iterable


@dataclasses.dataclass
class Transcript:
    """Grows with the stream; token n of it is the one whose memory has origin n."""

    ids: list[int] = dataclasses.field(default_factory=list)
    sources: list[tuple[int, str]] = dataclasses.field(default_factory=list)
    """(first token, name), ascending: each source lasts until the next begins."""

    def extend(self, ids: Iterable[int], source: str) -> None:
        """Append tokens read from ``source``."""
        if not self.sources or self.sources[-1][1] != source:
            self.sources.append((len(self.ids), source))
        self.ids += ids

    def clear(self) -> None:
        """Forget everything: the stream begins anew."""
        self.ids.clear()
        self.sources.clear()

    def source(self, origin: int) -> str:
        """The name of where token ``origin`` came from; "unknown" outside the transcript."""
        place = bisect.bisect_right([start for start, _ in self.sources], origin) - 1
        return self.sources[place][1] if place >= 0 and origin < len(self.ids) else "unknown"

    def around(self, origin: int, before: int, after: int) -> tuple[list[int], list[int]]:
        """The ids of up to ``before`` tokens up to ``origin`` (exclusive), and from it (inclusive) ``after``."""
        return self.ids[max(0, origin - before) : origin], self.ids[origin : origin + after]
