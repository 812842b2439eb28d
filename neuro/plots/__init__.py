"""Pictures; the only door to matplotlib. Every function returns None when matplotlib is not installed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuro import atomic


def loss_curve(log: Path, out: Path) -> Path | None:
    """Training and validation nats per token over tokens seen, from a run's log.jsonl -> the PNG."""
    pyplot = _pyplot()
    if pyplot is None:
        return None
    records = [json.loads(line) for line in log.read_text(encoding="utf-8").split("\n") if line]
    steps = [r for r in records if r["event"] == "step"]
    tokens = {r["step"]: r["tokens"] for r in steps}
    evals = [r for r in records if r["event"] == "eval"]
    figure, axis = pyplot.subplots(figsize=(7, 4), layout="constrained")
    axis.plot([r["tokens"] for r in steps], [r["nats"] for r in steps], color="#9aa7b5", lw=0.8, label="training")
    axis.plot(
        [tokens[r["step"]] for r in evals],
        [r["valid_nats"] for r in evals],
        "o-",
        color="#b3402e",
        ms=3,
        label="validation",
    )
    axis.set(xlabel="tokens seen", ylabel="nats per token")
    axis.legend(frameon=False)
    return _save(pyplot, figure, out)


def limbic_raster(
    tokens: Sequence[str],
    rasters: dict[str, np.ndarray],
    traces: dict[str, np.ndarray],
    hormones: dict[str, np.ndarray],
    commits: Sequence[int],
    out: Path,
) -> Path | None:
    """Spikes, affect and hormones over a text, on one token axis.

    Args:
        tokens: T pieces of text.
        rasters: spikes [T, N] of each spiking layer; a sample of 60 neurons is drawn.
        traces: values [T] such as surprise or salience.
        hormones: level [T] of each hormone as held at that token.
        commits: token positions after which a commit happened.
    """
    pyplot = _pyplot()
    if pyplot is None:
        return None
    rows = len(rasters) + 2
    heights = [1.5] * len(rasters) + [1.2, 1.5]
    figure, axes = pyplot.subplots(
        rows, 1, figsize=(12, 1.15 * sum(heights)), sharex=True, layout="constrained", height_ratios=heights
    )
    for axis, (name, raster) in zip(axes, rasters.items(), strict=False):
        shown = raster[:, np.linspace(0, raster.shape[1] - 1, min(60, raster.shape[1])).astype(int)]
        when, which = np.nonzero(shown)
        axis.plot(when, which, "|", color="#1f3a5f", ms=3.0, mew=0.9)
        axis.set_title(f"{name}: {100 * raster.mean():.1f} % of neurons fire per token", loc="left", fontsize=9)
        axis.set_ylabel("neuron")
        axis.set_yticks([])
    for name, values in traces.items():
        axes[-2].plot(values, lw=1, label=name)
    axes[-2].legend(frameon=False, ncols=4, fontsize=8, loc="upper left")
    axes[-2].set_ylim(bottom=min(0.0, min(float(v.min()) for v in traces.values())))
    axes[-2].margins(y=0.35)
    for name, values in hormones.items():
        axes[-1].plot(values, lw=1.4, drawstyle="steps-post", label=name)
    axes[-1].set_ylim(0, 1)
    axes[-1].set_ylabel("hormone")
    axes[-1].legend(frameon=False, ncols=5, fontsize=8, loc="upper left")
    for axis in axes:
        for position in commits:
            axis.axvline(position + 0.5, color="#b3402e", lw=0.6, ls=":")
    axes[-1].set_xticks(
        range(len(tokens)), [piece.replace("\n", "↵").replace("$", r"\$") for piece in tokens], rotation=90, fontsize=5
    )
    axes[-1].set_xlim(-0.5, len(tokens) - 0.5)
    return _save(pyplot, figure, out)


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError:
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _save(pyplot: Any, figure: Any, out: Path) -> Path:
    with atomic.replacing(out) as temporary:
        figure.savefig(temporary, dpi=130, format=out.suffix.removeprefix(".") or "png")
    pyplot.close(figure)
    return out
