"""The state of running rows as the cache object that transformers passes around, reorders and returns.

Axes: B batch rows, T tokens, C prosody channels, D width, V vocabulary.

The rows of one `BrainState` share a clock, so they commit together. Left padding gives the rows of a batch different
lengths: rows whose clocks differ are kept in states of their own, and every row commits exactly where it would commit
alone. Rows of equal length (no padding, beams of one prompt, several samples of it) always share one state.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from neuro.brain import Brain
from neuro.errors import UsageError
from neuro.hf.streaming import CACHE_NAME, RowCache, padded_late
from neuro.state import BrainState, detach, select_rows, tree_map

__all__ = ["CACHE_NAME", "NeuroCache"]


@dataclasses.dataclass
class _Group:
    rows: list[int]  # of the batch, ascending
    state: BrainState  # [len(rows), ...]


class NeuroCache(RowCache):
    """Where every row of a batch has got to. `NeuroForCausalLM.forward` advances it in place.

    Args:
        state: to continue from (a `Session`'s, or one with a loaded memory); None starts afresh, with as many rows as
            the first tokens have.
    """

    _groups: list[_Group]

    def __init__(self, state: BrainState | None = None) -> None:
        super().__init__([] if state is None else [_Group(list(range(state.started.shape[0])), state)])

    def row_state(self, row: int) -> BrainState:
        """The state of one row, as a batch of one (for a `Session`, or to save its memory).

        Raises:
            UsageError: there is no such row.
        """
        for group in self._groups:
            if row in group.rows:
                return _take(group.state, [group.rows.index(row)])
        raise UsageError(f"cache: got row {row}, expected 0..{self.batch_size - 1}.", "Choose a row that has run.")

    def warmth(self, brain: Brain) -> Tensor:
        """`Brain.warmth` of every row, float64 [B]."""
        parts = torch.cat([brain.warmth(group.state) for group in self._groups])
        rows = [row for group in self._groups for row in group.rows]
        return _rows(parts, sorted(range(len(rows)), key=rows.__getitem__))

    def run(
        self,
        brain: Brain,
        tokens: Tensor,
        padding: Sequence[int],
        prosody: Tensor | None,
        keep: int,
        keep_features: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """Feed every row its tokens, committing at each span's end, with the graph attached.

        Args:
            tokens: [B, T] int64.
            padding: how many of its first columns each row skips; only rows that have not started may skip any.
            prosody: [B, T, C], or None.
            keep: of how many last columns the logits are wanted.
            keep_features: of how many last columns what the logits are made of is wanted.

        Returns:
            logits [B, keep, V] and features [B, keep_features, D]; zero where a row was skipped.

        Raises:
            UsageError: another batch than before, or padding after a row's first token.
        """
        batch, length = tokens.shape
        if not self._groups:
            self._groups = [_Group(list(range(batch)), brain.init_state(batch))]
        self._check_rows(batch)
        parts: list[tuple[list[int], tuple[Tensor, Tensor]]] = []
        by_clock: dict[int, list[_Group]] = {}
        for group in self._groups:
            skips = [padding[row] for row in group.rows]
            for skip in sorted(set(skips)):
                local = [i for i, own in enumerate(skips) if own == skip]
                rows, state = [group.rows[i] for i in local], _take(group.state, local)
                if skip and bool(state.started.any()):
                    raise padded_late()
                own_prosody = None if prosody is None else _rows(prosody, rows)[:, skip:]
                own = _rows(tokens, rows)[:, skip:]
                found, state = _advance(brain, own, state, own_prosody, (keep, keep_features))
                parts.append((rows, found))
                by_clock.setdefault(int(state.clock), []).append(_Group(rows, state))
        self._groups = [_join(groups) for groups in by_clock.values()]
        self._length += length
        if len(parts) == 1:
            return parts[0][1]
        ran = [row for rows, _ in parts for row in rows]
        order = sorted(range(batch), key=ran.__getitem__)
        logits, features = (
            _rows(torch.cat(pieces), order) for pieces in zip(*(found for _, found in parts), strict=True)
        )
        return logits, features

    def _taken(self, group: _Group, local: list[int], rows: list[int]) -> _Group:
        return _Group(rows, _take(group.state, local))

    def fork(self) -> NeuroCache:
        """Another cache at the same place; running one leaves the other where it is. Copies no tensor."""
        return copy.copy(self)

    def become(self, other: NeuroCache) -> None:
        """Go on from where ``other`` has got to."""
        self._groups, self._length = other._groups, other._length

    def detach(self) -> None:
        """Cut the state from the graph that made it: between two windows of truncated backpropagation."""
        self._groups = [_Group(group.rows, detach(group.state)) for group in self._groups]


def _advance(
    brain: Brain, tokens: Tensor, state: BrainState, prosody: Tensor | None, keep: tuple[int, int]
) -> tuple[tuple[Tensor, Tensor], BrainState]:
    """Scan and commit tokens [b, T]; logits and features of so many last columns, zero before the first token."""
    length, start = tokens.shape[1], 0
    kept: tuple[list[Tensor], list[Tensor]] = ([], [])
    while start < length:
        stop = min(length, start + brain.remaining(state))
        out = brain.scan(tokens[:, start:stop], state, None if prosody is None else prosody[:, start:stop])
        state = out.state
        for columns, pieces, made in zip(keep, kept, (out.logits, out.aux.features), strict=True):
            wanted = min(stop - start, stop - (length - columns))
            if wanted > 0:
                pieces.append(made[:, -wanted:])
        if brain.remaining(state) == 0:
            state, _ = brain.commit(state)
        start = stop
    widths = (brain.config.vocab_size, brain.config.d_model)
    logits, features = (
        _padded(brain, tokens, pieces, columns, width)
        for pieces, columns, width in zip(kept, keep, widths, strict=True)
    )
    return (logits, features), state


def _padded(brain: Brain, tokens: Tensor, pieces: list[Tensor], columns: int, width: int) -> Tensor:
    """The pieces side by side, with zeros at the left up to [b, columns, width]."""
    if not pieces:
        return brain.embedding.new_zeros(tokens.shape[0], columns, width, dtype=brain.carried_dtype)
    whole = torch.cat(pieces, 1)
    return F.pad(whole, (0, 0, columns - whole.shape[1], 0))


def _rows(tensor: Tensor, rows: list[int]) -> Tensor:
    """Those rows of a tensor; the tensor itself where they are all of it, in order."""
    if rows == list(range(tensor.shape[0])):
        return tensor
    if tensor.requires_grad and torch.is_grad_enabled():  # the gradient of index_select scatters
        return torch.cat([tensor.narrow(0, row, 1) for row in rows])
    return tensor.index_select(0, torch.tensor(rows, device=tensor.device))


def _take(state: BrainState, rows: list[int]) -> BrainState:
    """Those rows of a state; the state itself where they are all of it, in order."""
    if rows == list(range(state.started.shape[0])):
        return state
    return select_rows(state, torch.tensor(rows, device=state.started.device))


def _join(groups: list[_Group]) -> _Group:
    """One group of groups whose clocks agree."""
    if len(groups) == 1:
        return groups[0]
    rows = [row for group in groups for row in group.rows]
    states = [group.state for group in groups]
    joined = tree_map(lambda *leaves: leaves[0] if leaves[0].dim() == 0 else torch.cat(leaves), *states)
    return _Group(sorted(rows), _take(joined, sorted(range(len(rows)), key=rows.__getitem__)))
