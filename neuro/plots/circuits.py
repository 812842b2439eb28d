"""Pictures of the circuits of `sims.circuits`: one function a circuit, each draws the curves of one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from neuro.plots import _pyplot, _save

_BLUE, _RED, _GREY = "#1f3a5f", "#b3402e", "#44505c"


def draw(name: str, curves: dict[str, np.ndarray], out: Path) -> Path | None:
    """The picture of the circuit of that name; the suffix of ``out`` says PNG or SVG."""
    pyplot = _pyplot()
    if pyplot is None:
        return None
    panels, into = _DRAWN[name]
    figure, axes = pyplot.subplots(1, panels, figsize=(3.6 * panels, 3.6), layout="constrained", squeeze=False)
    into(list(axes[0]), curves)
    return _save(pyplot, figure, out)


def _lif_curve(axes: list[Any], c: dict[str, np.ndarray]) -> None:
    for axis in axes:
        axis.plot(c["drive"], c["lapicque"], color=_GREY, lw=1.2, label="formula, no noise")
        axis.plot(c["drive"], c["siegert"], color=_RED, lw=1.2, label="formula, noise")
        axis.plot(c["drive"], c["plain"], "s", color=_GREY, ms=4, label="no noise")
        axis.plot(c["drive"], c["noisy"], "o", color=_RED, ms=4, label="noise")
        axis.set(xlabel="drive over threshold", ylabel="Hz")
    axes[0].legend(frameon=False, fontsize=8)
    axes[1].set(xlim=(0.55, 1.3), ylim=(-1, 40), title="around the threshold")


def _ca3_recall(axes: list[Any], c: dict[str, np.ndarray]) -> None:
    for axis, (x, y, label) in zip(
        axes,
        [
            ("loads", "by_load", "patterns stored"),
            ("kept", "by_kept", "part of the pattern in the cue"),
            ("wrong", "by_wrong", "wrong cells beside half a pattern"),
        ],
        strict=True,
    ):
        axis.plot(c[x], c[y], "o-", color=_BLUE, ms=4)
        axis.set(xlabel=label, ylabel="cosine with the pattern", ylim=(0, 1.05))


def _theta_gamma(axes: list[Any], c: dict[str, np.ndarray]) -> None:
    offset, slope = c["line"]
    for turn in (0, 360):
        axes[0].plot(c["place"], c["phase"] + turn, ".", color=_BLUE, ms=2, rasterized=True)
        axes[0].plot([0, 1], [offset + turn, offset + slope + turn], color=_RED, lw=1.5)
    axes[0].set(xlabel="part of the field crossed", ylabel="theta phase (degrees)", ylim=(0, 720))
    axes[1].plot(np.arange(len(c["rate"])), c["rate"], color=_GREY, lw=0.7)
    axes[1].set(xlabel="ms", ylabel="interneurons (Hz)")
    phase = np.arange(36) * 20 + 10
    axes[2].bar(phase, np.tile(c["amplitude"], 2), 18, color=_BLUE)
    axes[2].set(xlabel="theta phase (degrees)", ylabel="share of gamma amplitude")


def _amygdala_fear(axes: list[Any], c: dict[str, np.ndarray]) -> None:
    trial = np.arange(len(c["fear"])) + 1
    axes[0].plot(trial, c["fear"], ".-", color=_RED, lw=1, label="fear cells")
    axes[0].plot(trial, c["extinction"], ".-", color=_BLUE, lw=1, label="extinction cells")
    axes[0].set(xlabel="trial", ylabel="Hz in the tone, before the shock is due")
    for number, colour in ((0, _RED), (1, _BLUE)):
        axes[1].plot(trial, c["weights"][:, number], color=colour)
    axes[1].set(xlabel="trial", ylabel="mean weight of the tone")
    for axis in axes:
        for start in c["starts"][1:-1]:
            axis.axvline(start + 0.5, color=_GREY, lw=0.6, ls=":")
    axes[0].legend(frameon=False, fontsize=8)


def _sleep_wake(axes: list[Any], c: dict[str, np.ndarray]) -> None:
    asleep = c["seconds"][c["edges"][0]], c["seconds"][c["edges"][1]]
    for axis, key, colour in zip(axes, ("cortex", "thalamus"), (_BLUE, _RED), strict=True):
        axis.plot(c["seconds"], np.convolve(c[key], np.ones(5) / 5, "same"), color=colour, lw=0.8)
        axis.axvspan(*asleep, color=_GREY, alpha=0.15, lw=0)
        axis.set(xlabel="seconds (grey: without the modulator)", ylabel=f"{key} (Hz)")


def _ripple_replay(axes: list[Any], c: dict[str, np.ndarray]) -> None:
    axes[0].imshow(c["weights"].T, origin="lower", cmap="Blues", aspect="auto", vmin=0, vmax=1)
    axes[0].set(xlabel="from place cell", ylabel="to place cell", title="synapses after the run")
    axes[1].plot(c["ms"], c["place"], ".", color=_BLUE, ms=3)
    axes[1].set(xlabel="ms", ylabel="centre of the cell's field (cm)", title="one event at rest")
    axes[2].plot(np.arange(len(c["rate"])), c["rate"], color=_GREY, lw=0.7)
    axes[2].set(xlabel="ms", ylabel="interneurons (Hz)", title="the same event")
    for axis in axes[1:]:
        axis.set_xlim(0, 400)


_DRAWN = {
    "lif-curve": (2, _lif_curve),
    "ca3-recall": (3, _ca3_recall),
    "theta-gamma": (3, _theta_gamma),
    "amygdala-fear": (2, _amygdala_fear),
    "sleep-wake": (2, _sleep_wake),
    "ripple-replay": (3, _ripple_replay),
}
