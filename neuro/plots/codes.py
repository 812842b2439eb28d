"""Picture of the codes of space and position: maps of grid and place cells over a room, and likeness of phase codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neuro.plots import _pyplot, _save


def codes(rooms: dict[str, np.ndarray], likeness: np.ndarray, out: Path) -> Path | None:
    """A row of maps for each kind of cell, and below them the cosines of all pairs of positions and those of position 0.

    Args:
        rooms: rates [cells, y, x] of each kind, each map drawn over its own maximum; at least one cell of each.
        likeness: cosines [T, T] of the codes of T positions.

    Returns:
        ``out``; None without matplotlib.
    """
    pyplot = _pyplot()
    if pyplot is None:
        return None
    columns = max(len(maps) for maps in rooms.values())
    figure = pyplot.figure(figsize=(1.7 * columns, 1.9 * len(rooms) + 3.2), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.9 * len(rooms), 3.2))
    axes = above.subplots(len(rooms), columns, squeeze=False)
    for row, (kind, maps) in zip(axes, rooms.items(), strict=True):
        for axis in row:
            axis.set(xticks=[], yticks=[])
            axis.set_visible(False)
        for axis, rates in zip(row, maps, strict=False):
            axis.set_visible(True)
            axis.imshow(rates / max(float(rates.max()), 1e-9), origin="lower", cmap="magma", vmin=0, vmax=1)
        row[0].set_ylabel(kind, fontsize=9)
    pairs, first = below.subplots(1, 2, width_ratios=(2, 3))
    drawn = pairs.imshow(likeness, origin="lower", cmap="magma", vmin=0, vmax=1)
    pairs.set(xlabel="position", ylabel="position")
    below.colorbar(drawn, ax=pairs, label="cosine")
    first.plot(likeness[0], color="#1f3a5f", lw=1.0)
    first.set(xlabel="position", ylabel="cosine with position 0")
    return _save(pyplot, figure, out)
