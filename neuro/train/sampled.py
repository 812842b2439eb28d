"""Sampled softmax: a step over the words it reads and some others, instead of over the whole vocabulary.

    Z_t ~ exp(s_t) + sum over candidates i other than t of exp(s_i) / q_i,   loss = log Z_t - s_t

Candidates are the tokens of the window and ``count`` draws by token^(3/4); q_i is the chance that i is one of them. The sum
is then right in the mean (Horvitz & Thompson 1952), the token that came needs no chance: it is always there. The brain runs
as ever, on the rows of its vocabulary matrix that are candidates, so regions that read a surprise or an error get those of
the smaller vocabulary. Source of drawing with a correction by log q: Bengio & Senecal 2008 (doi:10.1109/TNN.2007.912312).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from neuro.brain import Brain
from neuro.config import BrainConfig
from neuro.errors import UsageError
from neuro.layers.norm import wide
from neuro.state import BrainState

Result = TypeVar("Result")
_PART = 512  # tokens whose logits are held at once
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


def hears_itself(brain: BrainConfig) -> bool:
    """Whether a region reads how surprising a token was or how wrong its prediction; else no span needs logits of its own."""
    return brain.amygdala.enabled or brain.endocrine.enabled or brain.hippocampus.enabled or brain.fast_rank > 0


def within(brain: Brain, rows: Tensor, read: Tensor, run: Callable[[], Result]) -> Result:
    """``run()`` while the brain's vocabulary is ``rows`` [S,D]; ``read`` [S,D] is what tokens are embedded from.

    A brain that does not hear itself predicts nothing meanwhile: its logits are of no words.
    """
    said = rows if hears_itself(brain.config) else rows[:0]
    names = {"brain.embedding": read, "brain.regions.readout.weight": said}
    return functional_call(_Within(brain), names, (run,), tie_weights=False)


def entering(state: BrainState, brain: Brain, candidates: Candidates) -> BrainState:
    """``state`` for a window over candidates: its last prediction was over others, so the first token goes unscored."""
    words = len(candidates.ids) if hears_itself(brain.config) else 0
    return state._replace(
        logits=state.logits.new_zeros(state.logits.shape[0], words), started=torch.zeros_like(state.started)
    )


def leaving(state: BrainState, before: BrainState) -> BrainState:
    """``state`` after a window, in the shape of the one before it."""
    return state._replace(logits=torch.zeros_like(before.logits))


def mean_nats(features: Tensor, rows: Tensor, candidates: Candidates) -> Tensor:
    """features [B,T,D] of a whole window, rows [S,D] -> [] the mean loss of each token but the first."""
    if features.shape[1] < 2:
        raise UsageError("train.sampled: a window of one token has nothing to predict.", "Set more spans_per_step.")
    target = candidates.tokens[:, 1:].flatten()
    return cast(Tensor, _CrossEntropy.apply(features[:, :-1].flatten(0, 1), rows, candidates.log_chance, target))


class _CrossEntropy(torch.autograd.Function):
    """The mean loss of N tokens, a part at a time, so that N x S logits never lie in memory; gradients on the way."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, features: Tensor, rows: Tensor, log_chance: Tensor, target: Tensor
    ) -> Tensor:
        """features [N,D], rows [S,D], log_chance [S], target [N] -> []."""
        chance = log_chance.to(wide(rows).dtype)
        of_features, of_rows = torch.empty_like(features), torch.zeros_like(rows)
        nats = chance.new_zeros(())
        count = len(target)
        for begin in range(0, count, _PART):
            here, came = features[begin : begin + _PART], target[begin : begin + _PART].unsqueeze(1)
            scores = wide(here @ rows.T) - chance
            scores.scatter_add_(1, came, chance[came])  # the token that came is there for certain
            said = scores.gather(1, came)
            most = scores.amax(1, keepdim=True)
            chances = scores.sub_(most).exp_()
            total = chances.sum(1, keepdim=True)
            nats += (total.log() + most - said).sum()
            error = chances.div_(total * count)
            error.scatter_add_(1, came, error.new_full((1, 1), -1.0 / count).expand_as(came))
            error = error.to(features.dtype)
            of_features[begin : begin + _PART] = error @ rows
            of_rows += error.T @ here
        ctx.save_for_backward(of_features, of_rows)
        return nats / count

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, None, None]:  # type: ignore[override]
        of_features, of_rows = ctx.saved_tensors
        return of_features * upstream.to(of_features.dtype), of_rows * upstream.to(of_rows.dtype), None, None


class _Within(nn.Module):
    """What `functional_call` needs: a module that calls."""

    def __init__(self, brain: Brain) -> None:
        super().__init__()
        self.brain = brain

    def forward(self, run: Callable[[], Result]) -> Result:
        return run()
