"""neuro show: the wiring of a model, or what happens inside it over a text or happened in a recorded run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuro import bus
from neuro.errors import UsageError, nearest

if TYPE_CHECKING:
    from neuro.brain import Brain

FORMATS = ("text", "mermaid", "svg")
VIEWS = ("overview", "raster", "rates", "membrane", "weights", "surrogate")

COMMON = ("backend", "set", "out")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        nargs="?",
        default="small",
        help="a shipped model, a folder, a Hugging Face id or a preset; with --spikes also a recording",
    )
    parser.add_argument(
        "text",
        nargs="?",
        help="with --spikes or --limbic: the text to read; with --limbic one of several words may stand alone, for small",
    )
    parser.add_argument("--format", help="of the wiring: " + ", ".join(FORMATS) + f" (default: {FORMATS[0]})")
    parser.add_argument("--spikes", action="store_true", help="draw what happens over TEXT, as a PNG or an SVG")
    parser.add_argument(
        "--limbic", action="store_true", help="draw prosody, affect, hormones and routed depth over TEXT"
    )
    parser.add_argument(
        "--affect", metavar="TEXT", help="what TEXT expresses and how it would be spoken, sentence by sentence"
    )
    parser.add_argument("--view", help="with --spikes: " + ", ".join(VIEWS) + f" (default: {VIEWS[0]})")
    parser.add_argument("--steps", metavar="A:B", help="with --spikes and a recording: which steps to draw")


def run(args: argparse.Namespace) -> int:
    if args.affect is not None:
        from neuro.cli import _affect

        return _affect.show(args)
    if args.spikes and args.limbic:
        raise UsageError("neuro show: got --spikes and --limbic, expected one of them.", "Draw two pictures.")
    if args.format is not None and (args.spikes or args.limbic):
        raise UsageError("neuro show: --format is of the wiring, not of a picture.", "Name the picture: --out FILE.svg")
    if args.limbic:
        from neuro.cli import _limbic

        return _limbic.draw(args)
    if args.spikes:
        from neuro.cli import _spikes

        return _spikes.draw(args)
    for option in ("view", "steps"):
        if getattr(args, option) is not None:
            raise UsageError(
                f"neuro show: --{option} has no effect without --spikes.", "Add --spikes, or leave it out."
            )
    if args.text is not None:
        raise UsageError(
            "neuro show: a text has no effect without --spikes or --limbic.", "Add one of them, or leave the text out."
        )
    form = args.format or FORMATS[0]
    if form not in FORMATS:
        raise UsageError(f"--format: got '{form}'.", nearest(form, FORMATS))
    if args.out and Path(args.out).suffix in (".png", ".svg") and Path(args.out).suffix != f".{form}":
        raise UsageError(
            f"--out: got '{args.out}' for the format {form}.",
            "The wiring is drawn as --format svg --out FILE.svg; --spikes draws what happens inside, as PNG or SVG.",
        )
    brain = _brain(args)
    text = {"text": _text, "mermaid": _mermaid, "svg": _svg}[form](brain)
    if args.out:
        from neuro import atomic

        atomic.write_text(args.out, text)
    if args.json:
        record: dict[str, Any] = {"schema": "neuro.show/1", "out": args.out, "parameters": brain.parameter_counts()}
        record |= {"order": brain.wiring.order, "silent": brain.wiring.silent, "edges": brain.wiring.edges}
        print(json.dumps(record))
    else:
        print(args.out or text)
    return 0


def _brain(args: argparse.Namespace) -> Brain:
    import backends
    from neuro import config, folder, presets
    from neuro.brain import Brain
    from neuro.cli import _model

    if args.model in presets.PRESETS and args.model not in folder.shipped():
        return Brain(config.load(args.model, args.set).brain, backends.select(args.backend))
    return _model.load(args.model, args)


def _text(brain: Brain) -> str:
    counts = brain.parameter_counts()
    lines = [f"{sum(counts.values())} parameters, {counts['embedding']} of them the tied vocabulary", ""]
    for name in brain.wiring.order:
        region = brain.region(name)
        lines.append(f"{name}  ({counts[name]} parameters)")
        lines.append("    reads   " + ", ".join(region.reads))
        lines.append(
            "    writes  " + (", ".join(region.writes) or "nothing inside a step; its state is read as feedback")
        )
    lines += ["", f"feedback (held since the last commit, every {brain.config.plasticity_span} tokens):"]
    feedback = sorted({channel for _, channel, _ in brain.wiring.edges if channel.endswith("~")})
    lines.append("    " + ", ".join(feedback))
    if brain.wiring.silent:
        lines += ["", "silent (nobody writes them): " + ", ".join(brain.wiring.silent)]
    return "\n".join(lines)


def _mermaid(brain: Brain) -> str:
    joined: dict[tuple[str, str], list[str]] = {}
    for writer, channel, reader in brain.wiring.edges:
        joined.setdefault((writer, reader), []).append(channel)
    lines = ["flowchart LR"]
    for (writer, reader), channels in joined.items():
        arrow = "-.->" if writer == "commit" else "-->"
        lines.append(f'    {writer} {arrow}|"{", ".join(channels)}"| {reader}')
    for name in brain.wiring.order:
        read = [channel for channel in brain.region(name).writes if channel in bus.COMMITTED]
        if read:
            lines.append(f'    {name} -.->|"{", ".join(read)}"| commit')
    return "\n".join(lines)


# Column and row of each box: what runs later stands further right.
_PLACES = {
    "input": (0.0, 1.0),
    "thalamus": (1.0, 1.0),
    "amygdala": (2.0, 0.0),
    "cortex": (2.0, 1.0),
    "endocrine": (2.0, 2.0),
    "hippocampus": (3.0, 0.5),
    "commit": (4.0, 2.0),
    "readout": (4.0, 1.0),
}
_FILLS = {
    "thalamus": "#cfe3f5",
    "amygdala": "#f6d5cf",
    "cortex": "#d5ead6",
    "hippocampus": "#f5e6bf",
    "endocrine": "#e4d6ef",
}
_BOX = (156, 56)
_INK, _FEEDBACK = "#44505c", "#7b3f98"


def _svg(brain: Brain) -> str:
    """The wiring as a picture: solid arrows inside a step, dotted ones across the span's end."""
    counts, (width, height) = brain.parameter_counts(), _BOX
    labels = {"input": "tokens in", "commit": f"every {brain.config.plasticity_span} tokens"}
    labels |= {name: f"{counts[name]:,} parameters" for name in brain.wiring.order}
    at = {name: (30 + _PLACES[name][0] * 240, 50 + _PLACES[name][1] * 140) for name in labels}
    joined: dict[tuple[str, str], list[str]] = {}
    for writer, channel, reader in brain.wiring.edges:
        if channel != "valid" and writer in at:
            source = "endocrine" if channel == "modulators~" else writer
            joined.setdefault((source, reader), []).append(channel)
    if "hippocampus" in at:
        joined[("hippocampus", "commit")] = ["pairs"]
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1180 460" font-family="sans-serif" font-size="12">',
        '<rect width="1180" height="460" fill="white"/>',
    ]
    for mark, colour in (("in", _INK), ("back", _FEEDBACK)):
        parts.append(
            f'<defs><marker id="{mark}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            f'<path d="M0 0L8 4L0 8z" fill="{colour}"/></marker></defs>'
        )
    for (writer, reader), channels in joined.items():
        if writer in at:
            feedback = writer == "endocrine" or "commit" in (writer, reader)
            parts.append(_arrow(at[writer], at[reader], channels, feedback))
    for name, (x, y) in at.items():
        fill = _FILLS.get(name, "#e8ecf1")
        parts += [
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="{fill}" stroke="{_INK}"/>',
            f'<text x="{x + width / 2}" y="{y + 24}" text-anchor="middle" font-weight="bold">{name}</text>',
            f'<text x="{x + width / 2}" y="{y + 42}" text-anchor="middle" fill="{_INK}">{labels[name]}</text>',
        ]
    parts.append(
        f'<text x="30" y="446" fill="{_INK}">Solid: inside a step, in this order. '
        f'<tspan fill="{_FEEDBACK}">Dotted: written at a commit and held until the next.</tspan></text></svg>'
    )
    return "\n".join(parts)


