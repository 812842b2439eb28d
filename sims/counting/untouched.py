"""What keeps a counted module as it was: its attributes and buffers, and the random numbers."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

Held = list[tuple[dict[str, Any], dict[str, Any], list[tuple[Any, Any]], list[tuple[Tensor, Tensor]]]]


@contextlib.contextmanager
def same_randomness() -> Iterator[None]:
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        yield


def snapshot(parts: Iterable[nn.Module]) -> Held:
    """What modules hold, so that counting leaves it as it was: neurons may keep their state on themselves."""
    kept: Held = []
    for part in parts:
        held = vars(part)
        tables = [(value, value.copy()) for value in held.values() if type(value) in (dict, OrderedDict, list)]
        kept.append((held, dict(held), tables, [(x, x.clone()) for x in part._buffers.values() if x is not None]))
    return kept


def restore(kept: Held) -> None:
    for held, before, tables, buffers in kept:
        held.clear()
        held.update(before)
        for table, was in tables:
            if table or was:
                table.clear()
                table.extend(was) if isinstance(table, list) else table.update(was)
        for x, was in buffers:
            if not (x.is_meta or torch.equal(x, was)):
                x.copy_(was)
