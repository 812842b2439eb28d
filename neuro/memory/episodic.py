"""Episodic memory: an exact store of (context key, what came next) pairs per stream.

Read:   s_m = q . K_m,   z_m = scale * s_m + age * log(strength_m) for the k best filled slots,
        content = sum_m softmax(z)_m V_m,   evidence = log sum_m exp(z_m),   novelty = 1 - max(0, max_m s_m)
        With a contiguity c > 0, s_m + c right where slot m is of the token after the moment recalled at the token before, and
        right is how much that moment's value was what came: neighbours in time come along (temporal context: Howard &
        Kahana 2002, doi:10.1006/jmps.2001.1388). The evidence goes without it: a neighbour is no nearer for being one.
        differs: one step forward, and only from the closest slot. With segments it does not lead into a slot whose token
        began an event (`neuro.memory.segments`).
        Where the same words led to a slot its value counts more than its share (`neuro.memory.phrases`).
Gate:   g = sigmoid(evidence + c * trust - null(h)),   recall = g * content
Write:  at a commit the pairs of the span that come first in the controller's order go, one each, to unfilled slots first,
        then to the slots of lowest strength. With ``rebind`` a pair whose key is stored takes that slot, and of equal keys
        in a span only the newest pair is written: a key has one value, the last.
Decay:  strength <- strength * 2^(-n / half_life) over n tokens.

The gate is learned: null(h) is what must be overcome, by how close the best slots are and by how right the memory has just
been (trust, `neuro.regions.hippocampus`); g is the weight that a softmax with a null slot would leave for the others.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from backends import Ops
from neuro.layers.norm import normalize, wide
from neuro.memory.place_cells import kth_largest
from neuro.memory.slot_lists import Candidates
from neuro.state import HippocampusState

_EQUAL = 1e-6  # cosines closer than this count as equal
_SAME = 0.95  # cosine from which two keys are one
_FURTHEST = 80.0  # nats below the largest at which a score is lost in the sum of a float64 too


class Pairs(NamedTuple):
    """Candidates of one span. P tokens."""

    keys: Tensor  # [B, P, K]
    values: Tensor  # [B, P, D]
    strengths: Tensor  # [B, P] what a slot gets when written
    origins: Tensor  # [B, P] which token of the stream the value was
    priority: Tensor  # [B, P] higher is written first; <= 0 is never written
    ids: Tensor | tuple[()] = ()  # [B, P] which token of the vocabulary the value was
    phrases: Tensor | tuple[()] = ()  # [B, P, W] which words led to the key
    begins: Tensor | tuple[()] = ()  # [B, P] 1 where the value was the first token of an event


class Recalled(NamedTuple):
    """What was read for every token."""

    content: Tensor  # [B, T, D]
    evidence: Tensor  # [B, T]
    novelty: Tensor  # [B, T]
    cosine: Tensor  # [B, T, M] to every slot (of those looked at), -2 to an unfilled one


class EpisodicMemory(nn.Module):
    """Read and write rules; the tensors themselves are state (keys [B,M,K], values [B,M,D], strengths [B,M])."""

    def __init__(
        self, width: int, top_k: int, writes: int, half_life_tokens: float, ops: Ops, rebind: bool = False
    ) -> None:
        super().__init__()
        self.ops, self.top_k, self.writes, self.half_life = ops, top_k, writes, half_life_tokens
        self.rebind = rebind
        self.log_scale = nn.Parameter(torch.tensor(2.5))
        self.log_age = nn.Parameter(torch.tensor(-2.0))
        self.log_trust = nn.Parameter(torch.tensor(1.4))
        self.null = nn.Linear(width, 1)
        nn.init.zeros_(self.null.weight)
        nn.init.constant_(self.null.bias, 8.0)

    def read(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        strengths: Tensor,
        lift: Tensor | None = None,
        among: Candidates | None = None,
        same: Tensor | None = None,
        gain: Tensor | None = None,
    ) -> Recalled:
        """query [B,T,K] unit; without a filled slot the content is 0.

        Args:
            lift: added to the cosines [B,T,M]: it says which slots are read and how much of each, not how near they are,
                so that evidence and novelty are those of the cosines alone.
            among: the slots that are looked at; all others are as if they were not there.
            same: added to the cosines [B,T,M] because the same words led here: it is evidence as they are.
            gain: how much louder, times itself, each slot's value is [B,T,M]; None is none.
        """
        if among is not None:
            rows = among.slots.unbind(0)  # whole rows are copied: an index for each number takes several times as long
            keys, values = (
                torch.stack([own.index_select(0, at) for own, at in zip(x, rows, strict=True)]) for x in (keys, values)
            )
            strengths = strengths.gather(1, among.slots)
        seen = None if among is None else among.seen
        score, cosine, chosen = self.scores(query, keys, strengths, lift, seen, same)
        share = torch.softmax(score, -1) * chosen.to(score.dtype)
        novelty = 1.0 - cosine.detach().amax(-1).clamp(0.0, 1.0)
        near = score if lift is None else score - torch.exp(self.log_scale) * lift
        share = share if gain is None else share * (1.0 + gain)
        return Recalled(share @ values, _log_sum_exp(near), novelty, cosine)

    def scores(
        self,
        query: Tensor,
        keys: Tensor,
        strengths: Tensor,
        lift: Tensor | None = None,
        seen: Tensor | None = None,
        same: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """query [B,T,K] -> for every slot its score, its cosine, and whether it is among the best, each [B,T,M].

        ``seen`` [B,T,M]: the slots that there are for a token; None is all. ``same`` [B,T,M] is a part of the cosine.
        """
        filled = (strengths > 0).unsqueeze(1)  # [B,1,M]
        filled = filled if seen is None else filled & seen
        alike = query @ keys.transpose(1, 2)
        alike = alike if same is None else alike + same
        cosine = torch.where(filled, alike, torch.full_like(query[..., :1], -2.0))
        near = cosine if lift is None else cosine + lift
        # Equal keys stay together whatever rounding makes of their products: one context may stand in many slots.
        chosen = filled & (near >= kth_largest(near, min(self.top_k, near.shape[-1])) - _EQUAL)
        age = torch.exp(self.log_age) * torch.log(strengths.clamp_min(1e-6)).unsqueeze(1)
        score = torch.exp(self.log_scale) * near + age
        return torch.where(chosen, score, torch.full_like(score, -1e4)), cosine, chosen

    def following(self, before: Tensor, came: Tensor, state: HippocampusState) -> Tensor:
        """How much the moment recalled at the token before says that each slot is what follows it [B,T,M], 0 to 1.

        The slot closest to ``before`` (of equals, the newest) was recalled, and was right by the cosine of its value and
        what came: the slot of the token after it gets that, unless an event began there, all others nothing. No gradient: it
        is a measurement.

        Args:
            before: query of the token before [B,T,K].
            came: value of the token that came [B,T,D].
        """
        filled = (state.strengths > 0).unsqueeze(1)
        cosine = torch.where(
            filled, before.detach() @ state.keys.detach().transpose(1, 2), torch.full_like(before[..., :1], -2.0)
        )
        origins = state.origins.unsqueeze(1)
        closest = filled & (cosine >= cosine.amax(-1, keepdim=True) - _EQUAL)
        newest = torch.where(closest, origins, torch.full_like(cosine, -2.0)).amax(-1, keepdim=True)
        recalled = (closest & (origins == newest)).to(came.dtype) @ state.values.detach()
        right = (normalize(recalled) * normalize(came.detach())).sum(-1, keepdim=True).clamp_min(0.0)
        lift = (filled & (origins == newest + 1.0)).to(came.dtype) * right
        return lift * (1.0 - state.begins.unsqueeze(1)) if isinstance(state.begins, Tensor) else lift

    def gate(self, evidence: Tensor, hidden: Tensor, trust: Tensor) -> Tensor:
        """evidence [B,T], hidden [B,T,D], trust [B,T] -> how much of the content is recalled [B,T], 0 without a filled slot."""
        return torch.sigmoid(evidence + torch.exp(self.log_trust) * trust - wide(self.null(hidden)).squeeze(-1))

    def write(self, state: HippocampusState, pairs: Pairs, tokens: Tensor) -> tuple[HippocampusState, Tensor, Tensor]:
        """Decay over ``tokens`` [B], then place the best pairs.

        Returns:
            (state, slots written [B] int64, filled slots overwritten [B] int64)
        """
        keys, strengths = state.keys, state.strengths
        strengths = strengths * torch.exp2(-tokens.to(strengths.dtype).unsqueeze(-1) / self.half_life)
        priority, best = _highest(pairs.priority, self.writes)
        keep = priority > 0
        if self.rebind:
            slots, keep = self._slots_of_keys(keys, strengths, self.ops.take_rows(pairs.keys, best), best, keep)
        else:
            slots = _highest(-strengths, self.writes)[1]
        evicted = (self.ops.take_rows(strengths.detach().unsqueeze(-1), slots).squeeze(-1) > 0) & keep

        def place(memory: Tensor, rows: Tensor) -> Tensor:
            return self.ops.write_rows(memory, slots, self.ops.take_rows(rows, best), keep)

        def place_numbers(memory: Tensor, numbers: Tensor) -> Tensor:
            return place(memory.unsqueeze(-1), numbers.unsqueeze(-1)).squeeze(-1)

        after = state._replace(
            keys=place(keys, pairs.keys),
            values=place(state.values, pairs.values),
            strengths=place_numbers(strengths, pairs.strengths),
            origins=place_numbers(state.origins, pairs.origins),
        )
        if isinstance(state.ids, Tensor) and isinstance(pairs.ids, Tensor):
            after = after._replace(ids=place_numbers(state.ids, pairs.ids))
        if isinstance(state.phrases, Tensor) and isinstance(pairs.phrases, Tensor):
            after = after._replace(phrases=place(state.phrases, pairs.phrases))
        if isinstance(state.begins, Tensor) and isinstance(pairs.begins, Tensor):
            after = after._replace(begins=place_numbers(state.begins, pairs.begins))
        return after, keep.to(torch.int64).sum(1), evicted.to(torch.int64).sum(1)

    def _slots_of_keys(
        self, keys: Tensor, strengths: Tensor, new: Tensor, places: Tensor, keep: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Where pairs of keys ``new`` [B,C,K] at ``places`` [B,C] of the span go -> (distinct slots, still kept) [B,C]."""
        keys, strengths, new = keys.detach(), strengths.detach(), new.detach()
        cosine = torch.where(
            (strengths > 0).unsqueeze(1), new @ keys.transpose(1, 2), torch.full_like(new[..., :1], -2.0)
        )
        closest, slot = cosine.max(-1)
        stored = (closest >= _SAME) & keep
        one_slot = (slot.unsqueeze(2) == slot.unsqueeze(1)) & stored.unsqueeze(2) & stored.unsqueeze(1)
        same = one_slot | (new @ new.transpose(1, 2) >= _SAME)
        newer = (places.unsqueeze(1) > places.unsqueeze(2)) & keep.unsqueeze(1)
        keep = keep & ~(same & newer).any(-1)
        stored = stored & keep
        # The others go to the slots of lowest strength that nobody claims; C <= M, so there are enough.
        claimed = (slot.unsqueeze(-1) == torch.arange(keys.shape[1], device=keys.device)) & stored.unsqueeze(-1)
        weakest = torch.where(claimed.any(1), torch.full_like(strengths, -torch.inf), -strengths)
        free = _highest(weakest, new.shape[1])[1]
        rank = (~stored).to(torch.int64).cumsum(1) - 1
        return torch.where(stored, slot, free.gather(1, rank.clamp_min(0))), keep


def _log_sum_exp(scores: Tensor) -> Tensor:
    """log sum exp over the last axis [..., M] -> [...]; exp of what underflows takes many times as long as of what does not."""
    most = scores.detach().amax(-1, keepdim=True)
    return torch.log(torch.exp((scores - most).clamp_min(-_FURTHEST)).sum(-1)) + most.squeeze(-1)


def _highest(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` highest of [B, N] and where they lie, cut from the graph; of equals, the first.

    ``topk`` leaves the order of equals open, and a fresh memory is all equals: every backend would fill other slots.
    """
    ordered = torch.sort(scores.detach(), dim=1, descending=True, stable=True)
    return ordered.values[:, :count], ordered.indices[:, :count]
