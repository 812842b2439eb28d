"""Pictures of spikes: rasters, membrane traces, firing rates, weights, surrogate slopes; PNG or SVG by the path's suffix.

Every function takes numpy arrays, steps T first, and returns the path, or None when matplotlib is not installed. Colours are
those of Okabe and Ito (2008), which colour-blind readers tell apart. In an SVG text stays text, and the ticks of a population
are the group ``spikes:NAME``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuro import atomic
from neuro.errors import UsageError
from neuro.plots import LABELLED, _pyplot, label_tokens

FORMATS = (".png", ".svg")
_COLOURS = ("#0072B2", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000")
_RED, _GREY = "#D55E00", "#8a8a8a"
_MANY = 20_000  # ticks of a population from which an SVG holds them as an image
_BINS = 400  # of the population rate: longer runs are averaged over several steps


def check_format(out: Path) -> None:
    """Raises UsageError for a path that is neither a PNG nor an SVG."""
    if out.suffix not in FORMATS:
        raise UsageError(f"picture: got '{out}', expected a name that ends in .png or .svg.", "Rename it.")


def raster(
    populations: Mapping[str, np.ndarray],
    out: Path,
    *,
    first: int = 0,
    dt_ms: float | None = None,
    step: str = "step",
    labels: Sequence[str] = (),
    commits: Sequence[int] = (),
    most: int = 64,
) -> Path | None:
    """Who fired when, one panel a population, and below them the share of each population that fired, over time.

    Args:
        populations: name -> spikes [T, N]; anything but 0 is a spike.
        first: step that the arrays begin at.
        dt_ms: milliseconds of a step: time is then in ms and rates in Hz.
        step: what a step is called where it is no time.
        labels: T pieces of text for the time axis, drawn while there is room.
        commits: steps after which the brain committed.
        most: neurons drawn of a population, evenly taken; the title says so.
    """
    check_format(out)
    pyplot = _pyplot()
    if pyplot is None:
        return None
    steps = _steps(populations)
    shown = {name: _some(spikes.shape[1], most) for name, spikes in populations.items()}
    heights = [max(1.0, 2.4 * len(which) / most) for which in shown.values()]
    figure, axes = _panels(pyplot, [*heights, 1.2], steps, labels)
    scale = dt_ms or 1.0
    for axis in axes[:-1]:
        axis.tick_params(bottom=False)
    for axis, colour, (name, spikes) in zip(axes, _cycle(populations), populations.items(), strict=False):
        when, which = np.nonzero(spikes[:, shown[name]])
        inches = figure.get_size_inches()[0]
        width = float(np.clip(30 * inches / steps, 0.4, 1.4))
        ticks = axis.vlines((first + when) * scale, which - 0.42, which + 0.42, color=colour, lw=width)
        ticks.set_gid(f"spikes:{name}")
        ticks.set_rasterized(len(when) > _MANY)
        drawn, neurons = len(shown[name]), spikes.shape[1]
        part = f"{neurons:,} neurons" if drawn == neurons else f"{drawn} of {neurons:,} neurons"
        axis.set_title(f"{name}  ({part}, {_rate_text(np.mean(spikes != 0), dt_ms, step)})", loc="left", fontsize=9)
        places = np.linspace(0, drawn - 1, min(3, drawn)).astype(int)
        axis.set(ylim=(-0.5, drawn - 0.5), ylabel="neuron")
        axis.set_yticks(places, [str(shown[name][place]) for place in places])
    width = -(-steps // _BINS)
    starts = np.arange(0, steps, width)
    edges = (first - 0.5 + np.append(starts, steps)) * scale
    per_step = 100.0 if dt_ms is None else 1000.0 / dt_ms
    for colour, (name, spikes) in zip(_cycle(populations), populations.items(), strict=True):
        share = np.add.reduceat((spikes != 0).mean(1), starts) / np.diff(starts, append=steps)
        axes[-1].stairs(per_step * share, edges, baseline=None, color=colour, lw=1.0, label=name)
    binned = "" if width == 1 else f"\nin {width * scale:g} {'ms' if dt_ms else step + 's'}"
    axes[-1].set_ylabel((f"fire per\n{step} (%)" if dt_ms is None else "rate (Hz)") + binned)
    axes[-1].set_ylim(bottom=0)
    _mark(axes, [(first + position + 0.5) * scale for position in commits], "commit")
    _time_axis(axes[-1], first, steps, dt_ms, step, labels)
    if len(populations) > 1 or len(commits):
        axes[-1].legend(
            frameon=False, fontsize=8, ncols=4, loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.1
        )
    return _save(pyplot, figure, out)


def membrane(
    membranes: Mapping[str, np.ndarray],
    spikes: Mapping[str, np.ndarray],
    out: Path,
    *,
    threshold: float | None = None,
    after: Mapping[str, np.ndarray] | None = None,
    unit: str = "a.u.",
    first: int = 0,
    dt_ms: float | None = None,
    step: str = "step",
    labels: Sequence[str] = (),
    commits: Sequence[int] = (),
    most: int = 4,
) -> Path | None:
    """Membrane potentials of a few neurons of each population, from the most to the least active that fired at all.

    Args:
        membranes: name -> potentials [T, N], before the reset where ``after`` is given.
        spikes: name -> [T, N] of the same populations.
        threshold: drawn as a dashed line.
        after: name -> potentials [T, N] that the reset left: a spike is then drawn as a fall at its step.
        unit: of the potentials.
        most: neurons of a population.

    The others as in `raster`.
    """
    check_format(out)
    pyplot = _pyplot()
    if pyplot is None:
        return None
    steps = _steps(membranes)
    from matplotlib import ticker

    chosen = {name: _by_activity(spikes[name], most) for name in membranes}
    figure, axes = _panels(pyplot, [0.75] * sum(map(len, chosen.values())), steps, labels)
    time = (first + np.arange(steps)) * (dt_ms or 1.0)
    rows = iter(axes)
    for colour, (name, u) in zip(_cycle(membranes), membranes.items(), strict=True):
        left = u if after is None else after[name]
        for place, neuron in enumerate(chosen[name]):
            axis = next(rows)
            path = np.stack([u[:, neuron], left[:, neuron]], 1).ravel()
            low, high = float(path.min()), max(float(path.max()), -np.inf if threshold is None else threshold)
            reach = (high - low) or 1.0
            axis.plot(np.repeat(time, 2), path, color=colour, lw=0.9)
            if threshold is not None:
                axis.axhline(threshold, color=_GREY, lw=0.8, ls="--")
            when = time[spikes[name][:, neuron] != 0]
            ticks = axis.vlines(when, high + 0.12 * reach, high + 0.42 * reach, color=_RED, lw=1.2)
            ticks.set_gid(f"spikes:{name}:{neuron}")
            axis.set_ylim(low - 0.08 * reach, high + 0.5 * reach)
            if place == 0:
                title = f"{name}  ({len(chosen[name])} of {u.shape[1]:,} neurons, from the most to the least active)"
                axis.set_title(title, loc="left", fontsize=9)
            axis.set_ylabel(f"no. {neuron}", rotation=0, ha="right", va="center", fontsize=8)
            axis.set_yticks([tick for tick in ticker.MaxNLocator(2).tick_values(low, high) if low <= tick <= high])
            axis.tick_params(axis="y", labelsize=7)
            axis.spines[["top", "right"]].set_visible(False)
            axis.tick_params(bottom=axis is axes[-1])
    figure.supylabel(f"membrane potential ({unit})", fontsize=10)
    _mark(axes, [(first + position + 0.5) * (dt_ms or 1.0) for position in commits], "commit")
    _time_axis(axes[-1], first, steps, dt_ms, step, labels)
    handles = [pyplot.Line2D([], [], color=_RED, marker="|", ls="", ms=8, mew=1.2, label="spike")]
    if threshold is not None:
        handles.append(pyplot.Line2D([], [], color=_GREY, lw=0.8, ls="--", label=f"threshold ({threshold:g})"))
    if len(commits):
        handles.append(pyplot.Line2D([], [], color=_GREY, lw=0.8, ls=":", label="commit"))
    figure.legend(handles=handles, frameon=False, fontsize=8, ncols=3, loc="outside upper right")
    return _save(pyplot, figure, out)


def rates(
    counts: Mapping[str, np.ndarray], steps: int, out: Path, *, dt_ms: float | None = None, step: str = "step"
) -> Path | None:
    """How many neurons fire how often: a histogram a population, its mean and median, and the share that never fired.

    Args:
        counts: name -> spikes [N] of each neuron.
        steps: over which they were counted, of all rows of a batch together.
        dt_ms, step: as in `raster`.
    """
    check_format(out)
    pyplot = _pyplot()
    if pyplot is None:
        return None
    scale = (1.0 if dt_ms is None else 1000.0 / dt_ms) / steps
    top = max(int(count.max()) for count in counts.values())
    width = -(-(top + 1) // 40)  # whole spikes: no bin gets one possible count more than its neighbour
    edges = ((np.arange(-(-(top + 1) // width) + 1) * width - 0.5) * scale).tolist()
    figure, axes = pyplot.subplots(
        len(counts), 1, figsize=(7, 0.6 + 1.7 * len(counts)), sharex=True, layout="constrained", squeeze=False
    )
    for axis, colour, (name, count) in zip(axes[:, 0], _cycle(counts), counts.items(), strict=True):
        axis.hist(scale * count, edges, color=colour, alpha=0.8)
        for value, style, label in ((count.mean(), "-", "mean"), (np.median(count), "--", "median")):
            shown = f"{label} {scale * value:.3g}"
            axis.axvline(scale * value, color=_RED if label == "mean" else "#000000", lw=1.2, ls=style, label=shown)
        axis.set_title(
            f"{name}  ({len(count):,} neurons, {100 * np.mean(count == 0):.1f} % silent)", loc="left", fontsize=9
        )
        axis.set(ylabel="neurons", xlim=(edges[0], edges[-1]))
        axis.legend(frameon=False, fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1, 0].set_xlabel(f"spikes per {step}" if dt_ms is None else "firing rate (Hz)")
    return _save(pyplot, figure, out)


def weights(matrices: Mapping[str, np.ndarray], out: Path) -> Path | None:
    """Each weight matrix [to, from] as an image, zero white, beside the histogram of its values.

    The colours end at the 99.5th percentile of the absolute values.
    """
    check_format(out)
    pyplot = _pyplot()
    if pyplot is None:
        return None
    figure, axes = pyplot.subplots(
        len(matrices), 2, figsize=(9, 2.3 * len(matrices)), layout="constrained", squeeze=False, width_ratios=(3, 2)
    )
    for (left, right), (name, weight) in zip(axes, matrices.items(), strict=True):
        end = float(np.quantile(np.abs(weight), 0.995)) or 1.0
        image = left.imshow(weight, aspect="auto", cmap="PuOr_r", vmin=-end, vmax=end, interpolation="antialiased")
        figure.colorbar(image, ax=left, label="weight", extend="both")
        left.set(xlabel="from", ylabel="to")
        left.set_title(f"{name}  [{weight.shape[0]:,} x {weight.shape[1]:,}]", loc="left", fontsize=9)
        right.hist(weight.ravel(), 80, color=_COLOURS[0], alpha=0.8)
        right.axvline(0, color=_GREY, lw=0.8)
        right.set(xlabel="weight", ylabel="synapses")
        right.ticklabel_format(axis="y", style="sci", scilimits=(0, 3))
        right.set_title(f"mean {weight.mean():.2g}, s.d. {weight.std():.2g}", loc="left", fontsize=9)
        right.spines[["top", "right"]].set_visible(False)
    return _save(pyplot, figure, out)


def surrogate(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    out: Path,
    *,
    threshold: float = 1.0,
    membranes: Mapping[str, np.ndarray] | None = None,
    unit: str = "a.u.",
) -> Path | None:
    """The slope that training uses in place of the spike's, and where the membranes of a run lay on it.

    Args:
        curves: name -> (potentials u, slopes ds/du).
        threshold: where the spike steps from 0 to 1.
        membranes: name -> potentials before the reset, any shape; their histograms are drawn below.
        unit: of the potentials.
    """
    check_format(out)
    pyplot = _pyplot()
    if pyplot is None:
        return None
    below = bool(membranes)
    figure, axes = pyplot.subplots(
        1 + below, 1, figsize=(7, 3.0 + 2.2 * below), sharex=True, layout="constrained", squeeze=False
    )
    upper = axes[0, 0]
    low, high = min(float(u.min()) for u, _ in curves.values()), max(float(u.max()) for u, _ in curves.values())
    upper.plot([low, threshold, threshold, high], [0, 0, 1, 1], color="#000000", lw=1.2, label="spike s(u)")
    for colour, (name, (u, slope)) in zip(_cycle(curves), curves.items(), strict=True):
        upper.plot(u, slope, color=colour, lw=1.5, label=f"ds/du, {name}")
    upper.set(ylabel="spike; slope", xlim=(low, high))
    upper.legend(frameon=False, fontsize=8, loc="upper left")
    for colour, (name, u) in zip(_cycle(membranes or {}), (membranes or {}).items(), strict=True):
        share = np.full(u.size, 100.0 / max(1, u.size))
        outside = 100.0 * float(np.mean((u < low) | (u > high)))
        label = name if outside < 0.05 else f"{name} ({outside:.1f} % outside)"
        bins = np.linspace(low, high, 81).tolist()
        axes[1, 0].hist(u.ravel(), bins, weights=share.ravel(), histtype="step", lw=1.3, color=colour, label=label)
        axes[1, 0].set_ylabel("potentials (%)\nper bin")
        axes[1, 0].legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1.0))
    for axis in axes[:, 0]:
        axis.axvline(threshold, color=_GREY, lw=0.8, ls="--")
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1, 0].set_xlabel(f"membrane potential u before the reset ({unit})")
    return _save(pyplot, figure, out)


def _panels(pyplot: Any, heights: list[float], steps: int, labels: Sequence[str]) -> tuple[Any, Any]:
    """Panels under one time axis, wide enough for its tokens."""
    width = float(np.clip(0.125 * steps, 8, 18)) if _labelled(labels, steps) else 10.0
    figure, axes = pyplot.subplots(
        len(heights), 1, figsize=(width, 0.9 + 1.15 * sum(heights)), sharex=True, layout="constrained", squeeze=False,
        height_ratios=heights,
    )  # fmt: skip
    return figure, axes[:, 0]


def _time_axis(axis: Any, first: int, steps: int, dt_ms: float | None, step: str, labels: Sequence[str]) -> None:
    scale = dt_ms or 1.0
    axis.set_xlim((first - 0.5) * scale, (first + steps - 0.5) * scale)
    if _labelled(labels, steps):
        label_tokens(axis, labels, (first + np.arange(steps)) * scale)
    axis.set_xlabel(step if dt_ms is None else "time (ms)")


def _labelled(labels: Sequence[str], steps: int) -> bool:
    return len(labels) == steps <= LABELLED


def _mark(axes: Any, places: Sequence[float], label: str) -> None:
    for axis in axes:
        for number, place in enumerate(places):
            axis.axvline(place, color=_GREY, lw=0.8, ls=":", label=label if number == 0 else None, zorder=0)


def _rate_text(share: float, dt_ms: float | None, step: str) -> str:
    if dt_ms is None:
        return f"{100 * share:.1f} % fire per {step}"
    return f"{1000 * share / dt_ms:.1f} Hz"


def _steps(populations: Mapping[str, np.ndarray]) -> int:
    """T of all of them.

    Raises:
        UsageError: nothing to draw, or arrays that are not [T, N] of one T.
    """
    shapes = {name: values.shape for name, values in populations.items()}
    flat = all(len(shape) == 2 and 0 not in shape for shape in shapes.values())
    if not flat or len({shape[0] for shape in shapes.values()}) != 1:
        raise UsageError(
            f"picture: got arrays of shapes {shapes}, expected [steps, neurons] with the same steps, at least one.",
            "Take one row of a batch, and put time first.",
        )
    return next(iter(shapes.values()))[0]


def _some(neurons: int, most: int) -> np.ndarray:
    """At most ``most`` of the neurons, evenly taken."""
    return np.linspace(0, neurons - 1, min(most, neurons)).astype(int)


def _by_activity(spikes: np.ndarray, most: int) -> np.ndarray:
    """At most ``most`` neurons, from the most to the least active of those that fired; silent ones only for want of others."""
    counts = (spikes != 0).sum(0)
    order = np.argsort(-counts, kind="stable")
    alive = max(int((counts > 0).sum()), min(most, len(order)))
    return order[_some(alive, most)]


def _cycle(names: Mapping[str, Any]) -> list[str]:
    return [_COLOURS[number % len(_COLOURS)] for number in range(len(names))]


def _save(pyplot: Any, figure: Any, out: Path) -> Path:
    """Whole or not at all; the same picture is the same file."""
    kind = out.suffix.removeprefix(".")
    with pyplot.rc_context({"svg.fonttype": "none", "svg.hashsalt": "neuro"}), atomic.replacing(out) as temporary:
        figure.savefig(temporary, dpi=150, format=kind, metadata={"Date": None} if kind == "svg" else None)
    pyplot.close(figure)
    return out
