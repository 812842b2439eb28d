"""A feed-forward in branches: of N dense ones a token goes through one, and the others do no work for it.

    y = r * W_2^n (silu(W_g^n x) * W_u^n x),   n = ((token + 1) m_l mod 65521) mod N

Which one follows from the token and the layer l alone (m_l: a power of 7919): nothing to learn, causal, and no token's branch
hangs on another's. N times the parameters of a dense one at its products. r is the thalamus's route. With a procedural memory
the branches share one eligibility. Source: hash layers (arXiv:2106.04426); beside skipped layers, the integrated mixture of
depths and experts of arXiv:2404.02258.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backends import Ops
from neuro.config import BrainConfig
from neuro.layers.fast_linear import eligible

_PRIME, _FACTOR = 65521, 7919


def branch_of(tokens: Tensor, layer: int, branches: int) -> Tensor:
    """The branch, 0 to ``branches`` - 1, of each of ``tokens`` (integers of any shape) in a layer."""
    return (tokens + 1) * pow(_FACTOR, layer + 1, _PRIME) % _PRIME % branches


class BranchedFeedforward(nn.Module):
    """(x [B,T,D], route [B,T], token [B,T]) -> [B,T,D], no state. Each branch is as wide as a dense feed-forward."""

    table: Tensor  # [V,N] 1 where the branch is the token's

    def __init__(self, config: BrainConfig, layer: int, ops: Ops) -> None:
        super().__init__()
        self.ops, self.branches = ops, config.cortex.branches
        width, self.hidden = config.d_model, config.cortex.feedforward_width * 2 // 3
        self.up = nn.Parameter(torch.empty(self.branches * 2 * self.hidden, width))
        self.down = nn.Parameter(torch.empty(self.branches * width, self.hidden))
        for weight in (self.up, self.down):
            nn.init.uniform_(weight, -(weight.shape[1] ** -0.5), weight.shape[1] ** -0.5)
        rank = config.fast_rank
        self.sense = nn.Parameter(torch.randn(rank, self.hidden) * self.hidden**-0.5) if rank else None
        chosen = branch_of(torch.arange(config.vocab_size), layer, self.branches)
        self.register_buffer("table", F.one_hot(chosen, self.branches).to(self.up.dtype), persistent=False)
        self.emitters: tuple[()] = ()

    def init_state(self, batch: int, device: torch.device) -> tuple[()]:
        return ()

    def scan(
        self, x: Tensor, route: Tensor, state: tuple[()], token: Tensor
    ) -> tuple[Tensor, Tensor, tuple[()], tuple[()]]:
        chosen = self.ops.embed(token, self.table)
        y, hidden = self._apart(x, chosen) if self._gathers(x.shape[0]) else self._masked(x, chosen)
        eligibility = hidden[..., :0] if self.sense is None else eligible(hidden, self.sense)
        return y * route.unsqueeze(-1), eligibility * route.unsqueeze(-1), (), state

    def _gathers(self, batch: int) -> bool:
        """Whether each branch sees its own tokens alone: in training, and for one row (`neuro.layers.mixture_of_depths`)."""
        if self.ops.scatter_free or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return False
        return torch.is_grad_enabled() or batch == 1

    def _apart(self, x: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """-> output [B,T,D] and hidden values [B,T,H]; no product for a token in another branch than its own."""
        flat, branch = x.flatten(0, 1), chosen.flatten(0, 1).argmax(-1)
        order = torch.argsort(branch, stable=True)
        counts = torch.bincount(branch, minlength=self.branches).tolist()
        ups, downs = self.up.chunk(self.branches), self.down.chunk(self.branches)
        hidden, said = [], []
        for part, up, down in zip(flat.index_select(0, order).split(counts), ups, downs, strict=True):
            if len(part):
                hidden.append(_gated(self.ops.linear(part, up, None)))
                said.append(self.ops.linear(hidden[-1], down, None))
        y, h = (
            torch.zeros_like(together).index_copy(0, order, together)
            for together in (torch.cat(said), torch.cat(hidden))
        )
        return y.unflatten(0, x.shape[:2]), h.unflatten(0, x.shape[:2])

    def _masked(self, x: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """The same with every branch for every token, and all but one thrown away."""
        own = chosen.unsqueeze(-1)
        hidden = (_gated(self.ops.linear(x, self.up, None).unflatten(-1, (self.branches, -1))) * own).sum(-2)
        return (self.ops.linear(hidden, self.down, None).unflatten(-1, (self.branches, -1)) * own).sum(-2), hidden


def _gated(x: Tensor) -> Tensor:
    gate, value = x.chunk(2, -1)
    return gate * torch.sigmoid(gate) * value
