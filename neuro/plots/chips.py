"""Pictures of chips and what is on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuro.plots import _pyplot, _save

_CHIPS = 4  # drawn at most
_NAMED = 24  # populations in the legend at most


def mapping(
    places: tuple[np.ndarray, np.ndarray, np.ndarray],
    held: np.ndarray,
    share: np.ndarray,
    links: dict[str, np.ndarray],
    names: Sequence[str],
    title: str,
    out: Path,
) -> Path | None:
    """Cores on their tiles, coloured by population and filled as far as they are used; lines are the links' packets.

    Args:
        places: (chip, x, y) of each core's tile [cores]; x counts through all chips.
        held: neurons of each population on each core [populations, cores]; a core that is shared is cut into strips.
        share: of the core's scarcest resource that is used [cores].
        links: packets east, west, north and south over the link whose lower end is tile [y, x].
        names: of the populations.
        title: what is drawn.
        out: the picture; its suffix says PNG or SVG.
    """
    pyplot = _pyplot()
    if pyplot is None:
        return None
    chip, x, y = (place.copy() for place in places)
    shown = min(_CHIPS, int(chip.max()) + 1)
    columns, rows = int(x[chip == 0].max()) + 1, int(y.max()) + 1
    slot = _slots(x, y)
    side = math.ceil(math.sqrt(int(slot.max()) + 1))
    scale = min(1.2, 16 / (columns * shown))
    figure, axes = pyplot.subplots(
        1, shown, figsize=(max(5.0, shown * columns * scale), max(3.0, rows * scale + 1.6)), layout="constrained"
    )
    colours = pyplot.get_cmap("tab20")(np.arange(max(1, len(names))) % 20)
    heaviest = max(1e-12, *(float(load.max()) for load in links.values()))
    for number, axis in enumerate(np.atleast_1d(axes)):
        here = chip == number
        _links(axis, links, columns * number, columns, rows, heaviest)
        cell = 0.8 / side
        for core in np.flatnonzero(here):
            left = x[core] - columns * number - 0.4 + cell * (slot[core] % side)
            low = y[core] - 0.4 + cell * (slot[core] // side)
            axis.add_patch(pyplot.Rectangle((left, low), cell * 0.92, cell * 0.92, fc="#f1f1ef", ec="#c4c4c0", lw=0.5))
            height = cell * 0.92 * min(1.0, float(share[core]))
            for index in np.flatnonzero(held[:, core]):
                width = cell * 0.92 * held[index, core] / held[:, core].sum()
                axis.add_patch(pyplot.Rectangle((left, low), width, height, fc=colours[index], lw=0))
                left += width
        axis.set(xlim=(-0.6, columns - 0.4), ylim=(-0.6, rows - 0.4), aspect="equal", xticks=[], yticks=[])
        axis.set_title(f"chip {number}" if int(chip.max()) else "", fontsize=9)
    used = [index for index in range(len(names)) if held[index].any()]
    handles = [pyplot.Rectangle((0, 0), 1, 1, fc=colours[index]) for index in used[:_NAMED]]
    words = [names[index] for index in used[:_NAMED]]
    if handles:
        figure.legend(handles, words, loc="outside lower center", ncols=min(4, len(handles)), fontsize=7, frameon=False)
    more = f"; {int(chip.max()) + 1 - shown} more chips are not drawn" if int(chip.max()) >= shown else ""
    figure.suptitle(title + more, fontsize=9)
    return _save(pyplot, figure, out)


def _slots(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The number of each core on its tile."""
    seen: dict[tuple[int, int], int] = {}
    slots = []
    for tile in zip(x.tolist(), y.tolist(), strict=True):
        slots.append(seen.get(tile, 0))
        seen[tile] = slots[-1] + 1
    return np.array(slots)


def _links(axis: Any, links: dict[str, np.ndarray], first: int, columns: int, rows: int, heaviest: float) -> None:
    for forward, backward, dx, dy in (("east", "west", 1, 0), ("north", "south", 0, 1)):
        both = links[forward] + links[backward]
        for row in range(rows - dy):
            for column in range(columns - dx):
                load = float(both[row, first + column])
                if load > 0:
                    width = 0.3 + 3.5 * load / (2 * heaviest)
                    axis.plot([column, column + dx], [row, row + dy], "-", color="#4a4a48", lw=width, zorder=0)
