"""What sleep does to an episodic store: which slots were of use, which say the same, and what lies in a row.

Every function takes one stream's slots: keys [M,K], values [M,D], strengths [M], origins [M], tokens [M] (what each value
is the value of).

Use: the queries that a stream has made are the keys that it has stored, so what was retrieved need not be recorded while
awake. Slot j, asked with the key of every later slot m,

    use_j = sum_m share_mj max(0, cos(V_j, V_m))

is how often it was recalled and right. Strengthening lifts a slot to (1 - 2^-use) of the strongest there is: bounded, and
the same the second time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neuro.layers.norm import normalize
from neuro.memory.episodic import EpisodicMemory

SAME = 0.95  # cosine from which two keys are one
_AT_ONCE = 256  # queries


def usefulness(memory: EpisodicMemory, keys: Tensor, values: Tensor, strengths: Tensor, origins: Tensor) -> Tensor:
    """How often each slot was recalled by what came later, and was right [M]; 0 for an unfilled one."""
    use, said = torch.zeros_like(strengths), normalize(values)
    for part in torch.nonzero(strengths > 0).squeeze(1).split(_AT_ONCE):
        # A slot that came later is no candidate: each query has its own store.
        earlier = (origins < origins[part].unsqueeze(1)) & (strengths > 0)
        cosine = torch.where(earlier, keys[part] @ keys.T, torch.full_like(keys[:1, :1], -2.0))
        best = torch.topk(cosine, min(memory.top_k, len(keys)), dim=1)
        found = best.values > -2.0
        age = torch.exp(memory.log_age) * torch.log(strengths[best.indices].clamp_min(1e-6))
        score = torch.where(found, torch.exp(memory.log_scale) * best.values + age, torch.full_like(age, -torch.inf))
        share = torch.nan_to_num(torch.softmax(score, 1))  # the first slot of a stream has none before it
        right = (said[best.indices] * said[part].unsqueeze(1)).sum(-1).clamp_min(0.0)
        use.index_add_(0, best.indices.flatten(), (share * right).flatten())
    return use


def strengthened(strengths: Tensor, use: Tensor) -> Tensor:
    """Strengths [M] after what was of use is lifted; none falls, none rises above the strongest, an unfilled slot stays 0."""
    lifted = strengths.max() * (1.0 - torch.exp2(-use))
    return torch.where(strengths > 0, torch.maximum(strengths, lifted), strengths)


def duplicates(keys: Tensor, strengths: Tensor, origins: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Slots that say what a newer one says: the same token after the same key.

    Returns:
        (slots to free, for each the slot that stays) [N] int64; what stays is never freed.
    """
    freed: list[int] = []
    stays: list[int] = []
    filled = torch.nonzero(strengths > 0).squeeze(1)
    newest_first = filled[torch.sort(origins[filled], descending=True, stable=True).indices]
    grouped = newest_first[torch.sort(tokens[newest_first], stable=True).indices]
    for group in grouped.split(torch.unique_consecutive(tokens[grouped], return_counts=True)[1].tolist()):
        same = keys[group] @ keys[group].T >= SAME
        left = torch.ones(len(group), dtype=torch.bool, device=keys.device)
        for place in torch.nonzero(same.sum(1) > 1).squeeze(1).tolist():
            if left[place]:
                older = same[place] & left
                older[: place + 1] = False
                left &= ~older
                freed += group[older].tolist()
                stays += [int(group[place])] * int(older.sum())
    return (
        torch.tensor(freed, dtype=torch.int64, device=keys.device),
        torch.tensor(stays, dtype=torch.int64, device=keys.device),
    )


def sequences(strengths: Tensor, origins: Tensor, longest: int, shortest: int) -> list[Tensor]:
    """Slots [n] of tokens that followed each other, in order, cut at ``longest``; none below ``shortest``."""
    filled = torch.nonzero(strengths > 0).squeeze(1)
    slots = filled[torch.sort(origins[filled], stable=True).indices]
    breaks = torch.nonzero(origins[slots][1:] - origins[slots][:-1] != 1).squeeze(1) + 1
    runs = torch.tensor_split(slots, breaks.cpu())
    return [piece for run in runs for piece in run.split(longest) if len(piece) >= shortest]
