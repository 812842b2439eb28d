"""Centroid index: an inverted file over many unit vectors that come one by one, are strengthened, decay and are forgotten.

Search:  the ``probes`` lists of the closest centroids and the unsettled newest rows are scanned; the best candidates are
         scored again in float64, so that at full probe the answer is that of the exact scan, bit for bit.
Add:     a vector whose cosine with a stored one is at least ``same`` strengthens that one; any other gets the next id. The
         stored one is looked for in the 8 closest lists and among the unsettled rows; an equal one is always there.
Settle:  when a block of new rows has come they move into the lists of their closest centroids. A list of more than
         2 ``list_size`` is bisected by 2-means, one of fewer than list_size / 8 is dissolved, and every row that is closer
         to a changed centroid moves: each settled row is always in the list of its closest centroid.
Decay:   strength <- strength * 2^(-n / half_life) over n tokens. log2(strength) + time / half_life does not change with
         time; it is what is kept, and the row where it is lowest is evicted first (the newest may be that one).
Forget:  unlike an eviction it also takes the vector out of the centroids: all are fitted to the remaining rows.

Nothing is drawn at random. Searching changes nothing: who wants retrieval to strengthen calls `strengthen`.
Splitting and local reassignment follow SPFresh (arXiv:2410.14452); inverted files with k-means are Sivic and Zisserman 2003
(doi:10.1109/ICCV.2003.1238663).
differs: reassignment is over all rows, not over neighbouring lists; centroids are unit vectors.
An index is a search structure of the host and no part of a graph, so it is a plain object that changes in place.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from neuro import tensor_file
from neuro.errors import FormatError, UsageError

SCHEMA = "neuro.index/1"
_SPARE = 8  # candidates beyond k that are scored again: float32 products may misplace near-equals
_ROUNDS = 4  # of 2-means
_SAME_PROBES = 8  # lists in which an item that is there already is looked for
_QUERIES = 256  # scored at a time
_FEW = 4  # queries up to which each goes through its lists by itself, instead of each list through its queries


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
            _need(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        _need(self.list_size >= 2, "list_size", self.list_size, "at least 2")
        _need(0 < self.same <= 1, "same", self.same, "in (0, 1]")
        _need(self.half_life_tokens > 0, "half_life_tokens", self.half_life_tokens, "above 0")


class Found(NamedTuple):
    """The best items of each query, best first; of equals the older. Q queries."""

    ids: Tensor  # [Q, k] int64; -1 where the lists that were probed held fewer
    cosines: Tensor  # [Q, k] float64; -2 where there is no item
    scanned: Tensor  # [Q] int64, products computed: centroids, and rows of lists and of the unsettled block


class CentroidIndex:
    """Vectors by nearness, in time and by strength. Rows [0, settled) are sorted by list, the others are as they came."""

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

    def add(
        self,
        vectors: Tensor,
        strengths: Tensor | float = 1.0,
        times: Tensor | int = 0,
        segments: Tensor | int = 0,
    ) -> Tensor:
        """Store vectors [N,W] of any length but 0, with strengths above 0, times in tokens, and segments -> ids [N] int64.

        An item that is there already is strengthened by as much, and its time and segment become the new ones. An id is
        never given twice; one whose item was evicted finds nothing.

        Raises:
            UsageError: another width, no vectors, NaN or infinite values, a zero vector, strengths not above 0.
        """
        unit, count = self._unit(vectors, "vectors"), len(vectors)
        strength, time, segment = (
            _column(value, count, name, kind)
            for value, name, kind in (
                (strengths, "strengths", torch.float64),
                (times, "times", torch.int64),
                (segments, "segments", torch.int64),
            )
        )
        if not bool((torch.isfinite(strength) & (strength > 0)).all()):
            raise UsageError(
                "index: got a strength that is not above 0, expected all above 0.", "Leave it out instead."
            )
        ids = torch.empty(count, dtype=torch.int64)
        for at in range(0, count, self.config.block):
            part = slice(at, at + self.config.block)
            ids[part] = self._add_block(unit[part], strength[part], time[part], segment[part])
        return ids

    def search(self, queries: Tensor, k: int, probes: int | None = None) -> Found:
        """The k best of the ``probes`` lists closest to each of queries [Q,W].

        Raises:
            UsageError: an empty index, k out of range, another width, NaN, a zero query, probes below 1.
        """
        unit = self._queries(queries, k)
        probes = self.config.probes if probes is None else probes
        _need(probes >= 1, "probes", probes, "at least 1")
        return _joined([self._search(part, k, min(probes, self.lists)) for part in unit.split(_QUERIES)])

    def exact(self, queries: Tensor, k: int) -> Found:
        """The k best of all items, by comparing with each.

        Raises:
            UsageError: as `search`.
        """
        parts = []
        for part in self._queries(queries, k).split(_QUERIES):
            cosine = part @ self._vectors[: self._rows].T + self._hidden[: self._rows]
            rows = cosine.topk(min(k + _SPARE, self._rows), dim=1).indices
            parts.append(self._best(part, rows, k, torch.full((len(part),), self._rows)))
        return _joined(parts)

    def neighbours(self, ids: Tensor, reach: int) -> Tensor:
        """The items that came before and after each of ids [Q] in its segment -> ids [Q, 2 reach], oldest first; -1: none.

        Raises:
            UsageError: an id that is not stored, or reach below 1.
        """
        _need(reach >= 1, "reach", reach, "at least 1")
        rows = self._rows_of(ids)
        if self._by_time is None:
            order = self._by_id_now()[1]
            order = order[torch.sort(self._times[order], stable=True).indices]
            self._by_time = order[torch.sort(self._segments[order], stable=True).indices]
        order = self._by_time
        place = torch.empty(self._rows, dtype=torch.int64)
        place[order] = torch.arange(len(order))
        steps = torch.tensor([step for step in range(-reach, reach + 1) if step])
        at = place[rows].unsqueeze(1) + steps
        row = order[at.clamp(0, len(order) - 1)]
        inside = (at >= 0) & (at < len(order)) & (self._segments[row] == self._segments[rows].unsqueeze(1))
        return torch.where(inside, self._ids[row], torch.full_like(row, -1))

    def strengths(self, ids: Tensor, now: int) -> Tensor:
        """Strengths [Q] float64 of ids [Q] at the token ``now``.

        Raises:
            UsageError: an id that is not stored.
        """
        return torch.exp2(self._utility[self._rows_of(ids)] - now / self.config.half_life_tokens)

    def strengthen(self, ids: Tensor, by: float, now: int) -> None:
        """Add ``by`` to what is left at the token ``now`` of the strengths of ids [Q]; one named twice gains twice.

        Raises:
            UsageError: an id that is not stored, or ``by`` not above 0.
        """
        _need(by > 0 and math.isfinite(by), "by", by, "above 0")
        rows, times = self._rows_of(ids).unique(return_counts=True)
        self._gain(rows, by * times.double(), torch.full_like(rows, now))

    def forget(self, ids: Tensor) -> None:
        """Delete ids [Q]: neither their vectors nor centroids made of them stay, in memory or in a file saved later.

        Raises:
            UsageError: an id that is not stored; then none is deleted.
        """
        rows = self._rows_of(ids).unique()
        self._drop(rows)
        self._settle()
        self._vectors[self._rows :] = 0.0
        self.rebuild(rounds=1)

    def rebuild(self, rounds: int = 1) -> None:
        """Settle what is new, then ``rounds`` of spherical k-means over everything; lists are split and dissolved after.

        Raises:
            UsageError: rounds below 1.
        """
        _need(rounds >= 1, "rounds", rounds, "at least 1")
        self._settle()
        for _ in range(rounds):
            if self.lists:
                self._centroids = _means(self._vectors[: self._rows], self._list_of_rows(), self.lists)
                self._arrange(self._closest(self._vectors[: self._rows]))
        self._settle()
        if self.lists:  # splits and dissolved lists moved rows away: what a centroid is made of is in its list
            self._centroids = _means(self._vectors[: self._rows], self._list_of_rows(), self.lists)
            self._arrange(self._closest(self._vectors[: self._rows]))

    def save(self, path: str | Path) -> None:
        """Write items, lists, and what is not settled yet; the index stays as it is.

        Raises:
            NeuroError: the file cannot be written.
        """
        live = torch.nonzero(self._ids[: self._rows] >= 0).squeeze(1)
        held = self._list_of_rows()[live[live < self._settled]]
        tensors = {
            "vectors": self._vectors[live],
            "ids": self._ids[live],
            "times": self._times[live],
            "segments": self._segments[live],
            "utility": self._utility[live],
            "centroids": self._centroids,
            "counts": torch.bincount(held, minlength=self.lists),
        }
        tensor_file.write(path, tensors, {"schema": SCHEMA, "next": self._next, **dataclasses.asdict(self.config)})

    @classmethod
    def load(cls, path: str | Path) -> CentroidIndex:
        """The index that `save` wrote; it answers as that one did.

        Raises:
            MissingError, FormatError: no such file; truncated, foreign, or with tensors that do not fit together.
        """
        tensors, header = tensor_file.read(path, SCHEMA)
        try:
            config = IndexConfig(**{f.name: header[f.name] for f in dataclasses.fields(IndexConfig)})
            index, count, held = cls(config), len(tensors["ids"]), tensors["counts"]
            index._next = int(header["next"])
        except (KeyError, TypeError, ValueError, UsageError) as error:
            raise FormatError(f"{path}: its header is broken ({error}).", "It is foreign: use another copy.") from error
        shapes = {name: torch.empty(count) for name in ("ids", "times", "segments", "utility")}
        shapes |= {"vectors": torch.empty(count, config.width), "counts": torch.empty(len(held))}
        tensor_file.check_shapes(tensors, shapes | {"centroids": torch.empty(len(held), config.width)}, str(path))
        if count > config.capacity or int(held.sum()) > count or not bool(torch.isfinite(tensors["vectors"]).all()):
            raise FormatError(f"{path}: its items do not fit its lists.", "It is foreign: use another copy.")
        for name in ("vectors", "ids", "times", "segments", "utility"):
            getattr(index, f"_{name}")[:count] = tensors[name]
        index._centroids, index._starts = tensors["centroids"], _starts(held)
        index._rows = index._filled = count
        index._settled = int(held.sum())
        return index

    def _unit(self, vectors: Tensor, what: str) -> Tensor:
        if vectors.dim() != 2 or vectors.shape[1] != self.config.width:
            raise UsageError(
                f"index: got {what} of shape {list(vectors.shape)}, expected [N, {self.config.width}].",
                "Give one row per vector, of the width that the index was made with.",
            )
        if not len(vectors):
            raise UsageError(f"index: got no {what}, expected at least 1.", "Leave the call out.")
        vectors = vectors.detach().double()
        length = vectors.norm(dim=1, keepdim=True)
        if not bool((torch.isfinite(length) & (length > 0)).all()):
            raise UsageError(
                f"index: got {what} with NaN, infinite or all-zero rows, expected finite directions.",
                "Leave those rows out.",
            )
        return (vectors / length).float()

    def _queries(self, queries: Tensor, k: int) -> Tensor:
        if not len(self):
            raise UsageError("index: got a search of an empty index, expected stored items.", "Add vectors first.")
        if not 1 <= k <= len(self):
            raise UsageError(f"index: got k = {k}, expected 1 to {len(self)}, the stored items.", "Ask for fewer.")
        return self._unit(queries, "queries")

    def _search(self, unit: Tensor, k: int, probes: int) -> Found:
        """unit [Q,W], probes <= lists; each list is multiplied once with all queries that probe it."""
        closest = (unit @ self._centroids.T).topk(probes, dim=1).indices  # [Q, probes]
        tail = self._rows - self._settled
        scanned = self._starts.diff()[closest].sum(1) + self.lists + tail
        starts = self._starts.tolist()
        if len(unit) <= _FEW:
            found = [self._candidates(one, names, starts, k) for one, names in zip(unit, closest.tolist(), strict=True)]
            return self._best(unit, torch.nn.utils.rnn.pad_sequence(found, True, -1), k, scanned)
        wanted, count = k + _SPARE, len(unit)
        best = torch.full((count, probes + 1, wanted), -4.0)
        rows = torch.zeros(count, probes + 1, wanted, dtype=torch.int64)

        def scan(first: int, last: int, queries: Tensor, column: Tensor | int) -> None:
            cosine = unit[queries] @ self._vectors[first:last].T + self._hidden[first:last]
            found = cosine.topk(min(wanted, last - first), dim=1)
            best[queries, column, : last - first] = found.values
            rows[queries, column, : last - first] = found.indices + first

        order = torch.sort(closest.reshape(-1), stable=True)
        which, sizes = order.values.unique_consecutive(return_counts=True)
        for name, probe in zip(which.tolist(), order.indices.split(sizes.tolist()), strict=True):
            scan(starts[name], starts[name + 1], probe // probes, probe % probes)
        if tail:
            scan(self._settled, self._rows, torch.arange(count), probes)
        top = best.reshape(count, -1).topk(wanted, dim=1)
        rows = rows.reshape(count, -1).gather(1, top.indices)
        return self._best(unit, torch.where(top.values > -2, rows, torch.full_like(rows, -1)), k, scanned)

    def _candidates(self, unit: Tensor, names: list[int], starts: list[int], k: int) -> Tensor:
        """unit [W] -> the best rows [at most k + spare] of the named lists and of the unsettled ones."""
        spans = [(starts[name], starts[name + 1]) for name in names] + [(self._settled, self._rows)]
        cosine = torch.cat([self._vectors[first:last] @ unit for first, last in spans])
        rows = torch.cat([torch.arange(first, last) for first, last in spans])
        cosine = cosine + self._hidden[rows]
        top = cosine.topk(min(k + _SPARE, len(cosine)))
        return rows[top.indices[top.values > -2]]

    def _best(self, unit: Tensor, rows: Tensor, k: int, scanned: Tensor) -> Found:
        """Score candidates rows [Q,C] (-1: none) again in float64 -> the k best, of equals the lowest id."""
        rows = torch.nn.functional.pad(rows, (0, max(0, k - rows.shape[1])), value=-1)
        cosine = (self._vectors[rows.clamp_min(0)].double() * unit.double().unsqueeze(1)).sum(-1)
        ids = torch.where(rows >= 0, self._ids[rows.clamp_min(0)], torch.full_like(rows, -1))
        cosine = torch.where(ids >= 0, cosine, torch.full_like(cosine, -2.0))
        older = torch.sort(ids, dim=1, stable=True).indices
        cosine, ids = cosine.gather(1, older), ids.gather(1, older)
        order = torch.sort(cosine, dim=1, descending=True, stable=True).indices[:, :k]
        return Found(ids.gather(1, order), cosine.gather(1, order), scanned)

    def _add_block(self, unit: Tensor, strength: Tensor, time: Tensor, segment: Tensor) -> Tensor:
        ids, count = torch.full((len(unit),), -1, dtype=torch.int64), len(unit)
        if len(self):
            found = self.search(unit, 1, _SAME_PROBES)
            ids = torch.where(found.cosines[:, 0] >= self.config.same, found.ids[:, 0], ids)
        # Of those that are new, each takes the first of the block that it equals and that is new itself.
        alike = torch.tril(unit @ unit.T >= self.config.same, -1) & (ids < 0) & (ids < 0).unsqueeze(1)
        first = torch.arange(count)
        for row in torch.nonzero(alike.any(1)).squeeze(1).tolist():
            earlier = torch.nonzero(alike[row] & (first == torch.arange(count))).squeeze(1)
            if len(earlier):
                first[row] = earlier[0]
        new = torch.nonzero((ids < 0) & (first == torch.arange(count))).squeeze(1)
        if self._rows + len(new) > len(self._vectors):
            self._settle()
        fresh = torch.arange(self._rows, self._rows + len(new))
        ids[new] = torch.arange(self._next, self._next + len(new))
        again = torch.ones(count, dtype=torch.bool)
        again[new] = False
        ids = torch.where(ids < 0, ids[first], ids)
        self._vectors[fresh], self._ids[fresh], self._hidden[fresh] = unit[new], ids[new], 0.0
        self._times[fresh], self._segments[fresh] = time[new], segment[new]
        self._utility[fresh] = torch.log2(strength[new]) + time[new].double() / self.config.half_life_tokens
        self._rows, self._next, self._filled = self._rows + len(new), self._next + len(new), len(self) + len(new)
        self._changed()
        if bool(again.any()):
            self._arrive_again(self._rows_of(ids[again]), strength[again], time[again], segment[again])
        if len(self) > self.config.capacity:
            utility = torch.where(self._ids[: self._rows] >= 0, self._utility[: self._rows], torch.inf)
            self._drop(torch.sort(utility, stable=True).indices[: len(self) - self.config.capacity])
        if self._rows - self._settled >= self.config.block:
            self._settle()
        return ids

    def _arrive_again(self, rows: Tensor, strength: Tensor, time: Tensor, segment: Tensor) -> None:
        """rows [N] may hold a row several times, in the order of arrival."""
        left = torch.arange(len(rows))
        while len(left):  # the first arrival of each row, then the second, ...
            now = torch.ones(len(left), dtype=torch.bool)
            order = torch.sort(rows[left], stable=True)
            now[order.indices[1:]] = order.values[1:] != order.values[:-1]
            at = left[now]
            self._gain(rows[at], strength[at], time[at])
            self._times[rows[at]], self._segments[rows[at]] = time[at], segment[at]
            left = left[~now]

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
            self._centroids = _means(vectors, torch.zeros(len(vectors), dtype=torch.int64), 1)
        lists = torch.cat([lists, self._closest(vectors[len(lists) :])])
        sizes = torch.bincount(lists, minlength=self.lists)
        long = sizes > 2 * self.config.list_size
        short = (sizes < max(1, self.config.list_size // 8)) & (sizes < sizes.max())
        fresh = [
            centroid
            for name in torch.nonzero(long).squeeze(1).tolist()
            for centroid in _bisected(vectors[lists == name], 2 * self.config.list_size)
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
        self._centroids, self._starts = self._centroids[sizes > 0], _starts(sizes[sizes > 0])
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


def _bisected(vectors: Tensor, most: int) -> list[Tensor]:
    """Centroids [W] of parts of at most ``most`` rows, by 2-means from the two rows that are far from each other."""
    if len(vectors) <= most:
        return [_means(vectors, torch.zeros(len(vectors), dtype=torch.int64), 1)[0]]
    one = vectors[(vectors @ vectors.mean(0)).argmin()]
    two = vectors[(vectors @ one).argmin()]
    for _ in range(_ROUNDS):
        lean = vectors @ (one - two)
        side = (lean > 0).to(torch.int64)
        if not 0 < int(side.sum()) < len(side):  # no boundary between them: the upper half against the lower
            side = torch.zeros_like(side).scatter(0, torch.sort(lean, stable=True).indices[len(side) // 2 :], 1)
        two, one = _means(vectors, side, 2).unbind(0)
    return [centroid for part in (0, 1) for centroid in _bisected(vectors[side == part], most)]


def _means(vectors: Tensor, lists: Tensor, count: int) -> Tensor:
    """Unit means [count,W] of the rows in each list; summed in float64 in the order of the rows."""
    sums = torch.zeros(count, vectors.shape[1], dtype=torch.float64).index_add_(0, lists, vectors.double())
    return (sums / sums.norm(dim=1, keepdim=True).clamp_min(1e-12)).float()


def _starts(sizes: Tensor) -> Tensor:
    return torch.cat([torch.zeros(1, dtype=torch.int64), sizes.to(torch.int64).cumsum(0)])


def _joined(parts: list[Found]) -> Found:
    return Found(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _column(value: Tensor | float, count: int, name: str, kind: torch.dtype) -> Tensor:
    column = torch.as_tensor(value)
    if column.dim() > 1 or column.numel() not in (1, count):
        raise UsageError(
            f"index: got {name} of shape {list(column.shape)}, expected one number or [{count}].",
            "Give one per vector.",
        )
    return column.to(kind).reshape(-1).expand(count)


def _need(ok: bool, name: str, got: object, expected: str) -> None:
    if not ok:
        raise UsageError(f"index.{name}: got {got}, expected {expected}.", "Correct the value.")
