"""Word vectors from plain text, by counting: positive pointwise mutual information, factorized.

Levy and Goldberg 2014 (NeurIPS): what skip-gram with negative sampling learns is such a matrix. Contexts are smoothed to the
power 0.75 and weighted by nearness as there; the factorization is a randomized one (Halko et al. 2011, doi:10.1137/090771806).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

WINDOW, CONTEXTS, POWER_STEPS = 5, 8000, 3


def learn(
    sentences: Sequence[Sequence[str]], width: int, least: int = 3, seed: int = 0
) -> tuple[list[str], list[int], Tensor]:
    """Words seen ``least`` times or more, how often, and their vectors, float32 [words, width] with a standard deviation of 1.

    Words come by frequency, columns by falling singular value, so that the first few are vectors too.
    """
    counts = Counter(word for sentence in sentences for word in sentence)
    words = [word for word, number in counts.most_common() if number >= least]
    row = {word: number for number, word in enumerate(words)}
    contexts = min(CONTEXTS, len(words))
    gap = [-1] * WINDOW
    text = np.fromiter((n for s in sentences for n in [*(row.get(word, -1) for word in s), *gap]), np.int64)
    pairs, weights = [], []
    for distance in range(1, WINDOW + 1):
        left, right = text[:-distance], text[distance:]
        for word, context in ((left, right), (right, left)):
            inside = (word >= 0) & (context >= 0) & (context < contexts)
            pair, number = np.unique(word[inside] * contexts + context[inside], return_counts=True)
            pairs.append(pair)
            weights.append(number * (1.0 - (distance - 1) / WINDOW))
    pair, place = np.unique(np.concatenate(pairs), return_inverse=True)
    weight = np.bincount(place.reshape(-1), np.concatenate(weights), len(pair))
    word, context = pair // contexts, pair % contexts
    of_context = np.bincount(context, weight, contexts) ** 0.75
    of_context /= of_context.sum()
    information = np.log(weight / (np.bincount(word, weight, len(words))[word] * of_context[context]))
    kept = information > 0.0
    places = torch.from_numpy(np.stack([word[kept], context[kept]]))
    values = torch.from_numpy(information[kept]).float()
    return words, [counts[w] for w in words], _factor(places, values, (len(words), contexts), width, seed)


def _factor(places: Tensor, values: Tensor, shape: tuple[int, int], width: int, seed: int) -> Tensor:
    """U sqrt(S) of the sparse matrix, by power steps on a random start; [rows, width]."""
    matrix = torch.sparse_coo_tensor(places, values, shape, check_invariants=False).coalesce()
    turned = matrix.t().coalesce()
    generator = torch.Generator().manual_seed(seed)
    guess = torch.randn(shape[1], min(width + 16, *shape), generator=generator)
    for _ in range(POWER_STEPS):
        left, _ = torch.linalg.qr(torch.sparse.mm(matrix, guess))
        guess, _ = torch.linalg.qr(torch.sparse.mm(turned, left))
    left, scale, _ = torch.linalg.svd(torch.sparse.mm(matrix, guess), full_matrices=False)
    found = left[:, :width] * scale[:width].sqrt()
    if found.shape[1] < width:
        found = torch.nn.functional.pad(found, (0, width - found.shape[1]))
    return found / found.std().clamp(min=1e-9)
