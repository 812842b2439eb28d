"""The wide half of a head: logistic or linear regression on the words, word pairs and pieces of words of a text.

Every n-gram is hashed to a row and weighted by its inverse document frequency; a text's weights have norm 1. The fit is
L2-penalized and convex (L-BFGS, whole data): no seed. Rare words and spellings, which a narrow network averages away, decide
many emotions and intents (wide and deep: arXiv:1606.07792; differs: the halves are fitted apart, their logits added).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from neuro.affect.words import MOST_WORDS, Lists, cut, hashed, pieces
from neuro.errors import UsageError

LEAST = 2  # texts that an n-gram must occur in to count
KINDS = ("labels", "classes", "values")


def ngrams(text: str, rows: int) -> list[int]:
    """The different rows of a text's words, pairs and pieces, in order."""
    words = cut(text)[:MOST_WORDS]
    framed = ["<s>", *words, "</s>"]
    found = [*words, *(f"{a} {b}" for a, b in itertools.pairwise(framed))]
    found += [f"#{piece}" for word in set(words) for piece in pieces(word)]
    return sorted({hashed(item, rows) for item in found})


@dataclasses.dataclass(frozen=True)
class Bags:
    """Weighted rows of texts: ``row`` and ``weight`` [n], ``start`` [S]."""

    row: Tensor
    weight: Tensor
    start: Tensor

    def times(self, table: Tensor) -> Tensor:
        """[S, C]: the weighted sum of a table's rows [R, C] for each text."""
        return F.embedding_bag(self.row, table, self.start, mode="sum", per_sample_weights=self.weight)

    def turned(self, rows: int) -> Bags:
        """The same matrix transposed: of each row the texts."""
        lengths = torch.diff(self.start, append=torch.tensor([len(self.row)]))
        text = torch.repeat_interleave(torch.arange(len(self.start)), lengths)
        order = torch.argsort(self.row, stable=True)
        counts = torch.bincount(self.row, minlength=rows)
        return Bags(text[order], self.weight[order], counts.cumsum(0) - counts)


def listed(texts: Sequence[str], rows: int) -> Lists:
    """`ngrams` of each text."""
    return Lists([ngrams(text, rows) for text in texts])


def frequencies(found: Lists, rows: int) -> Tensor:
    """[rows] inverse document frequency, log(S / n) + 1; 0 of rows in fewer than `LEAST` texts."""
    counts = np.bincount(found.values, minlength=rows)
    inverse = np.log(len(found.lengths) / np.maximum(counts, 1)) + 1.0
    return torch.from_numpy(np.where(counts >= LEAST, inverse, 0.0)).half().float()


def bags(found: Lists, inverse: Tensor) -> Bags:
    """Texts as weighted rows; rows of weight 0 are left out."""
    weight = inverse.numpy()[found.values]
    texts = len(found.lengths)
    text = np.repeat(np.arange(texts), found.lengths)
    kept = weight > 0.0
    row, weight, text = found.values[kept], weight[kept], text[kept]
    norm = np.sqrt(np.bincount(text, weight.astype(np.float64) ** 2, texts))
    lengths = np.bincount(text, minlength=texts)
    weight = (weight / norm[text]).astype(np.float32)
    return Bags(torch.from_numpy(row), torch.from_numpy(weight), torch.from_numpy(lengths.cumsum() - lengths))


def fit(x: Bags, rows: int, labels: Tensor, kind: str, penalty: float, steps: int = 30) -> tuple[Tensor, Tensor]:
    """(table [rows, C], bias [C]) of the penalized regression.

    Args:
        labels: [S, C]; 0 and 1 ("labels": each alone; "classes": exactly one of them), or "values".
        penalty: times the squared norm of the table, beside the summed loss.

    Raises:
        UsageError: another kind, or a penalty that is not above 0.
    """
    if kind not in KINDS or not penalty > 0.0:
        raise UsageError(
            f"ngrams: got kind '{kind}' and penalty {penalty}, expected one of {', '.join(KINDS)} and above 0.",
            "Correct the value.",
        )
    labels, turned = labels.float(), x.turned(rows)
    mean = labels.mean(0)
    bias = torch.logit(mean.clamp(1e-4, 1.0 - 1e-4)) if kind == "labels" else mean if kind == "values" else 0.0 * mean
    both = torch.cat([torch.zeros(rows, labels.shape[1]), bias.unsqueeze(0)])
    both.requires_grad_(True)
    solver = torch.optim.LBFGS([both], max_iter=steps, history_size=6, line_search_fn="strong_wolfe")

    @torch.no_grad()
    def loss() -> Tensor:
        table = both[:-1]
        found = x.times(table) + both[-1]
        if kind == "labels":
            value, slope = F.binary_cross_entropy_with_logits(found, labels, reduction="sum"), found.sigmoid() - labels
        elif kind == "classes":
            value, slope = -(labels * found.log_softmax(1)).sum(), found.softmax(1) - labels
        else:
            value, slope = 0.5 * (found - labels).square().sum(), found - labels
        down = turned.times(slope) + 2.0 * penalty * table
        both.grad = torch.cat([down, slope.sum(0, keepdim=True)])
        return value + penalty * table.square().sum()

    solver.step(loss)
    return both.detach()[:-1].clone(), both.detach()[-1].clone()