def _arrow(start: tuple[float, float], end: tuple[float, float], channels: list[str], feedback: bool) -> str:
    """One curved arrow between the nearest sides of two boxes, its channels written at the middle."""
    (width, height), (x0, y0), (x1, y1) = _BOX, start, end
    if x0 == x1:
        down = y1 > y0
        x0, x1 = x0 + width / 2, x1 + width / 2
        y0, y1 = (y0 + height, y1) if down else (y0, y1 + height)
        path = f"M{x0} {y0}L{x1} {y1}"
        x, y = x0 + 6, (y0 + y1) / 2
    else:
        right = x1 > x0
        x0, x1 = (x0 + width, x1) if right else (x0, x1 + width)
        y0, y1 = y0 + height / 2, y1 + height / 2
        bend = (x1 - x0) / 2
        # A level arrow over more than one column bows below the boxes between.
        bow = 66 if y0 == y1 and abs(x1 - x0) > 240 else 0
        path = f"M{x0} {y0}C{x0 + bend} {y0 + bow} {x1 - bend} {y1 + bow} {x1} {y1}"
        x, y = (x0 + x1) / 2 - 3.0 * len(", ".join(channels)), (y0 + y1) / 2 + 0.75 * bow - 6
    colour, mark = (_FEEDBACK, "back") if feedback else (_INK, "in")
    dash = ' stroke-dasharray="3 3"' if feedback else ""
    label = ", ".join(channels)
    return (
        f'<path d="{path}" fill="none" stroke="{colour}"{dash} marker-end="url(#{mark})"/>'
        f'<text x="{x}" y="{y}" fill="{colour}" font-size="10">{label}</text>'
    )
