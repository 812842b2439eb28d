"""Pointer: the tokens that followed stored moments, predicted outright.

    z_m = scale cos(q, K_m) + age log(strength_m) over the filled slots,   share = softmax(z)
    lambda = sigmoid(a logsumexp(z) + c trust + w . h + b),   copied_v = lambda sum_m share_m [id_m = v]
    p(v) <- (1 - lambda) p(v) + copied_v                                        (`mixed`, by the readout)

The episodic memory's content is a direction: where a text says again what it said, it makes one token nearly certain. A
token that followed a twentieth of all moments like this one gains next to nothing by it, for logits add and chances are
products; here its chance gains a twentieth of lambda. The same slots, keys and strengths serve both.

Source: Grave et al. 2017 (arXiv:1612.04426); Merity et al. 2017 (arXiv:1609.07843); Khandelwal et al. 2020
(arXiv:1911.00172). differs: sharpness and lambda are trained, lambda is of each token, and the keys are the memory's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backends import Ops
from neuro.layers.norm import wide

_MOST = 1.0 - 1e-4  # of lambda: the prediction keeps a share, so that no token has chance 0
_LONGEST = 60.0  # nats: exp of it is finite in float32


class Pointer(nn.Module):
    """Which tokens the stored moments point at.

    Args:
        width: D of what the gate reads.
        vocab_size: V.
    """

    def __init__(self, width: int, vocab_size: int, ops: Ops) -> None:
        super().__init__()
        self.vocab_size, self.ops = vocab_size, ops
        self.log_scale = nn.Parameter(torch.tensor(2.7))
        self.log_age = nn.Parameter(torch.tensor(-2.0))
        self.evidence = nn.Parameter(torch.tensor(0.1))
        self.trust = nn.Parameter(torch.tensor(1.0))
        self.gate = nn.Linear(width, 1)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, -3.0)

    def forward(self, cosine: Tensor, strengths: Tensor, ids: Tensor, hidden: Tensor, trust: Tensor) -> Tensor:
        """cosine [B,T,M], strengths, ids [B,M], hidden [B,T,D], trust [B,T] -> copied [B,T,V]; 0 without a filled slot."""
        share, score = self.shares(cosine, strengths)
        drive = self.evidence * torch.logsumexp(score, -1) + self.trust * trust + wide(self.gate(hidden)).squeeze(-1)
        return self.ops.tally(share * (_MOST * torch.sigmoid(drive)).unsqueeze(-1), ids, self.vocab_size)

    def shares(self, cosine: Tensor, strengths: Tensor) -> tuple[Tensor, Tensor]:
        """cosine [B,T,M], strengths [B,M] -> what of lambda each slot gets, 0 where unfilled, and its score z, [B,T,M]."""
        filled = (strengths > 0).unsqueeze(1)
        age = torch.exp(self.log_age) * torch.log(strengths.clamp_min(1e-6)).unsqueeze(1)
        score = torch.where(filled, torch.exp(self.log_scale) * cosine + age, torch.full_like(cosine, -1e4))
        return torch.softmax(score, -1) * filled.to(score.dtype), score


def mixed(logits: Tensor, copied: Tensor) -> Tensor:
    """Logits [B,T,V] of (1 - lambda) softmax(logits) + copied, with the same normaliser; lambda is what copied sums to.

    Where nothing is copied the logits are returned bit for bit.
    """
    rarity = torch.logsumexp(logits, -1, keepdim=True) - logits
    change = copied * torch.exp(rarity.clamp_max(_LONGEST)) - copied.sum(-1, keepdim=True)
    return logits + torch.log1p(change)
