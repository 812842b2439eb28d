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
from neuro.memory.index_rows import IndexConfig, IndexRows, first_rows, means, need

SCHEMA = "neuro.index/1"
_SPARE = 8  # candidates beyond k that are scored again: float32 products may misplace near-equals
_SAME_PROBES = 8  # lists in which an item that is there already is looked for
_QUERIES = 256  # scored at a time
_FEW = 4  # queries up to which each goes through its lists by itself, instead of each list through its queries


class Found(NamedTuple):
    """The best items of each query, best first; of equals the older. Q queries."""

    ids: Tensor  # [Q, k] int64; -1 where the lists that were probed held fewer
    cosines: Tensor  # [Q, k] float64; -2 where there is no item
    scanned: Tensor  # [Q] int64, products computed: centroids, and rows of lists and of the unsettled block


class CentroidIndex(IndexRows):
    """Vectors by nearness, in time and by strength."""

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
        need(probes >= 1, "probes", probes, "at least 1")
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
        need(reach >= 1, "reach", reach, "at least 1")
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
        need(by > 0 and math.isfinite(by), "by", by, "above 0")
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
        need(rounds >= 1, "rounds", rounds, "at least 1")
        self._settle()
        for _ in range(rounds):
            if self.lists:
                self._centroids = means(self._vectors[: self._rows], self._list_of_rows(), self.lists)
                self._arrange(self._closest(self._vectors[: self._rows]))
        self._settle()
        if self.lists:  # splits and dissolved lists moved rows away: what a centroid is made of is in its list
            self._centroids = means(self._vectors[: self._rows], self._list_of_rows(), self.lists)
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
        index._centroids, index._starts = tensors["centroids"], first_rows(held)
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
