"""Reading with a memory: what was surprising, what was stored, and which moments were recalled where, with which weight."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from neuro import atomic
from neuro.plots import _pyplot, label_tokens


def over_text(
    tokens: Sequence[str],
    surprise: np.ndarray,
    salience: np.ndarray,
    stored: np.ndarray,
    gate: np.ndarray,
    recalled: np.ndarray,
    sources: Sequence[tuple[int, str]],
    commits: Sequence[int],
    out: Path,
) -> Path | None:
    """Draw it on the text's token axis.

    Args:
        tokens: T pieces of text.
        surprise: nats [T]. salience: [T].
        stored: [T] whether the token is in the memory after the last commit.
        gate: [T] how much of what is recalled is let in.
        recalled: [N, 3] one row for each moment that was read: token of the text, position of the moment in all that was ever
            read, weight (gate times share).
        sources: (first position, name) of what was read, ascending.
        commits: token positions after which a commit happened.

    Returns:
        the path; None without matplotlib.
    """
    pyplot = _pyplot()
    if pyplot is None:
        return None
    width = float(np.clip(0.125 * len(tokens), 8, 18))
    figure, axes = pyplot.subplots(
        3, 1, figsize=(width, 7), sharex=True, layout="constrained", height_ratios=(1.0, 0.6, 2.6)
    )
    time = np.arange(len(tokens))
    axes[0].plot(time, surprise, color="#0072B2", lw=1.1, label="surprise (nats)")
    top = float(surprise.max(initial=1.0))
    axes[0].plot(time, salience * top, color="#E69F00", lw=1.0, label=f"salience (x {top:.0f})")
    marks = axes[0].plot(
        time[stored], np.full(int(stored.sum()), -0.08 * top), "|", color="#009E73", ms=6, label="stored"
    )
    marks[0].set_gid("stored")
    axes[1].plot(time, gate, color="#CC79A7", lw=1.2)
    axes[1].set(ylabel="gate", ylim=(0, 1))
    axes[0].set_ylabel("reading")
    axes[0].legend(frameon=False, fontsize=8, ncols=3, loc="lower left", bbox_to_anchor=(0, 0.98), borderaxespad=0)
    drawn = recalled[recalled[:, 2] > 0.01] if len(recalled) else recalled.reshape(0, 3)
    axes[2].scatter(drawn[:, 0], drawn[:, 1], s=120 * drawn[:, 2], color="#0072B2", alpha=0.6, lw=0, gid="recalled")
    low, high = (drawn[:, 1].min(), drawn[:, 1].max()) if len(drawn) else (0, 1)
    for start, name in sources:
        if low <= start <= high:
            axes[2].axhline(start - 0.5, color="#bbbbbb", lw=0.6)
            axes[2].annotate(name, (0, start), xytext=(2, 2), textcoords="offset points", fontsize=7, color="#666666")
    axes[2].set(ylabel="recalled moment\n(token ever read)", ylim=(low - 2, high + 2))
    for axis in axes:
        for position in commits:
            axis.axvline(position + 0.5, color="#8a8a8a", lw=0.8, ls=":")
        axis.spines[["top", "right"]].set_visible(False)
    label_tokens(axes[2], tokens, time)
    axes[2].set(
        xlim=(-0.5, len(tokens) - 0.5),
        xlabel="token (dotted: commit); the larger a dot, the more was let in of that moment",
    )
    with atomic.replacing(out) as temporary:
        figure.savefig(temporary, dpi=130, format=out.suffix.removeprefix("."))
    pyplot.close(figure)
    return out
