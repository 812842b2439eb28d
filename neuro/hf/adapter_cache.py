"""The state of running rows of an adapter: what the base has cached, and what the memory holds.

Axes: B batch rows, T tokens.

Rows that started after the same number of padding columns share a base cache and a clock; a padded row never shows the base
its padding, so every row is what it would be alone. Beams of one prompt always share one state.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from neuro import tensor_file
from neuro.errors import FormatError, UsageError
from neuro.hf.adapter_fusion import MemoryState
from neuro.hf.adapter_reread import reread
from neuro.hf.streaming import RowCache, padded_late
from neuro.memory.contents import EPISODIC
from neuro.state import detach, tree_map

if TYPE_CHECKING:
    from neuro.hf.adapter import HippocampalAdapter

SCHEMA = "neuro.adapter-memory/1"


@dataclasses.dataclass
class RowGroup:
    """Rows with one clock."""

    rows: list[int]  # of the batch, ascending
    memory: MemoryState | None  # None for an adapter without one
    base: Any = None  # the base's own cache; None before its first token and after its context ended
    filled: int = 0  # tokens in it
    recent: Tensor | None = None  # [rows, at most overlap] the last tokens


class AdapterCache(RowCache):
    """Where every row of a batch has got to. `HippocampalAdapter.forward` advances it in place.

    Args:
        memory: what each row remembers to begin with, as `memory_of` gave it, of as many rows as the first tokens have.
    """

    _groups: list[RowGroup]

    def __init__(self, memory: MemoryState | None = None) -> None:
        super().__init__([] if memory is None else [RowGroup(list(range(memory.candidate.shape[0])), memory)])

    def run(
        self, adapter: HippocampalAdapter, tokens: Tensor, padding: Sequence[int], keep: int
    ) -> tuple[Tensor, Tensor]:
        """Feed every row its tokens [B,T] but the ``padding`` first -> logits [B,keep,V] and gates [B,T], zero at padding.

        Raises:
            UsageError: another batch than before, or padding after a row's first token.
        """
        batch, length = tokens.shape
        if not self._groups:
            self._groups = [RowGroup(list(range(batch)), adapter.init_memory(batch))]
        self._check_rows(batch)
        done: list[RowGroup] = []
        ran: list[int] = []
        found: list[tuple[Tensor, Tensor]] = []
        for group in self._groups:
            skips = [padding[row] for row in group.rows]
            if any(skips) and group.filled + (group.base is not None):
                raise padded_late()
            for skip in sorted(set(skips)):
                local = [i for i, own in enumerate(skips) if own == skip]
                own_rows = [group.rows[i] for i in local]
                part = group if len(local) == len(group.rows) else self._taken(group, local, own_rows)
                own = tokens[part.rows, skip:]
                logits, gate = _advance(adapter, own, part, keep)
                found.append((F.pad(logits, (0, 0, keep - logits.shape[1], 0)), F.pad(gate, (skip, 0))))
                ran += part.rows
                done.append(part)
        self._groups = done
        self._length += length
        order = sorted(range(batch), key=ran.__getitem__)
        logits, gates = (torch.cat(pieces) for pieces in zip(*found, strict=True))
        return (logits, gates) if order == list(range(batch)) else (logits[order], gates[order])

    def commit(self, adapter: HippocampalAdapter) -> None:
        """End the span now: what was read is remembered from here on."""
        for group in self._groups:
            if group.memory is not None:
                group.memory = adapter.fusion.commit(group.memory)

    def end_context(self) -> None:
        """What comes next follows on nothing: the base starts afresh, and only what is stored stays."""
        for group in self._groups:
            group.base, group.filled, group.recent = None, 0, None
            if group.memory is not None:
                own = group.memory.hippocampus
                cut: dict[str, Any] = {
                    name: torch.zeros_like(getattr(own, name)) for name in ("has_key", "last_content", "trust")
                }
                group.memory = group.memory._replace(hippocampus=own._replace(**cut))

    def memory_of(self, row: int) -> MemoryState:
        """What one row remembers, as a batch of one.

        Raises:
            UsageError: there is no such row, or the adapter has no memory.
        """
        for group in self._groups:
            if row in group.rows and group.memory is not None:
                return _selected(group.memory, [group.rows.index(row)])
        raise UsageError(f"cache: got row {row}, expected a row with a memory.", "Choose a row that has run.")

    def put_memories(self, memories: Sequence[MemoryState]) -> None:
        """Give row i the slots of ``memories[i]`` (each a batch of one), and let all else go on as it was.

        Raises:
            UsageError: not one memory for each row.
        """
        rows = max(0, self.batch_size)
        if len(memories) != rows:
            raise UsageError(f"cache: got {len(memories)} memories, expected {rows}.", "Give one for each row.")
        for group in self._groups:
            if group.memory is None:
                continue
            own = group.memory.hippocampus
            others = [memories[row].hippocampus for row in group.rows]
            slots: dict[str, Any] = {name: torch.cat([getattr(other, name) for other in others]) for name in EPISODIC}
            group.memory = group.memory._replace(hippocampus=own._replace(**slots), lists=())

    def reread(self, adapter: HippocampalAdapter, texts: Sequence[Sequence[Tensor]] | None = None) -> None:
        """Encode what each row remembers afresh from the text it came of, by the base as it is now, and end its context.

        Args:
            texts: for each row what it has read, as `neuro.hf.adapter_reread.reread` takes it; None tells it from the slots.

        Raises:
            UsageError: not one list of texts for each row, or what `reread` refuses.
        """
        rows = max(0, self.batch_size)
        if texts is not None and len(texts) != rows:
            raise UsageError(f"reread: got texts of {len(texts)} rows, expected {rows}.", "Give a list for each row.")
        given: Sequence[Sequence[Tensor] | None] = [None] * rows if texts is None else texts
        self.put_memories([reread(adapter, self.memory_of(row), given[row]) for row in range(rows)])
        self.end_context()

    def forget(self) -> None:
        """Empty all slots and drop what waits for the commit; the base's context goes on."""
        for group in self._groups:
            if group.memory is not None:
                own = group.memory.hippocampus
                slots: dict[str, Any] = {
                    name: torch.zeros_like(getattr(own, name)) for name in EPISODIC if name != "position"
                }
                waits = torch.zeros_like(group.memory.candidate)
                group.memory = group.memory._replace(hippocampus=own._replace(**slots), candidate=waits, lists=())

    def save_memory(self, path: str | Path, row: int = 0) -> None:
        """Write what one row remembers: its filled slots, safetensors with a header. Load with `load_memory`.

        Raises:
            UsageError: no such row.
            NeuroError: the file cannot be written.
        """
        own = self.memory_of(row).hippocampus
        filled = (own.strengths[0] > 0).nonzero().squeeze(1)
        tensors = {name: getattr(own, name)[0][filled] for name in EPISODIC if name != "position"}
        tensors["position"] = own.position
        header = {"schema": SCHEMA, "key_width": own.keys.shape[-1], "width": own.values.shape[-1]}
        tensor_file.write(path, tensors, header)

    def _taken(self, group: RowGroup, local: list[int], rows: list[int]) -> RowGroup:
        if local == list(range(len(group.rows))):
            return dataclasses.replace(group, rows=rows)
        base = copy.deepcopy(group.base)
        if base is not None:
            base.reorder_cache(torch.tensor(local))
        memory = None if group.memory is None else _selected(group.memory, local)
        recent = None if group.recent is None else group.recent[local]
        return RowGroup(rows, memory, base, group.filled, recent)

    def detach(self) -> None:
        """Cut the memories from the graph that made them, and let the base start afresh: between two windows of training."""
        for group in self._groups:
            group.memory = None if group.memory is None else detach(group.memory)
            group.base, group.filled, group.recent = None, 0, None


