"""What is known of a tensor without looking at its values: its signal, the neurons it comes from, the weight it is.

Tags are kept beside the tensors, by identity, and go when the tensor goes. A tensor that was written to since it was tagged
(its version tells) has lost its tag.
"""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

from torch import Tensor

BINARY, COUNTS, GRADED, DENSE = "binary", "counts", "graded", "dense"
_ORDER = (BINARY, COUNTS, GRADED, DENSE)


class Shared:
    """Several populations in one tensor: ``owners`` [its shape] says which of ``sources`` each value is of."""

    def __init__(self, sources: tuple[str | None, ...], owners: Tensor) -> None:
        self.sources, self.owners = sources, owners


class Drive(NamedTuple):
    """What drives the neurons that read the result of a product."""

    signal: str
    inputs: int  # of one output
    source: str | None  # path of the spiking module behind the product


class Tag(NamedTuple):
    """Of a tensor. "counts" are whole numbers of spikes of either sign: binary on a chip, one event for each.

    Attributes:
        source: path of the spiking module whose spikes these are, if they are of one.
        drive: of the result of a product: what drives neurons that read it.
        shared: where there are several sources.
        weight: path of the parameter or buffer that this is, or a view of.
    """

    kind: str = DENSE
    source: str | None = None
    drive: Drive | None = None
    weight: str | None = None
    shared: Shared | None = None

    @property
    def signal(self) -> str:
        """As `neuro.workload.SIGNALS` has it."""
        return BINARY if self.kind == COUNTS else self.kind


PLAIN = Tag()


class _Entry(weakref.ref[Tensor]):
    """What is known of a tensor, as a reference that does not keep it."""

    __slots__ = ("key", "nonzero", "tag", "version")

    key: int
    version: int
    tag: Tag
    nonzero: int | None


_SWEPT = 1024  # dead entries that are left lying: a callback for each tensor costs more than a sweep now and then


class Tags:
    """Tags by identity of the tensor."""

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}
        self._most = _SWEPT
        self.ahead = False  # within an operator that writes in place: torch counts the version up after it
        entries = self._entries

        def gone(entry: Any) -> None:
            key = entry.key
            if entries.get(key) is entry:
                del entries[key]

        self._gone = gone

    def __len__(self) -> int:
        self._sweep()
        return len(self._entries)

    def _sweep(self) -> None:
        for key in [key for key, entry in self._entries.items() if entry() is None]:
            del self._entries[key]
        self._most = _SWEPT + 2 * len(self._entries)

    def get(self, x: Any) -> Tag:
        """`PLAIN` for what nobody tagged, or what is no tensor."""
        found = self._entries.get(id(x))
        return PLAIN if found is None or found() is not x or found.version != version(x) else found.tag

    def put(self, x: Tensor, tag: Tag, nonzero: int | None = None) -> None:
        key, shared, at = id(x), tag.shared, version(x) + self.ahead
        found = self._entries.get(key)
        if found is None or found() is not x or shared is not None:
            if tag is PLAIN and nonzero is None and found is None:
                return
            if len(self._entries) > self._most:
                self._sweep()
            # What a tag holds that is as large as the tensor goes at once.
            found = self._entries[key] = _Entry(x) if shared is None else _Entry(x, self._gone)
            found.key = key
        found.version, found.tag, found.nonzero = at, tag, nonzero

    def nonzero(self, x: Tensor) -> int | None:
        """What `put` was told of these values."""
        found = self._entries.get(id(x))
        return None if found is None or found() is not x or found.version != version(x) else found.nonzero


def version(x: Any) -> int:
    """Counted up by every operator that writes to a tensor."""
    try:
        return x._version
    except RuntimeError:  # of inference mode, which keeps none
        return 0


def sparsest(*tags: Tag) -> Tag:
    """Of the factors of a product: a product with spikes is made where there are spikes. Weights are no signal."""
    return min((tag for tag in tags if tag.weight is None), key=lambda tag: _ORDER.index(tag.kind), default=PLAIN)
