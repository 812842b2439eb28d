"""Picture of the ablation: what each part is worth in each measure, with its interval and its seeds."""

from __future__ import annotations

from pathlib import Path

from neuro.plots import _pyplot, _save

Worth = tuple[float, tuple[float, float], list[float]]  # value, 95 % interval, by seed


def worth(measures: dict[str, dict[str, Worth]], out: Path) -> Path | None:
    """One panel a measure, one row a part, zero where a part is worth nothing; None without matplotlib."""
    pyplot = _pyplot()
    if pyplot is None:
        return None
    rows = max(map(len, measures.values()))
    columns = min(4, len(measures))
    down = -(-len(measures) // columns)
    figure, axes = pyplot.subplots(
        down,
        columns,
        figsize=(2.2 + 2.6 * columns, down * (1.0 + 0.28 * rows)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, (title, parts) in zip(axes.flat, measures.items(), strict=False):
        for place, (value, bounds, seeds) in enumerate(parts.values()):
            apart = bounds[0] > 0 or bounds[1] < 0
            colour = "#9aa7b5" if not apart else "#1f3a5f" if value > 0 else "#b3402e"
            axis.plot(bounds, [-place, -place], color=colour, lw=1.6)
            axis.plot(value, -place, "o", color=colour, ms=5)
            axis.plot(seeds, [-place] * len(seeds), "|", color="#444444", ms=6, mew=0.8)
        axis.axvline(0.0, color="#444444", lw=0.8, ls=":")
        axis.set_yticks([-place for place in range(len(parts))], list(parts), fontsize=8)
        axis.set_title(title.replace(": ", "\n"), loc="left", fontsize=8)
        axis.tick_params(axis="x", labelsize=7)
    for axis in axes.flat[len(measures) :]:
        axis.set_visible(False)
    figure.supxlabel("worth of the part: positive where the brain without it does worse", fontsize=9)
    return _save(pyplot, figure, out)
