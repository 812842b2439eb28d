"""Place fields along a track and the path decoded from them, recorded units beside modelled ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neuro.evaluate.place_fields import Decoded, Statistics
from neuro.plots import _pyplot, _save


def place_fields(units: dict[str, Statistics], decoded: dict[str, Decoded], out: Path) -> Path | None:
    """A column for each population: its tuned units' maps by peak, each over its own maximum, and the decoded path below.

    Args:
        units: of each population.
        decoded: the same populations; 150 windows are drawn.
    """
    pyplot = _pyplot()
    if pyplot is None:
        return None
    figure, axes = pyplot.subplots(
        2, len(units), figsize=(5.5 * len(units), 6), layout="constrained", squeeze=False, height_ratios=(3, 2)
    )
    for column, (name, found) in enumerate(units.items()):
        top, below = axes[:, column]
        rates = found.rates_hz[found.tuned]
        rates = rates[np.argsort(rates.argmax(1))]
        title = f"{name}: {len(rates)} tuned of {len(found.tuned)} units"
        if len(rates):
            title += f", {np.median(found.corrected[found.tuned]):.2f} bits/spike"
            image = rates / np.maximum(rates.max(1, keepdims=True), 1e-9)
            drawn = top.imshow(image, aspect="auto", extent=(0, 1, len(image), 0), cmap="magma", vmin=0, vmax=1)
            figure.colorbar(drawn, ax=top, label="rate / its maximum")
        top.set_title(title, fontsize=10)
        top.set(xlabel="place on the track", ylabel="unit, by peak")
        path = decoded[name]
        at = np.arange(len(path.place))[:150]
        below.plot(at, path.place[:150], color="#444444", lw=1.2, label="where it was")
        below.plot(at, path.guess[:150], "o", color="#b3402e", ms=3, label="decoded from spikes")
        below.set_title(f"median error {100 * np.median(path.error):.1f} % of the track", fontsize=10)
        below.set(xlabel="windows of running, 0.5 s", ylabel="place", ylim=(-0.02, 1.02))
        below.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.25))
    return _save(pyplot, figure, out)
