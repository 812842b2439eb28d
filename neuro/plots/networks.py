"""Pictures of simulated networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neuro.plots import _pyplot, _save

_SHOWN = 200


def activity(
    times: np.ndarray,
    neurons: np.ndarray,
    num_excitatory: int,
    num_neurons: int,
    rate: tuple[np.ndarray, np.ndarray],
    cvs: np.ndarray,
    out: Path,
) -> Path | None:
    """Who fired when, the rate of the network, and how irregular its neurons are.

    Args:
        times: seconds [spikes], ascending.
        neurons: [spikes], the excitatory ones numbered first; 200 neurons, evenly spread, are drawn.
        rate: (seconds [bins], Hz [bins]).
        cvs: coefficient of variation of the intervals of each neuron that has one.
        out: the picture; its suffix says PNG or SVG.
    """
    pyplot = _pyplot()
    if pyplot is None:
        return None
    figure = pyplot.figure(figsize=(10, 5.5), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=(3, 1), height_ratios=(3, 1))
    raster, below, side = (figure.add_subplot(place) for place in (grid[0, 0], grid[1, 0], grid[:, 1]))
    shown = np.unique(np.linspace(0, num_neurons - 1, min(_SHOWN, num_neurons)).astype(int))
    place = np.full(num_neurons, -1)
    place[shown] = np.arange(len(shown))
    drawn = place[neurons] >= 0
    excites = neurons < num_excitatory
    for chosen, colour, name in ((excites, "#1f3a5f", "excitatory"), (~excites, "#b3402e", "inhibitory")):
        pick = drawn & chosen
        raster.plot(times[pick], place[neurons[pick]], ".", color=colour, ms=1.5, label=name, rasterized=True)
    raster.set(ylabel=f"{len(shown)} of {num_neurons} neurons", yticks=[])
    raster.legend(frameon=False, fontsize=8, ncols=2, loc="lower right", bbox_to_anchor=(1.0, 1.0), markerscale=5)
    below.plot(*rate, color="#44505c", lw=0.8)
    below.set(xlabel="seconds", ylabel="Hz", ylim=(0, None))
    below.sharex(raster)
    side.hist(cvs, bins=40, color="#3f7cac")
    side.set(xlabel="CV of the intervals", ylabel="neurons")
    return _save(pyplot, figure, out)
