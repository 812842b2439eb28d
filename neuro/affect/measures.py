"""What is counted: F1 per class and its thresholds, areas under curves, recall at an accuracy, correlations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def f1(labels: np.ndarray, said: np.ndarray) -> np.ndarray:
    """F1 of each class [C] of labels and decisions bool [S, C]; 0 where a class was neither there nor said."""
    labels, said = labels.astype(bool), said.astype(bool)
    return 2.0 * (labels & said).sum(0) / np.maximum(labels.sum(0) + said.sum(0), 1)


def thresholds(labels: np.ndarray, scores: np.ndarray, prior: float = 0.0) -> np.ndarray:
    """For each class the score above which F1 is highest, [C].

    Args:
        labels: bool [S, C].
        scores: [S, C].
        prior: counts added to the denominator: a class with few examples then needs a clearer gain to be cut strictly.
    """
    found = np.empty(scores.shape[1])
    for column in range(scores.shape[1]):
        order = np.argsort(-scores[:, column], kind="stable")
        right = labels[order, column].astype(bool).cumsum()
        value = 2.0 * right / (np.arange(1, len(order) + 1) + labels[:, column].sum() + prior)
        best = int(value.argmax())
        after = min(best + 1, len(order) - 1)
        found[column] = (scores[order[best], column] + scores[order[after], column]) / 2.0
    return found


def auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    """The chance that a positive score [P] is above a negative one [N], ties counted half."""
    scores = np.concatenate([positive, negative])
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - (counts - 1) / 2.0)[place]
    p, n = len(positive), len(negative)
    return float((ranks[:p].sum() - p * (p + 1) / 2.0) / (p * n))


def recall_at_accuracy(
    right: np.ndarray, inside: np.ndarray, outside: np.ndarray, accuracy: float
) -> tuple[float, float]:
    """(recall of what is out of scope, the score above which it is rejected) where ``accuracy`` of the rest is kept and right.

    Args:
        right: bool [S], whether the best intent is the right one.
        inside: [S] how much each text in scope looks out of scope.
        outside: [O] the same of texts that are.

    Recall is 0 and the score infinite where even without rejection too few are right.
    """
    order = np.argsort(inside, kind="stable")
    enough = np.nonzero(right[order].cumsum() >= accuracy * len(right))[0]
    if not len(enough):
        return 0.0, float("inf")
    cut = float(inside[order[enough[0]]])
    return float((outside > cut).mean()), cut


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's r; 0 where one of them does not vary."""
    return float(np.corrcoef(x, y)[0, 1]) if x.std() > 0.0 and y.std() > 0.0 else 0.0


def bootstrap(
    statistic: Callable[[np.ndarray], float], rows: int, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The middle 95 % of ``statistic(numbers of rows)`` over resampled rows."""
    random = np.random.default_rng(seed)
    values = [statistic(random.integers(0, rows, rows)) for _ in range(draws)]
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
