"""Sampled softmax: a step over the words it reads and some others, instead of over the whole vocabulary.

    Z_t ~ exp(s_t) + sum over candidates i other than t of exp(s_i) / q_i,   loss = log Z_t - s_t

Candidates are the tokens of the window and ``count`` draws by token^(3/4); q_i is the chance that i is one of them. The sum
is then right in the mean (Horvitz & Thompson 1952), the token that came needs no chance: it is always there. The brain runs
as ever, on the rows of its vocabulary matrix that are candidates, so regions that read a surprise or an error get those of
the smaller vocabulary. Source of drawing with a correction by log q: Bengio & Senecal 2008 (doi:10.1109/TNN.2007.912312).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from neuro.brain import Brain
from neuro.errors import UsageError
from neuro.layers.norm import wide
from neuro.state import BrainState

Result = TypeVar("Result")
_POWER = 0.75  # of a token's count among the draws (Mikolov et al. 2013, arXiv:1310.4546)


class Candidates(NamedTuple):
    """The part of the vocabulary a window runs on. S candidates."""

    ids: Tensor  # [S] int64, sorted
    log_chance: Tensor  # [S] float32, of being a candidate
    tokens: Tensor  # [B, T] int64, the window as places among ``ids``


class Sampler:
    """Draws candidates; the draws of a step are the same whenever it is made.

    Args:
        tokens: [N] the training text, whose counts are the chances.
        vocab_size: of the brain.
        count: draws a window, with replacement.
        seed: of the draws.
    """

    def __init__(self, tokens: np.ndarray, vocab_size: int, count: int, seed: int) -> None:
        counts = np.bincount(tokens, minlength=vocab_size).astype(np.float64)
        self.of_text = counts / counts.sum()
        powered = counts**_POWER
        self.drawn = powered / powered.sum()
        self.count, self.seed = count, seed

    def draw(self, step: int, tokens: Tensor) -> Candidates:
        """The candidates of a window [B, T] at a step."""
        window = tokens.cpu().numpy()
        others = np.random.default_rng([self.seed, step]).choice(len(self.drawn), self.count, p=self.drawn)
        ids = np.union1d(window, others)
        # Neither certain nor impossible: a text may be one token, and a window may be of another text.
        often, drawn = (np.clip(chances[ids], 1e-12, 1.0 - 1e-12) for chances in (self.of_text, self.drawn))
        chance = -np.expm1(window.size * np.log1p(-often) + self.count * np.log1p(-drawn))

        def there(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array).to(tokens.device)

        return Candidates(
            there(ids), there(np.log(chance).astype(np.float32)), there(np.searchsorted(ids, window).astype(np.int64))
        )


def within(brain: Brain, rows: Tensor, read: Tensor, run: Callable[[], Result]) -> Result:
    """``run()`` while the brain's vocabulary is ``rows`` [S,D]; ``read`` [S,D] is what tokens are embedded from."""
    names = {"brain.embedding": read, "brain.regions.readout.weight": rows}
    return functional_call(_Within(brain), names, (run,), tie_weights=False)


def entering(state: BrainState, candidates: Candidates) -> BrainState:
    """``state`` for a window over candidates: its last prediction was over others, so the first token goes unscored."""
    return state._replace(
        logits=state.logits.new_zeros(state.logits.shape[0], len(candidates.ids)),
        started=torch.zeros_like(state.started),
    )


def leaving(state: BrainState, before: BrainState) -> BrainState:
    """``state`` after a window, in the shape of the one before it."""
    return state._replace(logits=torch.zeros_like(before.logits))


def nats(logits: Tensor, candidates: Candidates) -> Tensor:
    """logits [B,T,S] of a whole window -> [B,T-1] the loss of each token but the first."""
    if logits.shape[1] < 2:
        raise UsageError("train.sampled: a window of one token has nothing to predict.", "Set more spans_per_step.")
    target = candidates.tokens[:, 1:].flatten()
    scores = wide(logits[:, :-1]).flatten(0, 1)
    chance = candidates.log_chance.to(scores.dtype)
    # The token that came is there for certain.
    scores = (scores - chance).scatter_add(1, target.unsqueeze(1), chance[target].unsqueeze(1))
    return F.cross_entropy(scores, target, reduction="none").reshape(logits.shape[0], -1)


class _Within(nn.Module):
    """What `functional_call` needs: a module that calls."""

    def __init__(self, brain: Brain) -> None:
        super().__init__()
        self.brain = brain

    def forward(self, run: Callable[[], Result]) -> Result:
        return run()
