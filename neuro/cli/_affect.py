"""neuro show --affect TEXT: emotion, sentiment, subjectivity and intent of each sentence, and the prosody of its words."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from typing import TYPE_CHECKING

from neuro import cli
from neuro.errors import MissingError, UsageError

if TYPE_CHECKING:
    from neuro.affect.prominence import Prominence

_SENTENCE = re.compile(r"(?<=[.!?])\s+")
STRESSED, PAUSE = 0.5, 0.5  # chances from which a word is shown stressed, and a pause after it


def show(args: argparse.Namespace) -> int:
    """Print (and with --out draw) what the shipped heads say of a text."""
    cli.refuse(args, "show --affect", ["backend", "set"])
    for option, given in (
        ("--format", args.format),
        ("--spikes", args.spikes),
        ("--limbic", args.limbic),
        ("--view", args.view),
        ("--steps", args.steps),
        ("TEXT", args.text),
    ):
        if given:
            raise UsageError(f"neuro show: {option} has no effect with --affect.", "Leave it out.")
    sentences = [part for part in _SENTENCE.split(args.affect) if part.strip()]
    from neuro.affect import channel, prominence, reader

    read = reader.load().read(sentences)
    speaker = prominence.load()
    spoken = [channel.read(speaker, sentence) for sentence in sentences]
    if args.out:
        from neuro.plots import affect as pictures

        words = [[word for word, _, _ in found] for found, _ in spoken]
        if pictures.over_text(words, [said for _, said in spoken], read, args.out) is None:
            raise MissingError("neuro show --affect: --out needs matplotlib.", "pip install 'neuro-hybrid[plots]'")
    if args.json:
        rows = [
            {"text": text, **dataclasses.asdict(affect), "words": _words(found, said)}
            for text, affect, (found, said) in zip(sentences, read, spoken, strict=True)
        ]
        print(json.dumps({"schema": "neuro.show.affect/1", "out": args.out, "sentences": rows}))
        return 0
    for affect, (found, said) in zip(read, spoken, strict=True):
        emotions = ", ".join(f"{name} {_chance(chance)}" for name, chance in affect.emotions.items()) or "none clear"
        marks = zip(found, said.prominent > STRESSED, said.boundary > PAUSE, strict=True)
        print(
            " ".join((w.upper() if loud else w.lower()) + (" |" if pause else "") for (w, _, _), loud, pause in marks)
        )
        print(f"    emotion  {emotions}")
        print(f"    tone     positive {affect.positive:.2f}, subjective {affect.subjective:.2f}")
        print(f"    intent   {affect.intent or 'none of those it knows'}")
        if affect.known < 0.5:
            print(f"    it knows {affect.known:.0%} of these words: the lines above are a guess")
    return 0


def _chance(value: float) -> str:
    """Emotions that are rare in the training texts are named from less than a hundredth on."""
    return f"{value:.2f}" if value >= 0.01 else f"{value:.3f}"


def _words(found: list[tuple[str, int, int]], said: Prominence) -> list[dict[str, object]]:
    return [
        {"word": word, "prominent": float(p), "boundary": float(b)}
        for (word, _, _), p, b in zip(found, said.prominent, said.boundary, strict=True)
    ]
