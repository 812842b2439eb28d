"""How synapses learn: the window of spike pairs, its dependence on their frequency, and e-prop beside backpropagation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from neuro.plots import _pyplot, _save

COLOURS = ("#1f3a5f", "#3f7cac", "#6aa84f", "#c98b2b", "#b3402e")


def plasticity(
    window: tuple[Sequence[float], Sequence[float]],
    frequencies_hz: Sequence[float],
    measured: dict[float, tuple[Sequence[float], Sequence[float]]],
    models: dict[str, dict[float, Sequence[float]]],
    cosines: dict[str, Sequence[Sequence[float]]],
    out: Path,
) -> Path | None:
    """Three panels.

    Args:
        window: lags in ms, and the relative change after the protocol's pairs.
        measured: (changes, standard errors) over the frequencies, for each lag.
        models: changes over the same, for each model and lag.
        cosines: of each kind of feedback, [seed][start, middle, end of training].
    """
    pyplot = _pyplot()
    if pyplot is None:
        return None
    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(13, 4), layout="constrained")
    lags, changes = np.asarray(window[0]), np.asarray(window[1])
    for side in (lags < 0, lags > 0):
        left.plot(lags[side], 100 * changes[side], color=COLOURS[0], lw=1.4)
    left.axhline(0, color="#444444", lw=0.6)
    left.axvline(0, color="#444444", lw=0.6)
    left.set(xlabel="post - pre spike, ms", ylabel="change after 60 pairs at 1 Hz, %")
    for number, (lag, (values, errors)) in enumerate(measured.items()):
        style = ("-", "--")[number % 2]
        middle.errorbar(
            frequencies_hz,
            values,
            errors,
            fmt="os"[number % 2],
            color="#222222",
            ms=4,
            lw=0.8,
            label=f"data, {lag:+g} ms",
        )
        for (name, curves), colour in zip(models.items(), COLOURS, strict=False):
            middle.plot(frequencies_hz, curves[lag], style, color=colour, lw=1.2, label=name if number == 0 else None)
    middle.axhline(0, color="#444444", lw=0.6)
    middle.set(xlabel="pairs per second", ylabel="relative change")
    middle.legend(frameon=False, fontsize=7)
    for (name, rows), colour in zip(cosines.items(), COLOURS, strict=False):
        for number, row in enumerate(rows):
            right.plot(range(len(row)), row, "o-", color=colour, ms=3, lw=1, label=name if number == 0 else None)
    right.axhline(0.9, color="#444444", lw=0.6, ls=":")
    right.set(ylabel="cosine with backpropagation, recurrent matrix", ylim=(-0.3, 1.02))
    right.set_xticks(range(3), ["start", "middle", "end"])
    if cosines:
        right.legend(frameon=False, fontsize=7)
    return _save(pyplot, figure, out)
