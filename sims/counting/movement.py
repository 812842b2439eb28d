"""Operators without arithmetic: what they do to tags, and the bytes they move."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sims.counting.tags import DENSE, GRADED, PLAIN, Shared, Tag

if TYPE_CHECKING:
    from sims.counting.counter import Counting

Rule = Callable[["Counting", Any, Any, Any], None]


def tensors(found: Any) -> list[Tensor]:
    if isinstance(found, Tensor):
        return [found]
    return [x for part in found for x in tensors(part)] if isinstance(found, (tuple, list)) else []


def bits(x: Tensor) -> int:
    return 8 * x.element_size()


def free(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    if isinstance(out, Tensor) and args and out is args[0] and c.tags.get(out) is not PLAIN:
        c.tags.put(out, PLAIN)


def keep(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    """Views, copies, selections: what comes out is what went in."""
    tag = c.tags.get(args[0]) if args else PLAIN
    if tag is not PLAIN:
        put(c, tag, args, kwargs, out)


def put(c: Counting, tag: Tag, args: Any, kwargs: Any, out: Any) -> None:
    """Tag what an operator made of its first argument; where it holds several populations, they move as it does."""
    found = tensors(out)
    if tag.shared is None:
        for x in found:
            c.tags.put(x, tag)
        return
    moved = tensors(c.func(tag.shared.owners, *args[1:], **kwargs))
    for x, owners in zip(found, moved, strict=True):
        if x.shape == owners.shape:
            c.tags.put(x, tag._replace(shared=Shared(tag.shared.sources, owners)))


def copy(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    tag = c.tags.get(args[1])
    c.tags.put(out, tag if tag.weight is None and args[1].shape == out.shape else PLAIN)


def join(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    """cat and stack: populations keep apart in what they are joined to."""
    tags = [c.tags.get(x) for x in args[0]]
    if all(tag is PLAIN for tag in tags):
        return
    if any(tag.weight is not None for tag in tags):
        for x in args[0]:
            c.reads(x)
        return
    kinds = {tag.kind for tag in tags}
    kind = kinds.pop() if len(kinds) == 1 else (DENSE if DENSE in kinds else GRADED)
    drives = {tag.drive for tag in tags}
    drive = drives.pop() if len(drives) == 1 else None
    if kind == DENSE:
        c.tags.put(out, Tag(drive=drive))
        return
    sources = {tag.source for tag in tags}
    if len(sources) == 1 and all(tag.shared is None for tag in tags):
        c.tags.put(out, Tag(kind, sources.pop(), drive))
        return
    every: list[str | None] = []
    owners = []
    for x, tag in zip(args[0], tags, strict=True):
        if tag.shared is None:
            owners.append(torch.full((), len(every), dtype=torch.int16, device=x.device).expand(x.shape))
            every.append(tag.source)
        else:
            owners.append(tag.shared.owners + len(every))
            every += tag.shared.sources
    c.tags.put(out, Tag(kind, None, drive, shared=Shared(tuple(every), c.func(owners, *args[1:], **kwargs))))


def pad(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    value = args[2] if len(args) > 2 else kwargs.get("value", 0)
    if not value:
        keep(c, args, kwargs, out)


def where(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    if len(args) == 3:
        tags = [c.tags.get(x) for x in args[1:] if isinstance(x, Tensor) or x != 0]
        if tags and all(tag is tags[0] and tag.weight is None for tag in tags):
            c.tags.put(out, tags[0])


def masked_fill(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    value = args[2]
    tag = c.tags.get(args[0])
    zero = not isinstance(value, Tensor) and value == 0
    if tag is not PLAIN or out is args[0]:
        c.tags.put(out, tag if zero and tag.weight is None else PLAIN)


def rows(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    """gather, index and their like read what they give."""
    tag, size = c.tags.get(args[0]), out.numel() * out.element_size()
    if tag.weight is not None:
        c.move("memory" if tag.weight in c.buffers else "weights", size, 0, c.owner(tag))
    elif tag is not PLAIN:
        put(c, tag, args, kwargs, out)
    else:
        c.move("memory", size, 0)


def store(values: int) -> Rule:
    def rule(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
        """scatter, index_put and their like write ``values`` rows of what they are given."""
        given = args[values] if len(args) > values else kwargs.get("src", kwargs.get("values"))
        index = next((x for x in tensors(args[1:values]) if not x.is_floating_point()), None)
        count = given.numel() if isinstance(given, Tensor) and given.dim() else (0 if index is None else index.numel())
        c.move("memory", 0, count * out.element_size())
        if kwargs.get("accumulate", len(args) > 3 and args[3] is True):
            c.emit("accumulate", count)
        free(c, args, kwargs, out)

    return rule


def adding_store(values: int) -> Rule:
    stored = store(values)

    def rule(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
        stored(c, args, kwargs, out)
        given = args[values]
        c.emit("accumulate", given.numel() if isinstance(given, Tensor) else out.numel())

    return rule


def embedding(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    tag, size = c.tags.get(args[0]), out.numel() * out.element_size()
    c.move("weights" if tag.weight is not None else "memory", size, 0, c.owner(tag))


def embedding_bag(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    weight, indices, offsets = args[:3]
    mode = args[4] if len(args) > 4 else kwargs.get("mode", 0)
    weights = args[6] if len(args) > 6 else kwargs.get("per_sample_weights")
    y = out[0] if isinstance(out, tuple) else out
    rows, width = indices.numel(), weight.shape[1]
    full = y.shape[0]
    if indices.device.type != "meta" and offsets is not None:
        ends = torch.cat([offsets[1:], offsets.new_tensor([rows])]) if y.shape[0] == offsets.numel() else offsets[1:]
        full = int((ends > offsets[: ends.numel()]).sum())
    tag = c.tags.get(weight)
    c.move("weights" if tag.weight is not None else "memory", rows * width * weight.element_size(), 0, c.owner(tag))
    c.emit("compare" if mode == 2 else "accumulate", (rows - full) * width)
    c.emit("elementwise", full * width * (mode == 1) + (rows * width if weights is not None else 0))
