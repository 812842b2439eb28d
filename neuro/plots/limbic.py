"""What the limbic system makes of a text: prosody, affect, memory's signals, hormones and routed depth on one time axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from neuro import atomic
from neuro.plots import _pyplot, label_tokens

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")


def over_text(
    tokens: Sequence[str],
    panels: Mapping[str, Mapping[str, np.ndarray]],
    route: np.ndarray,
    commits: Sequence[int],
    out: Path,
) -> Path | None:
    """Draw one panel for each group of curves, and below them which layers ran for which token.

    Args:
        tokens: T pieces of text.
        panels: title -> name -> values [T]; a group whose values move only at commits is drawn as steps.
        route: [T, L] 1 where a layer ran.
        commits: token positions after which a commit happened.

    Returns:
        the path; None without matplotlib.
    """
    pyplot = _pyplot()
    if pyplot is None:
        return None
    heights = [1.0] * len(panels) + [0.18 * route.shape[1] + 0.15]
    width = float(np.clip(0.125 * len(tokens), 8, 18))
    figure, axes = pyplot.subplots(
        len(heights), 1, figsize=(width, 1.2 + 1.25 * sum(heights)), sharex=True, layout="constrained",
        height_ratios=heights,
    )  # fmt: skip
    for axis, (title, curves) in zip(axes, panels.items(), strict=False):
        for colour, (name, values) in zip(_COLOURS, curves.items(), strict=False):
            held = set(np.flatnonzero(np.diff(values)).tolist()) <= set(commits)
            axis.plot(values, color=colour, lw=1.2, drawstyle="steps-post" if held else "default", label=name)
        axis.set_ylabel(title, fontsize=9)
        axis.axhline(0, color="#bbbbbb", lw=0.6, zorder=0)
        axis.legend(frameon=False, fontsize=8, ncols=5, loc="lower left", bbox_to_anchor=(0, 0.98), borderaxespad=0)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].imshow(
        route.T, aspect="auto", cmap="Blues", vmin=0, vmax=1.4, interpolation="nearest", origin="lower",
        extent=(-0.5, len(tokens) - 0.5, -0.5, route.shape[1] - 0.5),
    )  # fmt: skip
    axes[-1].set_yticks(range(route.shape[1]))
    axes[-1].set_ylabel("layers run", fontsize=9)
    for axis in axes:
        for position in commits:
            axis.axvline(position + 0.5, color="#8a8a8a", lw=0.8, ls=":")
    label_tokens(axes[-1], tokens, np.arange(len(tokens)))
    axes[-1].set(xlim=(-0.5, len(tokens) - 0.5), xlabel="token (dotted: commit)")
    with atomic.replacing(out) as temporary:
        figure.savefig(temporary, dpi=130, format=out.suffix.removeprefix("."))
    pyplot.close(figure)
    return out
