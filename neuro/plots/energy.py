"""Where the joules go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from neuro.plots import _pyplot, _save

_COLOURS = (
    "#1f3a5f", "#3f7cac", "#6aa84f", "#c98b2b", "#8e6bbf", "#b3402e", "#7b8a97", "#b59c7a", "#2f8f83", "#d98ba3",
    "#557a2b", "#9db4c0",
)  # fmt: skip
_SHOWN = 0.01  # share below which a term is in the bar and not in the legend


def shares(sides: Sequence[tuple[str, Mapping[str, float], str]], title: str, out: Path) -> Path | None:
    """One bar a side, from 0 to 100 %: what each term takes of the sum.

    Args:
        sides: (name, joules of each term, what to write beside the bar); sides share nothing but the names of terms.
        title: above all.
        out: the picture; its suffix says PNG or SVG.
    """
    pyplot = _pyplot()
    if pyplot is None:
        return None
    names = list(
        dict.fromkeys(
            term
            for _, terms, _ in sides
            for term, joules in terms.items()
            if joules >= _SHOWN * sum(terms.values()) > 0
        )
    )
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}
    figure, axis = pyplot.subplots(figsize=(11, 1.6 + 0.75 * len(sides)), layout="constrained")
    for place, (_, terms, words) in enumerate(sides):
        whole, left = sum(terms.values()), 0.0
        for name, joules in terms.items():
            if not joules:
                continue
            share = 100 * joules / whole
            axis.barh(-place, share, left=left, color=colours.get(name, "#dddddd"), height=0.62)
            if share >= 7:
                words_inside = f"{name}\n{share:.0f} %"
                axis.text(left + share / 2, -place, words_inside, ha="center", va="center", fontsize=7, color="white")
            left += share
        axis.annotate(words, (100, -place), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8)
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=colours[name]) for name in names]
    axis.legend(
        handles,
        names,
        frameon=False,
        fontsize=7,
        ncols=5,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        borderaxespad=0.2,
    )
    axis.set_yticks([-place for place in range(len(sides))], [name for name, _, _ in sides], fontsize=8)
    axis.set(xlim=(0, 100), xlabel="share of the energy, %")
    figure.suptitle(title, fontsize=10)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    return _save(pyplot, figure, out)
