"""Pictures of the suites: a measure over a distance or a count, with its interval, one panel beside the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from neuro.plots import _colours, _pyplot, _save

Point = tuple[float | None, tuple[float, float] | None]


def panels(
    x: Sequence[float],
    curves: dict[str, dict[str, list[Point]]],
    x_label: str,
    y_label: str,
    out: Path,
    log: bool = True,
) -> Path | None:
    """Curves with 95 % intervals in panels that share their axes; None without matplotlib.

    Args:
        x: where the points lie.
        curves: of each panel, of each name: (value, interval) at each x; a value of None is left out.
        log: the horizontal axis is one of powers of two.
    """
    pyplot = _pyplot()
    if pyplot is None:
        return None
    columns = min(2, len(curves))
    rows = -(-len(curves) // columns)
    figure, axes = pyplot.subplots(
        rows,
        columns,
        figsize=(5.2 * columns, 3.2 * rows),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, (title, named) in zip(axes.flat, curves.items(), strict=False):
        for (name, points), colour in zip(named.items(), _colours(named), strict=True):
            shown = [(at, value, bounds) for at, (value, bounds) in zip(x, points, strict=True) if value is not None]
            if not shown:
                continue
            at, values = [s[0] for s in shown], np.array([s[1] for s in shown])
            low, high = np.array([bounds or (value, value) for _, value, bounds in shown]).T
            axis.plot(at, values, "o-", color=colour, lw=1.4, ms=3, label=name)
            axis.fill_between(at, low, high, color=colour, alpha=0.15, lw=0)
        axis.set_title(title, loc="left", fontsize=9)
        if log:
            axis.set_xscale("log", base=2)
        axis.set_xticks(list(x), [f"{value:g}" for value in x], fontsize=8)
        axis.minorticks_off()
    for axis in axes[:, 0]:
        axis.set_ylabel(y_label)
    for axis in axes[-1]:
        axis.set_xlabel(x_label)
    handles, names = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, frameon=False, fontsize=8, ncols=3, loc="outside upper center")
    return _save(pyplot, figure, out)
