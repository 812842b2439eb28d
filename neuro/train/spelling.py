"""Spelling: while a model learns, tokens share what they owe to parts of their spelling.

    E_w = own_w + 1/sqrt(n_w) * sum over the n_w parts g of w of S_g

Parts are the beginnings and ends of a token, the runs of three to five letters in it, and its shape (which characters are
capitals, digits or signs). A word that the text has five times is mostly its parts: `1987` is a year and `Hamish` a name before
the model has seen what they stand beside. E is one matrix again when the run ends: a model that is saved has no parts, and
costs nothing more. Source of sums over runs of letters: Bojanowski et al. 2017, arXiv:1607.04606; there of input vectors alone.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuro.brain import Brain
from neuro.errors import UsageError
from neuro.tokenizer import Tokenizer

_ENDS = (1, 2, 3, 4, 5)  # letters of a beginning or an end
_RUNS = (3, 4, 5)  # letters of a run, the edges of the token among them


def parts_of(token: str) -> set[str]:
    """The names of all parts of a token, kept or not."""
    shape = re.sub(r"\d", "9", re.sub(r"[a-z]+", "a", re.sub(r"[A-Z]+", "A", token)))
    found = {f"shape {shape}"}
    found |= {f"begins {token[:n]}" for n in _ENDS if len(token) >= n}
    found |= {f"ends {token[-n:]}" for n in _ENDS if len(token) >= n}
    word = f"^{token.lower()}$"
    return found | {word[i : i + n] for n in _RUNS for i in range(len(word) - n + 1)} | {word}


def common_parts(tokens: Sequence[str], count: int) -> tuple[list[str], list[list[int]]]:
    """The ``count`` parts that most tokens have, one of those that the same tokens have -> names, and each token's places."""
    found = [parts_of(token) for token in tokens]
    having: dict[str, list[int]] = {}
    often = Counter(part for parts in found for part in parts)
    kept = {part for part, n in often.items() if n > 1}
    for place, parts in enumerate(found):
        for part in parts & kept:
            having.setdefault(part, []).append(place)
    names: list[str] = []
    alike: set[tuple[int, ...]] = set()
    for part in sorted(having, key=lambda part: (-often[part], part)):
        owners = tuple(having[part])
        if owners not in alike:
            alike.add(owners)
            names.append(part)
        if len(names) == count:
            break
    places = {name: place for place, name in enumerate(names)}
    return names, [sorted(places[part] for part in parts if part in places) for parts in found]


class Spelling(nn.Module):
    """The parts S [G,D] of a brain's vocabulary; part of the brain while it learns, so that all that saves it saves them.

    Args:
        brain: whose rows are spelled.
        tokenizer: of the tokens.
        count: parts at most.
        fresh: whether the brain begins as drawn: then parts and own rows have half of a row's variance each. Parts of a model
            that was trained without begin as nothing.

    Raises:
        UsageError: no two tokens have a part in common.
    """

    flat: Tensor  # [sum of n_w] parts, token after token
    first: Tensor  # [V] where a token's parts begin
    length: Tensor  # [V] n_w
    scale: Tensor  # [V]

    def __init__(self, brain: Brain, tokenizer: Tokenizer, count: int, fresh: bool) -> None:
        super().__init__()
        tokens = [tokenizer.token_bytes(index).decode("utf-8", "replace") for index in range(tokenizer.vocab_size)]
        names, places = common_parts(tokens, count)
        if not names:
            raise UsageError("train.spelling: no two tokens have a part in common.", "Set train.spelling=0.")
        lengths = np.array([len(parts) for parts in places])
        flat = np.fromiter((part for parts in places for part in parts), np.int64, lengths.sum())
        device = brain.embedding.device
        self.register_buffer("flat", torch.from_numpy(flat).to(device), persistent=False)
        self.register_buffer("first", torch.from_numpy(lengths.cumsum() - lengths).to(device), persistent=False)
        scale = torch.from_numpy(1.0 / np.sqrt(np.maximum(lengths, 1))).to(brain.embedding)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("length", torch.from_numpy(lengths).to(device), persistent=False)
        self.parts = nn.Parameter(torch.zeros(len(names), brain.config.d_model).to(brain.embedding))
        if fresh:
            with torch.no_grad():
                self.parts.normal_(std=float(brain.embedding.std()) / math.sqrt(2.0))
                brain.embedding.mul_(1.0 / math.sqrt(2.0))

    def rows(self, ids: Tensor) -> Tensor:
        """ids [S] -> [S,D] what the tokens' parts say."""
        lengths = self.length.index_select(0, ids)
        begins = lengths.cumsum(0) - lengths
        shift = torch.repeat_interleave(self.first.index_select(0, ids) - begins, lengths)
        flat = self.flat.index_select(0, shift + torch.arange(len(shift), device=ids.device))
        return F.embedding_bag(flat, self.parts, begins, mode="sum") * self.scale.index_select(0, ids).unsqueeze(1)


@torch.no_grad()
def settle(brain: Brain) -> None:
    """Make what the parts say the rows' own, and forget the parts."""
    spelling = getattr(brain, "spelling", None)
    if isinstance(spelling, Spelling):
        brain.embedding.add_(spelling.rows(torch.arange(len(brain.embedding), device=brain.embedding.device)))
        del brain.spelling


@contextlib.contextmanager
def held(brain: Brain) -> Iterator[None]:
    """Inside, the brain is the one that `settle` would leave."""
    spelling, own = getattr(brain, "spelling", None), brain.embedding.detach().clone()
    try:
        settle(brain)
        yield
    finally:
        if spelling is not None:
            brain.spelling = spelling
            with torch.no_grad():
                brain.embedding.copy_(own)
