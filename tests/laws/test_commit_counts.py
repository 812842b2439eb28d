"""Law: what learning costs is counted: the arithmetic of each commit by the operators that ran, its bytes by what moved."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

import backends
from backends import portable, reference
from neuro import accounting, presets
from neuro.brain import Brain
from neuro.config import apply_sets
from neuro.memory import contents
from neuro.session import Session
from neuro.state import BrainState, leaves
from sims.counting import Counting
from sims.energy import activity

BATCH = 2
KINDS = ("macs", "elementwise", "transcendental", "compare")
SETS = {
    "plain": [],
    "delta": ["procedural.rule=delta"],
    "delta, errors handed back": [
        "procedural.rule=delta",
        "procedural.through_dense=true",
        "cortex.feedforwards=dense,spiking",
    ],
    "errors handed back": ["procedural.through_dense=true", "cortex.feedforwards=dense,dense"],
    "natural, and what the cortex says": ["procedural.natural=true", "procedural.outward_half_life_tokens=40"],
    "natural, errors handed back": [
        "procedural.natural=true",
        "procedural.outward_half_life_tokens=40",
        "procedural.through_dense=true",
        "cortex.feedforwards=dense,spiking",
    ],
    "fast bias": ["procedural.bias_rate=0.02", "procedural.rank=3"],
    "rebinding": ["hippocampus.rebind=true", "hippocampus.writes_per_span=7"],
    "pointer": ["hippocampus.pointer=true", "hippocampus.key_direct=true", "hippocampus.slots=24"],
    "phrases": ["hippocampus.phrase=0.4", "hippocampus.slots=24"],
    "contiguity and clocks": ["hippocampus.contiguity=0.3", "hippocampus.time_cells=6", "hippocampus.key_trace=0.5"],
    "contiguity within events": ["hippocampus.contiguity=0.3", "hippocampus.segments=true", "hippocampus.slots=24"],
    "hormones and decay": ["endocrine.modulates_decay=true", "hippocampus.controller=learned"],
    "tagged": ["hippocampus.tag=true", "hippocampus.controller=tagged", "hippocampus.writes_per_span=3"],
    "a tag that nobody asks": ["hippocampus.tag=true"],
    "a hormone at rest": ["endocrine.off=serotonin"],
    "windows": ["cortex.mixers=window,window", "hippocampus.controller=random"],
    "no procedural memory": ["procedural.enabled=false", "hippocampus.controller=periodic"],
    "no hippocampus": ["hippocampus.enabled=false", "hippocampus.controller=salient"],
    "no hormones": ["endocrine.enabled=false", "hippocampus.controller=salient"],
    "no cortex": ["cortex.enabled=false"],
}
each = pytest.mark.parametrize("sets", SETS.values(), ids=SETS)


class Touched(TorchDispatchMode):
    """Which of the named tensors an operator took, views and empty likenesses aside."""

    def __init__(self, named: dict[str, Tensor]) -> None:
        super().__init__()
        self.names = {x.untyped_storage().data_ptr(): name for name, x in named.items() if x.numel()}
        assert len(self.names) == sum(bool(x.numel()) for x in named.values())
        self.read: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        schema = func._schema
        view = schema.returns and all(r.alias_info and not r.alias_info.is_write for r in schema.returns)
        if not view and not schema.name.endswith(("_like", "::new_zeros", "::new_full", "::new_ones")):
            for x in tree_leaves((args, kwargs or {})):
                if isinstance(x, Tensor):
                    name = self.names.get(x.untyped_storage().data_ptr())
                    self.read |= set() if name is None else {name}
        return func(*args, **(kwargs or {}))


class Watched:
    """A brain on the portable operators, every scan and commit of which is watched: bytes by (region, store)."""

    def __init__(self, sets: Sequence[str]) -> None:
        torch.manual_seed(3)
        self.slot_bytes = 0  # of slots that the last commit wrote
        self.seen_written: list[int] = []  # the same of every commit, by the operator counter
        self.written_each: list[int] = []
        # The plainest scan: what the portable one does twice to be fast is no work of the brain.
        ops = dataclasses.replace(portable.OPS, write_rows=self._write_rows, affine_scan=reference.OPS.affine_scan)
        backend = dataclasses.replace(backends.select("cpu"), ops=ops)
        self.brain = Brain(apply_sets(presets.tiny().brain, list(sets)), backend).eval()
        self.read: Counter[tuple[str, str]] = Counter()
        self.written: Counter[tuple[str, str]] = Counter()
        self.operations: Counter[tuple[str, str]] = Counter()  # of the commits, by region and column
        self.scan, self.commit = self.brain.scan, self.brain.commit
        self.brain.scan = self._scan  # type: ignore[method-assign]
        self.brain.commit = self._commit  # type: ignore[method-assign]
        self.tally = accounting.Tally(self.brain)
        session = Session(self.brain, batch=BATCH, observers=[self.tally])
        ids = torch.randint(0, self.brain.config.vocab_size, (BATCH, 45), generator=torch.Generator().manual_seed(1))
        session.feed(ids[:, :37])
        for i in range(37, 45):
            session.feed(ids[:, i : i + 1])
        session.commit()
        assert self.tally.phases["prefill"].commit_calls == 3 and self.tally.commits == 3 * BATCH
        self.load = accounting.workload(self.brain, self.tally, "tiny", (1.0, 0.0))

    def _write_rows(self, memory: Tensor, slots: Tensor, rows: Tensor, keep: Tensor) -> Tensor:
        """One row after the other."""
        with _disable_current_modes():
            memory = memory.clone()
            for b, c in keep.nonzero().tolist():
                memory[b, slots[b, c]] = rows[b, c]
                self.slot_bytes += 4 * rows.shape[-1]
        return memory

    def _scan(self, tokens: Tensor, state: BrainState, *more: Any) -> Any:
        with Touched(self._named(state)) as touched:
            out = self.scan(tokens, state, *more)
        self._add(touched, state, out.state)
        return out

    def _commit(self, state: BrainState) -> Any:
        with Counting(self.brain) as counting:
            self.commit(state)
        load = counting.workload(1, "token")
        self.seen_written.append(sum(row.written_bytes for row in load.traffic if row.store == "memory"))
        for row in load.operations:
            column = {"mac": "macs", "accumulate": "elementwise"}.get(row.kind, row.kind)
            self.operations["bus" if row.region == "model" else row.region, column] += row.count
        self.slot_bytes = 0
        with Touched(self._named(state)) as touched:
            found = self.commit(state)
        self._add(touched, state, found[0])
        self.written_each.append(self.slot_bytes)
        if "hippocampus" in self.brain.regions:
            self.written["hippocampus", "memory"] += self.slot_bytes + 4 * state.regions.hippocampus.strengths.numel()
            # How many slots are filled is told to observers: no work of the brain.
            slots = self.brain.config.hippocampus.slots
            self.operations["bus", "elementwise"] -= BATCH * (slots - 1)
            self.operations["bus", "compare"] -= BATCH * slots
        return found

    def _named(self, state: BrainState) -> dict[str, Tensor]:
        return dict(leaves(state)) | dict(self.brain.named_parameters())

    def _add(self, touched: Touched, before: BrainState, after: BrainState) -> None:
        """What an operator took was read; what has another tensor now was written, but for slots, written one by one."""
        carried, named = dict(leaves(before)), self._named(before)
        for path in touched.read - {path for path in carried if path.startswith("buffer.")}:
            self.read[place(path) if path in carried else weights(path)] += 4 * named[path].numel()
        for path, new in leaves(after):
            # The span buffer goes as one, in and out each time.
            buffered, moved = path.startswith("buffer."), not same(carried[path], new)
            self.read[place(path)] += 4 * new.numel() * buffered
            self.written[place(path)] += 4 * new.numel() * (moved and place(path)[1] != "memory")


def same(old: Tensor, new: Tensor) -> bool:
    return old.untyped_storage().data_ptr() == new.untyped_storage().data_ptr()


def weights(name: str) -> tuple[str, str]:
    return name.split(".")[1] if "." in name else name, "weights"


def place(path: str) -> tuple[str, str]:
    """The region and the store of a leaf of the state."""
    if not path.startswith("regions."):
        return ("bus", "state") if path not in ("started", "clock") else ("bus", "uncounted")
    _, region, name = path.split(".", 2)
    if region == "hippocampus" and name in contents.SLOTTED:
        return region, "memory"
    return region, "kv" if region == "cortex" and name.endswith((".keys", ".values")) else "state"


@each
def test_a_commit_counts_the_operators_that_ran(sets):
    found = Watched(sets)
    off = {name: dataclasses.replace(p, commits=0, commit_calls=0, writes=0) for name, p in found.tally.phases.items()}
    on = activity.of(found.load)
    found.tally.phases = off
    without = activity.of(accounting.workload(found.brain, found.tally, "tiny", (1.0, 0.0)))
    learned: Counter[tuple[str, str]] = Counter()
    for rows, sign in ((on, 1), (without, -1)):
        for row in rows:
            for column in KINDS:
                learned[row.region, column] += sign * getattr(row, column)
    assert {key: n for key, n in learned.items() if n} == {key: n for key, n in found.operations.items() if n}


@each
def test_every_byte_that_moves_is_counted_once_a_call_and_a_commit(sets):
    found = Watched(sets)
    rows = [row for row in found.load.traffic if row.store != "bus"]
    for name, moved in (("read_bytes", found.read), ("written_bytes", found.written)):
        counted: Counter[tuple[str, str]] = Counter()
        for row in rows:
            counted[row.region, row.store] += getattr(row, name)
        moved.pop(("bus", "uncounted"))
        assert {key: n for key, n in counted.items() if n} == {key: n for key, n in moved.items() if n}, name


@pytest.mark.parametrize("controller", ["learned", "periodic"])
def test_the_operator_counter_counts_the_slots_that_are_written_and_no_others(controller):
    """The first token of a stream makes no pair, and the last span is not full: those rows are offered and not kept."""
    found = Watched([f"hippocampus.controller={controller}"])
    assert found.seen_written == found.written_each
    h, width = found.brain.config.hippocampus, found.brain.config.d_model
    assert sum(found.written_each) == 4 * (h.key_width + width + 2) * found.tally.writes
    assert found.tally.writes < found.tally.commits * h.writes_per_span
