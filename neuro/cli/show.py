"""neuro show: the wiring of a model, or what happens inside it over a text."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuro.errors import MissingError, UsageError, nearest

if TYPE_CHECKING:
    from neuro.brain import Brain

FORMATS = ("text", "mermaid", "svg")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", default="small", help="a shipped model, a model folder, or a preset")
    parser.add_argument("text", nargs="?", help="with --spikes: the text to run")
    parser.add_argument("--format", default="text", help="of the wiring: " + ", ".join(FORMATS))
    parser.add_argument("--spikes", action="store_true", help="draw spikes, affect and hormones over TEXT (PNG)")


def run(args: argparse.Namespace) -> int:
    if args.spikes:
        return _spikes(args)
    if args.format not in FORMATS:
        raise UsageError(f"--format: got '{args.format}'.", nearest(args.format, FORMATS))
    brain = _brain(args)
    if args.json:
        record: dict[str, Any] = {"schema": "neuro.show/1", "parameters": brain.parameter_counts()}
        record |= {"order": brain.wiring.order, "silent": brain.wiring.silent, "edges": brain.wiring.edges}
        print(json.dumps(record))
        return 0
    text = {"text": _text, "mermaid": _mermaid, "svg": _svg}[args.format](brain)
    if args.out:
        from neuro import atomic

        atomic.write_text(args.out, text)
        print(args.out)
    else:
        print(text)
    return 0


def _brain(args: argparse.Namespace) -> Brain:
    import backends
    from neuro import config, folder, presets
    from neuro.brain import Brain

    if args.model in presets.PRESETS and args.model not in folder.shipped():
        return Brain(config.load(args.model, args.set).brain, backends.select(args.backend))
    return folder.load(args.model, args.backend, sets=args.set)


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
    lines += ["", "feedback (held since the last commit, every " + f"{brain.config.plasticity_span} tokens): "]
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
        lines.append(f"    {name} -.-> commit")
    return "\n".join(lines)


# Columns of the drawing: what runs later stands further right.
_COLUMNS = {"input": 0, "thalamus": 1, "amygdala": 2, "cortex": 2, "hippocampus": 3, "readout": 4, "endocrine": 2}
_ROWS = {"input": 1, "thalamus": 1, "amygdala": 0, "cortex": 1, "hippocampus": 0, "readout": 1, "endocrine": 2}
_COLOURS = {
    "input": "#e8ecf1",
    "thalamus": "#cfe3f5",
    "amygdala": "#f6d5cf",
    "cortex": "#d5ead6",
    "hippocampus": "#f5e6bf",
    "endocrine": "#e4d6ef",
    "readout": "#e8ecf1",
}


def _svg(brain: Brain) -> str:
    """The wiring as a picture: solid arrows inside a step, dotted ones across the span's end."""
    counts = brain.parameter_counts()
    width, height, box_w, box_h = 1180, 470, 150, 56
    names = ["input", *brain.wiring.order]
    at = {name: (30 + _COLUMNS[name] * 243, 70 + _ROWS[name] * 140) for name in names}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        '<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#44505c"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    joined: dict[tuple[str, str], list[str]] = {}
    for writer, channel, reader in brain.wiring.edges:
        if writer in at:
            joined.setdefault((writer, reader), []).append(channel)
    for (writer, reader), channels in joined.items():
        parts += _arrow(at[writer], at[reader], ", ".join(c for c in channels if c != "valid"), box_w, box_h)
    for name in names:
        x, y = at[name]
        label = "tokens in" if name == "input" else f"{counts[name]:,} parameters"
        parts.append(
            f'<rect x="{x}" y="{y}" width="{box_w}" height="{box_h}" rx="8" fill="{_COLOURS[name]}" stroke="#44505c"/>'
        )
        parts.append(f'<text x="{x + box_w / 2}" y="{y + 24}" text-anchor="middle" font-weight="bold">{name}</text>')
        parts.append(f'<text x="{x + box_w / 2}" y="{y + 42}" text-anchor="middle" fill="#44505c">{label}</text>')
    feedback = sorted({channel for _, channel, _ in brain.wiring.edges if channel.endswith("~")})
    span = brain.config.plasticity_span
    note = f"Every {span} tokens a commit writes the memory and updates the hormones; until the next these are held:"
    parts.append(f'<text x="30" y="440" fill="#44505c">{note}</text>')
    parts.append(f'<text x="30" y="458" fill="#7b3f98">{", ".join(feedback)}</text>')
    parts.append("</svg>")
    return "\n".join(parts)


