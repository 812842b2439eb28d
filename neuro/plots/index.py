"""Picture of a search through lists: what is found against the work and the time it takes, beside other indexes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neuro.plots import _colours, _pyplot, _save


def curves(found: dict[str, list[dict[str, Any]]], names: list[str], out: Path) -> Path | None:
    """A row for each set of vectors: recall over products, over time in batches and over time query by query.

    Args:
        found: of each set, a row for each number of probes; under each name ``recall``, ``scanned`` (products as a share of
            the items), ``batch_microseconds`` and ``single_microseconds`` (``median`` of a query).
        names: of the indexes.

    Returns:
        ``out``; None without matplotlib.
    """
    pyplot = _pyplot()
    if pyplot is None:
        return None
    figure, axes = pyplot.subplots(
        len(found), 3, figsize=(12, 3.4 * len(found)), sharey=True, squeeze=False, layout="constrained"
    )
    for row, (title, curve) in zip(axes, found.items(), strict=True):
        for name, colour in zip(names, _colours(names), strict=True):
            points = [at[name] for at in curve]
            recall = [point["recall"] for point in points]
            works = [
                [100 * point["scanned"] for point in points],
                *([point[f"{way}_microseconds"]["median"] for point in points] for way in ("batch", "single")),
            ]
            for axis, work in zip(row, works, strict=True):
                axis.plot(work, recall, "o-", color=colour, lw=1.4, ms=3, label=name)
        row[0].set(ylabel="recall@10")
        row[0].set_title(title, loc="left", fontsize=9)
        labels = ("products, % of the items", "µs a query, all at once", "µs a query, one by one")
        for axis, label in zip(row, labels, strict=True):
            axis.set(xscale="linear" if axis is row[0] else "log", xlabel=label)
            axis.axhline(0.95, color="#444444", lw=0.8, ls=":")
        row[0].axvline(10, color="#444444", lw=0.8, ls=":")
    axes[0, 0].legend(frameon=False, fontsize=8, loc="lower right")
    return _save(pyplot, figure, out)
