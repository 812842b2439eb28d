"""The rows of a centroid index (`neuro.memory.centroid_index`): what is kept of every item, in lists by closest centroid.

New rows wait at the end until `IndexRows._settle` brings them into lists; a list that is too long is bisected by 2-means, one
that is too short is dissolved, and every row that is closer to a changed centroid moves.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from neuro.errors import UsageError

_ROUNDS = 4  # of 2-means


@dataclasses.dataclass(frozen=True)
class IndexConfig:
    """Sizes and rules of an index.

    Attributes:
        width: of a vector.
        capacity: items; beyond it the lowest utility is evicted.
        list_size: items a list is meant to hold; a list is split at twice as many.
        probes: lists scanned for a query unless it says otherwise.
        same: cosine from which two vectors are one item.
        half_life_tokens: of a strength.
        block: new rows that are scanned without lists until they are settled.

    Raises:
        UsageError: a value out of range.
    """

    width: int
    capacity: int = 131072
    list_size: int = 100
    probes: int = 64
    same: float = 0.999
    half_life_tokens: float = 65536.0
    block: int = 1024

    def __post_init__(self) -> None:
        for name in ("width", "capacity", "probes", "block"):
            need(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        need(self.list_size >= 2, "list_size", self.list_size, "at least 2")
        need(0 < self.same <= 1, "same", self.same, "in (0, 1]")
        need(self.half_life_tokens > 0, "half_life_tokens", self.half_life_tokens, "above 0")


class IndexRows:
    """Columns of items and their lists. Rows [0, settled) are sorted by list, the others are as they came."""

    def __init__(self, config: IndexConfig) -> None:
        self.config = config
        room = config.capacity + config.block
        self._vectors = torch.zeros(room, config.width)
        self._ids = torch.full((room,), -1, dtype=torch.int64)  # -1: evicted
        self._times = torch.zeros(room, dtype=torch.int64)
        self._segments = torch.zeros(room, dtype=torch.int64)
        self._utility = torch.zeros(room, dtype=torch.float64)
        self._hidden = torch.zeros(room)  # added to a row's cosine: 0, or -4 where it was evicted
        self._rows = self._settled = self._next = self._filled = 0
        self._centroids = torch.zeros(0, config.width)
        self._starts = torch.zeros(1, dtype=torch.int64)  # [lists + 1]: first row of each list
        self._by_id: tuple[Tensor, Tensor] | None = None
        self._by_time: Tensor | None = None

    def __len__(self) -> int:
        return self._filled

    @property
    def lists(self) -> int:
        """How many lists there are."""
        return len(self._centroids)

    def _gain(self, rows: Tensor, strength: Tensor, time: Tensor) -> None:
        """Distinct rows; log2(2^u + s 2^(t/h)) without leaving the logarithm, so that no age overflows."""
        gained = torch.log2(strength) + time.double() / self.config.half_life_tokens
        self._utility[rows] = torch.logaddexp2(self._utility[rows], gained)

    def _drop(self, rows: Tensor) -> None:
        self._vectors[rows], self._ids[rows], self._hidden[rows] = 0.0, -1, -4.0
        self._filled -= len(rows)
        self._changed()

    def _changed(self) -> None:
        self._by_id = self._by_time = None

    def _settle(self) -> None:
        """Close the holes, bring the new rows into lists, and mend lists that are too long or too short."""
        live = torch.nonzero(self._ids[: self._rows] >= 0).squeeze(1)
        lists = self._list_of_rows()[live[live < self._settled]]
        self._take(live)
        vectors = self._vectors[: self._rows]
        if not len(vectors):
            self._centroids, self._settled = self._centroids[:0], 0
            self._starts = torch.zeros(1, dtype=torch.int64)
            return
        if not self.lists:
            self._centroids = means(vectors, torch.zeros(len(vectors), dtype=torch.int64), 1)
        lists = torch.cat([lists, self._closest(vectors[len(lists) :])])
        sizes = torch.bincount(lists, minlength=self.lists)
        long = sizes > 2 * self.config.list_size
        short = (sizes < max(1, self.config.list_size // 8)) & (sizes < sizes.max())
        fresh = [
            centroid
            for name in torch.nonzero(long).squeeze(1).tolist()
            for centroid in bisected(vectors[lists == name], 2 * self.config.list_size)
        ]
        kept = ~(long | short)
        homeless = ~kept[lists]
        names = kept.to(torch.int64).cumsum(0) - 1  # of the lists that are kept, in the new order
        lists = names[lists]
        self._centroids = torch.cat([self._centroids[kept], *(c.unsqueeze(0) for c in fresh)])
        if fresh:
            old = len(self._centroids) - len(fresh)
            own = (vectors * self._centroids[lists.clamp(0, max(old - 1, 0))]).sum(1)
            closer, which = (vectors @ self._centroids[old:].T).max(1)
            lists = torch.where(closer > own, which + old, lists)
        rows = torch.nonzero(homeless).squeeze(1)
        lists[rows] = self._closest(vectors[rows])
        self._arrange(lists)

    def _arrange(self, lists: Tensor) -> None:
        """Sort all rows by their lists [rows]; lists without a row go."""
        sizes = torch.bincount(lists, minlength=self.lists)
        self._take(torch.sort(lists, stable=True).indices)
        self._centroids, self._starts = self._centroids[sizes > 0], first_rows(sizes[sizes > 0])
        self._settled = self._rows

    def _take(self, rows: Tensor) -> None:
        """Keep these rows, in this order."""
        for column in (self._vectors, self._ids, self._times, self._segments, self._utility):
            column[: len(rows)] = column[rows]
        self._ids[len(rows) : self._rows] = -1
        self._hidden[: len(rows)] = 0.0
        self._rows = len(rows)
        self._changed()

    def _closest(self, vectors: Tensor) -> Tensor:
        """[N] the list of the closest centroid."""
        parts = [(part @ self._centroids.T).argmax(1) for part in vectors.split(4096)]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64)

    def _list_of_rows(self) -> Tensor:
        """[settled] int64."""
        return torch.repeat_interleave(torch.arange(self.lists), self._starts.diff())

    def _by_id_now(self) -> tuple[Tensor, Tensor]:
        if self._by_id is None:
            live = torch.nonzero(self._ids[: self._rows] >= 0).squeeze(1)
            ids, order = torch.sort(self._ids[live])
            self._by_id = ids, live[order]
        return self._by_id

    def _rows_of(self, ids: Tensor) -> Tensor:
        known, rows = self._by_id_now()
        at = torch.searchsorted(known, ids).clamp_max(max(len(known) - 1, 0))
        unknown = ids if not len(known) else ids[known[at] != ids]
        if len(unknown):
            raise UsageError(
                f"index: got id {int(unknown[0])}, expected one of the {len(known)} stored items.",
                "It was forgotten or evicted, or belongs to another index.",
            )
        return rows[at]


def bisected(vectors: Tensor, most: int) -> list[Tensor]:
    """Centroids [W] of parts of at most ``most`` rows, by 2-means from the two rows that are far from each other."""
    if len(vectors) <= most:
        return [means(vectors, torch.zeros(len(vectors), dtype=torch.int64), 1)[0]]
    one = vectors[(vectors @ vectors.mean(0)).argmin()]
    two = vectors[(vectors @ one).argmin()]
    for _ in range(_ROUNDS):
        lean = vectors @ (one - two)
        side = (lean > 0).to(torch.int64)
        if not 0 < int(side.sum()) < len(side):  # no boundary between them: the upper half against the lower
            side = torch.zeros_like(side).scatter(0, torch.sort(lean, stable=True).indices[len(side) // 2 :], 1)
        two, one = means(vectors, side, 2).unbind(0)
    return [centroid for part in (0, 1) for centroid in bisected(vectors[side == part], most)]


def means(vectors: Tensor, lists: Tensor, count: int) -> Tensor:
    """Unit means [count,W] of the rows in each list; summed in float64 in the order of the rows."""
    sums = torch.zeros(count, vectors.shape[1], dtype=torch.float64).index_add_(0, lists, vectors.double())
    return (sums / sums.norm(dim=1, keepdim=True).clamp_min(1e-12)).float()


def first_rows(sizes: Tensor) -> Tensor:
    """Sizes of lists -> [lists + 1] the first row of each."""
    return torch.cat([torch.zeros(1, dtype=torch.int64), sizes.to(torch.int64).cumsum(0)])


def need(ok: bool, name: str, got: object, expected: str) -> None:
    if not ok:
        raise UsageError(f"index.{name}: got {got}, expected {expected}.", "Correct the value.")