def _arrow(start: tuple[float, float], end: tuple[float, float], label: str, box_w: int, box_h: int) -> list[str]:
    (x0, y0), (x1, y1) = start, end
    if x0 == x1:  # the same column: straight down or up
        top = y1 > y0
        x0, y0, x1, y1 = x0 + box_w / 2, y0 + (box_h if top else 0), x1 + box_w / 2, y1 + (0 if top else box_h)
        path = f"M{x0} {y0}L{x1} {y1}"
        middle = (x0 + 6.0, (y0 + y1) / 2)
    else:
        x0, y0, y1 = x0 + box_w, y0 + box_h / 2, y1 + box_h / 2
        bend = (x1 - x0) / 2
        if y0 == y1 and x1 - x0 > 200:  # passes over a box: arch above it
            path, middle = (
                f"M{x0} {y0}C{x0 + bend} {y0 + 80} {x1 - bend} {y1 + 80} {x1} {y1}",
                ((x0 + x1) / 2 - 30, y0 + 74),
            )
        else:
            path, middle = (
                f"M{x0} {y0}C{x0 + bend} {y0} {x1 - bend} {y1} {x1} {y1}",
                ((x0 + x1) / 2 - 32, (y0 + y1) / 2 - 6),
            )
    return [
        f'<path d="{path}" fill="none" stroke="#44505c" marker-end="url(#a)"/>',
        f'<text x="{middle[0]}" y="{middle[1]}" fill="#44505c" font-size="10">{label}</text>',
    ]


def _spikes(args: argparse.Namespace) -> int:
    import numpy as np
    import torch

    from neuro import accounting, folder, plots
    from neuro.config import HORMONES
    from neuro.session import Session

    if not args.text:
        raise UsageError(
            "neuro show --spikes: no text to run.", 'Give one: neuro show small "Once upon a time" --spikes'
        )
    brain = folder.load(args.model, args.backend, record_raster=True, sets=args.set)
    ids = [brain.tokenizer.bos_id, *brain.tokenizer.encode(args.text)]
    records, hormones, commits = [], [], []

    class Record:
        def span(self, events, commit) -> None:
            records.extend(events)

    session = Session(brain, observers=[Record()])
    for position, token in enumerate(ids):
        hormones.append(brain.modulators(session.state)[0])
        session.feed(torch.tensor([[token]]))
        if int(session.state.clock) == 0:
            commits.append(position)
    session.commit()

    def trace(name: str) -> np.ndarray:
        return torch.cat([getattr(event, name)[0] for event in records]).numpy()

    rasters = torch.cat([event.raster[0] for event in records]).numpy()
    names = accounting.spiking_names(brain)
    affect = trace("affect")
    levels = torch.stack(hormones).numpy()
    out = Path(args.out or "spikes.png")
    picture = plots.limbic_raster(
        [brain.tokenizer.decode([token]) for token in ids],
        {name: rasters[:, i] for i, name in enumerate(names)},
        {
            "surprise / 10 nats": trace("surprise") / 10,
            "salience": trace("salience"),
            "valence": affect[:, 0],
            "arousal": affect[:, 1],
        },
        {name: levels[:, i] for i, name in enumerate(HORMONES)},
        commits,
        out,
    )
    if picture is None:
        raise MissingError("neuro show --spikes needs matplotlib.", "pip install 'neuro-hybrid[plots]'")
    print(json.dumps({"schema": "neuro.show/1", "picture": str(out)}) if args.json else out)
    return 0
