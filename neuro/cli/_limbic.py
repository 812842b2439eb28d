"""neuro show --limbic: prosody, affect, salience, hormones and routed depth over a text, on one time axis."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neuro.affect import channel, prominence
from neuro.cli import _model
from neuro.cli._spikes import Run, listen
from neuro.config import HORMONES
from neuro.errors import MissingError, UsageError
from neuro.plots import limbic as pictures
from neuro.plots.spikes import check_format

if TYPE_CHECKING:
    from neuro.brain import Brain


_NAME = re.compile(r"[\w./\\:~-]+", re.ASCII)  # what a model can be called: nothing with spaces, signs or other scripts


def draw(args: argparse.Namespace) -> int:
    """Write the picture, and print its path or, as JSON, every number in it."""
    for option, given in (("--view", args.view), ("--steps", args.steps)):
        if given is not None:
            raise UsageError(f"neuro show: {option} has no effect with --limbic.", "Leave it out.")
    name, text = args.model, args.text or ""
    if args.text is None and not _NAME.fullmatch(name) and not Path(name).exists():
        name, text = "small", name  # neuro show --limbic "Once upon a time", or a word in another script
    if not text.strip():
        raise UsageError(
            "neuro show --limbic: no text to read.", 'Give one: neuro show small "Once upon a time" --limbic'
        )
    out = Path(args.out or "limbic.png")
    check_format(out)
    brain = _model.load(name, args)
    run = listen(brain, text)
    panels = _panels(brain, run, text)
    route = run.trace("route")
    picture = pictures.over_text(run.labels, panels, route, run.commits, out)
    if picture is None:
        raise MissingError("neuro show --limbic needs matplotlib.", "pip install 'neuro-hybrid[plots]'")
    if not args.json:
        print(out)
        return 0
    columns = {name: values for curves in panels.values() for name, values in curves.items()}
    rows = [
        {"token": label, "layers_run": int(route[t].sum())} | {name: float(v[t]) for name, v in columns.items()}
        for t, label in enumerate(run.labels)
    ]
    print(json.dumps({"schema": "neuro.show.limbic/1", "picture": str(out), "commits": run.commits, "tokens": rows}))
    return 0


def _panels(brain: Brain, run: Run, text: str) -> dict[str, dict[str, np.ndarray]]:
    affect = run.trace("affect")
    prosody = _prosody(brain, text)
    panels = {"prosody\n(from text)": prosody} if prosody else {}
    return panels | {
        "affect": {"valence": affect[:, 0], "arousal": affect[:, 1]},
        "memory": {name.replace("_", " "): run.trace(name) for name in ("salience", "novelty", "recall_gate")},
        "surprise\n(nats)": {"surprise": run.trace("surprise")},
        "hormones": {name: run.hormones[:, i] for i, name in enumerate(HORMONES)},
    }


def _prosody(brain: Brain, text: str) -> dict[str, np.ndarray]:
    """What the shipped reader makes of the words, on their tokens: drawn, not fed; nothing for a text without a word."""
    if not channel.words(text):
        return {}
    tokenizer = brain.tokenizer
    pieces = [tokenizer.token_bytes(token) for token in tokenizer.encode(text)]
    words, said = channel.read(prominence.load(), text)
    spans = channel.token_spans(pieces, text)
    rows = channel.align([(a, b) for _, a, b in words], channel.rows(said), spans, causal=False)
    rows = np.concatenate([np.zeros((1, rows.shape[1]), rows.dtype), rows])  # <bos>
    return {"prominence": rows[:, 0], "boundary": rows[:, 2]}
