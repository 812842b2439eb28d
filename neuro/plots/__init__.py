"""Pictures; the only door to matplotlib. Every function returns None when matplotlib is not installed."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuro import atomic

LABELLED = 320  # tokens up to which some are written below an axis
_LABEL_PT = 7  # height of one, which is its room along the axis


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
        axis.tick_params(bottom=False)
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
    axes[-2].tick_params(bottom=False)
    label_tokens(axes[-1], tokens, np.arange(len(tokens)))
    axes[-1].set_xlim(-0.5, len(tokens) - 0.5)
    return _save(pyplot, figure, out)


def perplexities(
    bars: dict[str, tuple[float, tuple[float, float] | None]],
    words: np.ndarray,
    curves: dict[str, np.ndarray],
    out: Path,
) -> Path | None:
    """Word perplexity of each arm with its interval, and of all that was read up to each unit of the text.

    Args:
        bars: (value, 95 % interval) of each arm.
        words: [units] read up to each unit's end.
        curves: word perplexity [units] of each arm up to there.
    """
    pyplot = _pyplot()
    if pyplot is None:
        return None
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained", width_ratios=(2, 3))
    _bars(left, bars)
    left.set(xlabel="word perplexity", xlim=(0, None))
    for (name, values), colour in zip(curves.items(), _colours(bars), strict=True):
        right.plot(words, values, "o-" if len(words) < 3 else "-", color=colour, lw=1.4, ms=3, label=name)
    right.set(xlabel="words read", ylabel="word perplexity so far")
    if curves:
        right.legend(frameon=False, fontsize=8)
    return _save(pyplot, figure, out)


def repeated(
    ratios: dict[str, tuple[float, tuple[float, float] | None]],
    curves: dict[str, Sequence[float]],
    length: int,
    out: Path,
) -> Path | None:
    """A passage shown twice: what the second showing costs of the first, and nats per token along the passage.

    Args:
        ratios: (second over first word perplexity, 95 % interval) of each arm.
        curves: nats per token in equal parts of the passage: the first showing, then the second of each arm.
        length: tokens of the passage.
    """
    pyplot = _pyplot()
    if pyplot is None:
        return None
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained", width_ratios=(2, 3))
    _bars(left, ratios)
    left.axvline(1.0, color="#444444", lw=0.8, ls=":")
    left.set(xlabel="word perplexity, second showing / first", xlim=(0, None))
    for (name, nats), colour in zip(curves.items(), ("#444444", *_colours(ratios)), strict=True):
        where = (np.arange(len(nats)) + 0.5) * length / len(nats)
        style = ("--" if name == next(iter(curves)) else "-") + ("o" if len(nats) < 3 else "")
        right.plot(where, nats, style, color=colour, lw=1.4, ms=3, label=name)
    right.set(xlabel="token of the passage", ylabel="nats per token", ylim=(0, None))
    right.margins(y=0.3)
    right.legend(frameon=False, fontsize=8, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return _save(pyplot, figure, out)


def grouped(
    places: Sequence[str], bars: Mapping[str, Sequence[tuple[float, Sequence[float] | None]]], label: str, out: Path
) -> Path | None:
    """Values with their intervals (None: none is told), one group of bars for each place, one colour for each name."""
    pyplot = _pyplot()
    if pyplot is None:
        return None
    figure, axis = pyplot.subplots(figsize=(max(6.0, 1.2 * len(places)), 4.5), layout="constrained")
    width = 0.8 / len(bars)
    for number, ((name, values), colour) in enumerate(zip(bars.items(), _colours(bars), strict=True)):
        at = np.arange(len(places)) + (number - (len(bars) - 1) / 2) * width
        heights = np.array([value for value, _ in values])
        reach = np.abs(np.array([interval or (np.nan, np.nan) for _, interval in values]) - heights[:, None]).T
        axis.bar(at, heights, width, yerr=reach.tolist(), color=colour, label=name, error_kw={"lw": 0.8})
    axis.set_xticks(np.arange(len(places)), [place.replace(",", "\n") for place in places], fontsize=8)
    axis.set(ylabel=label)
    axis.legend(frameon=False)
    return _save(pyplot, figure, out)


def label_tokens(axis: Any, tokens: Sequence[str], places: np.ndarray) -> None:
    """Write tokens below an axis: all while there is room, else every second, third, ..., so that none lies on another.

    Args:
        tokens: T pieces of text; beyond `LABELLED` of them the axis keeps its numbers.
        places: [T] on the axis.
    """
    if len(tokens) > LABELLED:
        return
    room_pt = 72 * axis.figure.get_size_inches()[0] - 60  # less what stands left of the axis
    every = max(1, int(np.ceil(len(tokens) * 1.08 * _LABEL_PT / room_pt)))
    pieces = [piece.replace("\n", "↵").replace("$", r"\$") for piece in tokens[::every]]
    axis.set_xticks(places[::every], pieces, rotation=90, fontsize=_LABEL_PT)


def _bars(axis: Any, values: dict[str, tuple[float, tuple[float, float] | None]]) -> None:
    """Horizontal bars, the first on top, with their values and 95 % intervals."""
    for place, ((value, interval), colour) in enumerate(zip(values.values(), _colours(values), strict=True)):
        axis.barh(-place, value, color=colour, height=0.6, alpha=0.7)
        if interval is not None:
            axis.plot(interval, [-place, -place], color="#222222", lw=1.5)
        end = max(value, interval[1] if interval else value)
        axis.annotate(f"{value:.3g}", (end, -place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
    axis.set_yticks([-place for place in range(len(values))], list(values))
    axis.margins(x=0.15)


def _colours(names: Collection[str]) -> list[str]:
    """One colour for each arm; the last, memory off, is always red."""
    if not names:
        return []
    return [*["#1f3a5f", "#3f7cac", "#6aa84f", "#c98b2b", "#7a5195"][: len(names) - 1], "#b3402e"]


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
