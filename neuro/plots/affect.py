"""What a text expresses, drawn over its words."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from neuro.affect.prominence import Prominence
from neuro.affect.reader import Affect
from neuro.plots import _pyplot, _save

_STRESSED, _PLAIN, _PAUSE, _GOOD, _BAD = "#b3402e", "#9aa7b5", "#1f3a5f", "#3c8d5a", "#b3402e"


def over_text(
    words: Sequence[Sequence[str]], spoken: Sequence[Prominence], read: Sequence[Affect], out: str | Path
) -> Path | None:
    """Prominence of each word (bars), the chance of a pause after it (ticks), and of each sentence its tone and emotions.

    Args:
        words: of each sentence.
        spoken: their prosody.
        read: what each sentence expresses.
        out: a PNG or SVG.
    """
    pyplot = _pyplot()
    if pyplot is None:
        return None
    figure, (top, bottom) = pyplot.subplots(
        2, 1, figsize=(12, 4.2), sharex=True, layout="constrained", height_ratios=(1, 1.6)
    )
    labels: list[str] = []
    for some, said, affect in zip(words, spoken, read, strict=True):
        places = [len(labels) + i for i in range(len(some))]
        bottom.bar(places, said.prominent, color=[_STRESSED if p > 0.5 else _PLAIN for p in said.prominent], width=0.7)
        bottom.plot([place + 0.5 for place in places], said.boundary, "|", color=_PAUSE, ms=12, mew=1.5)
        tone = affect.positive - 0.5
        strength = 0.15 + 0.7 * abs(tone)
        top.barh(0, len(some) - 0.2, left=places[0] - 0.4, color=_GOOD if tone > 0 else _BAD, alpha=strength)
        names = [f"{name} {chance:.2f}" for name, chance in list(affect.emotions.items())[:3]]
        top.text(sum(places) / len(places), 0, "\n".join(names) or "-", ha="center", va="center", fontsize=9)
        labels += some
    top.set_yticks([])
    top.set_title(
        "each sentence: its emotions; green positive, red negative, stronger where surer", loc="left", fontsize=9
    )
    bottom.set(ylim=(0, 1.05), ylabel="chance")
    bottom.set_title("bars: prominence (red above one half); ticks: a pause after the word", loc="left", fontsize=9)
    shown = [word.replace("$", r"\$") for word in labels]
    bottom.set_xticks(range(len(labels)), shown, rotation=60, ha="right", fontsize=8)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a script without a font is drawn as boxes
        return _save(pyplot, figure, Path(out))
