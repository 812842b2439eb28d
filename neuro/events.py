"""Records that leave the brain after a step: detached, fixed shape, read by observers that cannot write back."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from neuro.state import tree_map

log = logging.getLogger("neuro.events")


class Events(NamedTuple):
    """What happened while tokens went through. S spiking populations, L routed layers."""

    spikes: Tensor  # [B, T, S] int64 spikes per token and population
    route: Tensor  # [B, T, L] 1 where the layer's feed-forward ran for the token
    affect: Tensor  # [B, T, 2]
    salience: Tensor  # [B, T]
    novelty: Tensor  # [B, T]
    recall_gate: Tensor  # [B, T] how much of what the episodic memory said was let in, 0 to 1
    surprise: Tensor  # [B, T] nats; 0 where nothing was predicted yet
    valid: Tensor  # [B, T]
    raster: (
        Tensor | None
    )  # [B, T, S, N] spikes of a channel, padded to the widest population; only with record_raster=True
    membrane: Tensor | None = None  # [B, T, S, N] potential before the reset; only with record_membrane=True


class CommitEvents(NamedTuple):
    """What a commit changed."""

    tokens: Tensor  # [] int64 tokens in the span
    writes: Tensor  # [B] int64 slots written
    evictions: Tensor  # [B] int64 filled slots overwritten
    filled: Tensor  # [B] int64 filled slots afterwards
    modulators: Tensor  # [B, H] afterwards
    surprise: Tensor  # [B] mean nats of the span
    novelty: Tensor  # [B]
    spike_rate: Tensor  # [B]


class Observer(Protocol):
    """Reads events once per span. Raising in one is logged and raised again, never swallowed."""

    def span(self, events: Sequence[Events], commit: CommitEvents) -> None: ...


def deliver(observers: Sequence[Observer], events: Sequence[Events], commit: CommitEvents) -> None:
    """Hand one span's records to every observer, each its own copy: what it writes there reaches nobody."""
    for observer in observers:
        copies = [tree_map(_copy, event) for event in events]
        try:
            observer.span(copies, tree_map(_copy, commit))
        except Exception:
            log.exception("observer %s failed", type(observer).__name__)
            raise


def _copy(leaf: Tensor | None) -> Tensor | None:
    return None if leaf is None else leaf.clone()