def load_memory(path: str | Path, fresh: MemoryState) -> MemoryState:
    """The ``fresh`` state with the slots of a file in every row.

    Raises:
        MissingError, FormatError: no such file, or a foreign one.
        UsageError: of another width, or of more slots than there are.
    """
    tensors, _ = tensor_file.read(path, SCHEMA)
    own = fresh.hippocampus
    widths = (own.keys.shape[-1], own.values.shape[-1])
    try:
        found, count = (tensors["keys"].shape[-1], tensors["values"].shape[-1]), len(tensors["keys"])
        shapes = {name: list(tensors[name].shape) for name in EPISODIC}
    except (KeyError, IndexError) as error:
        raise FormatError(f"{path}: tensor {error} is missing.", "It is not whole: use another copy.") from error
    if found != widths:
        raise UsageError(
            f"{path}: got a store of keys {found[0]} and values {found[1]} wide, expected {widths[0]} and {widths[1]}.",
            "Load it with the adapter that wrote it.",
        )
    if count > own.strengths.shape[1]:
        raise UsageError(
            f"{path}: got {count} filled slots, expected at most {own.strengths.shape[1]}.",
            "Give the adapter more slots.",
        )
    plain = {"values": [count, widths[1]], "strengths": [count], "origins": [count], "position": [1]}
    for name, shape in plain.items():
        if shapes[name] != shape:
            raise FormatError(f"{path}: '{name}' has shape {shapes[name]}, expected {shape}.", "Use another copy.")
    slots: dict[str, Any] = {}
    for name in EPISODIC:
        room, held = getattr(own, name).clone(), tensors[name].to(getattr(own, name))
        if name == "position":
            room[:] = held
        else:
            room[:, :count] = held
        slots[name] = room
    return fresh._replace(hippocampus=own._replace(**slots))


def _selected(memory: MemoryState, rows: list[int]) -> MemoryState:
    return tree_map(lambda leaf: leaf[rows], memory)


def _advance(adapter: HippocampalAdapter, tokens: Tensor, group: RowGroup, keep: int) -> tuple[Tensor, Tensor]:
    """Run tokens [b,T] of one group, starting the base's context again at the window's end."""
    config, length, start = adapter.config, tokens.shape[1], 0
    logits: list[Tensor] = []
    gates: list[Tensor] = []
    while start < length:
        if config.window is not None and group.filled >= config.window:
            recent = group.recent
            group.base, group.filled = None, 0
            if recent is not None and recent.shape[1]:
                group.base, group.filled = adapter.read_again(recent), recent.shape[1]
        stop = length if config.window is None else min(length, start + config.window - group.filled)
        wanted = max(0, min(stop - start, stop - (length - keep)))
        piece, gate, group.base, group.memory = adapter.advance(tokens[:, start:stop], group.base, group.memory, wanted)
        group.filled += stop - start
        if config.overlap:
            new = tokens[:, start:stop]
            before = new[:, :0] if group.recent is None else group.recent
            group.recent = torch.cat([before, new], 1)[:, -config.overlap :]
        logits.append(piece)
        gates.append(gate)
        start = stop
    if not logits:
        empty = tokens.new_zeros(tokens.shape[0], 0, dtype=torch.float32)
        return empty.new_zeros(*empty.shape, config.vocab_size), empty
    return torch.cat(logits, 1), torch.cat(gates, 1)
