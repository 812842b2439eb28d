"""Slot lists: an inverted file over the slots of an episodic memory, so that a read need not look at all of them.

Axes: B rows, M slots, K key width, C lists, T tokens, N slots that some token looks at.

A read looks at the slots in the ``probes`` lists whose centroids are closest to the query (of equals, at all). What it does
with them is what the exact read does with every slot, so at as many probes as lists it is the exact read. Lists are fitted by
a few rounds of spherical k-means from slots evenly apart, and nothing is drawn; what a commit writes goes into the closest
list, and when as much was written as was there the lists are fitted again. They are made of the slots alone: whoever
exchanges slots drops the lists. Sivic and Zisserman 2003, doi:10.1109/ICCV.2003.1238663.
differs from `neuro.memory.centroid_index`: the slots stay where they are and equal ones stay apart, so that a read has the same
strengths, ages and duplicates as without.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_LIST = 100  # slots that a list is meant to hold
_ROUNDS = 4
_EQUAL = 1e-6  # cosines closer than this count as equal


class SlotLists(NamedTuple):
    """Which list each slot is in."""

    centroids: Tensor  # [B, C, K] unit vectors
    assigned: Tensor  # [B, M] int64
    left: Tensor  # [B] writes until the lists are fitted again


class Candidates(NamedTuple):
    """What a read looks at."""

    slots: Tensor  # [B, N] int64, ascending in each row
    seen: Tensor  # [B, T, N] whether that token looks at it


@torch.no_grad()
def fit(keys: Tensor, strengths: Tensor) -> SlotLists:
    """Lists of the filled slots: keys [B,M,K] unit, strengths [B,M], of which those above 0 are filled."""
    filled = strengths > 0
    counts = filled.sum(1)
    lists = max(1, round(int(counts.max()) / _LIST))
    centroids = keys.new_zeros(len(keys), lists, keys.shape[2])
    for row, (own, live) in enumerate(zip(keys, filled, strict=True)):
        held = own[live]
        if not len(held):
            continue
        now = held[torch.linspace(0, len(held) - 1, lists, device=held.device).long()]
        for _ in range(_ROUNDS):
            sums = torch.zeros_like(now).index_add_(0, _closest(held, now), held)
            length = sums.norm(dim=1, keepdim=True)
            now = torch.where(length > 0, sums / length.clamp_min(1e-12), now)
        centroids[row] = now
    assigned = torch.stack([_closest(own, now) for own, now in zip(keys, centroids, strict=True)])
    return SlotLists(centroids, assigned, counts.clamp_min(_LIST))


@torch.no_grad()
def written(lists: SlotLists, before: Tensor, keys: Tensor, strengths: Tensor) -> SlotLists:
    """The lists after a commit that took the keys from ``before`` to ``keys`` [B,M,K]; ``strengths`` are those after it."""
    changed = (before != keys).any(-1)
    left = lists.left - changed.sum(1)
    if bool((left <= 0).any()):
        return fit(keys, strengths)
    assigned = lists.assigned.clone()
    for row, slots in enumerate(changed):
        assigned[row, slots] = _closest(keys[row, slots], lists.centroids[row])
    return lists._replace(assigned=assigned, left=left)


@torch.no_grad()
def candidates(lists: SlotLists, query: Tensor, *, strengths: Tensor, probes: int) -> Candidates:
    """What each of the queries [B,T,K] looks at among the filled slots."""
    near = query @ lists.centroids.transpose(1, 2)  # [B, T, C]
    least = near.topk(min(probes, near.shape[-1]), dim=-1).values[..., -1:]
    probed = near >= least - _EQUAL
    looked_at = probed.any(1).gather(1, lists.assigned) & (strengths > 0)  # [B, M]
    counts = looked_at.sum(1)
    slots = lists.assigned.new_zeros(len(query), max(1, int(counts.max())))
    for row, live in enumerate(looked_at):
        slots[row, : int(counts[row])] = live.nonzero().squeeze(1)
    there = torch.arange(slots.shape[1], device=slots.device) < counts.unsqueeze(1)
    own = lists.assigned.gather(1, slots).unsqueeze(1).expand(-1, query.shape[1], -1)
    return Candidates(slots, probed.gather(2, own) & there.unsqueeze(1))


def _closest(keys: Tensor, centroids: Tensor) -> Tensor:
    """keys [N,K] -> the closest of centroids [C,K] for each [N]; of equals the first."""
    parts = [(part @ centroids.T).argmax(1) for part in keys.split(4096)]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64, device=keys.device)
