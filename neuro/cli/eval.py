"""neuro eval: measure a model on a text."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuro.errors import UsageError, nearest

if TYPE_CHECKING:
    from neuro.evaluate.perplexity import Perplexity

SUITES = ("perplexity",)
WORDS = {
    "real": "memory on",
    "episodic": "episodic memory only",
    "procedural": "procedural memory only",
    "off": "memory off",
}

COMMON = ("backend", "set", "out")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", default="small", help="a shipped model, a folder or a Hugging Face id")
    parser.add_argument("text", nargs="?", help="a text file (.txt, .txt.gz) or a folder")
    parser.add_argument("--suite", default="perplexity", help="what to measure: " + ", ".join(SUITES))
    parser.add_argument("--wikitext", action="store_true", help="the text is in WikiText's form: published protocol")
    parser.add_argument("--articles", type=int, help="only the first so many articles (or blocks of 50 lines)")


def run(args: argparse.Namespace) -> int:
    from neuro import atomic, text
    from neuro.cli import _model
    from neuro.evaluate import arms, perplexity

    if args.suite not in SUITES:
        raise UsageError(f"--suite: got '{args.suite}'.", nearest(args.suite, SUITES))
    if not args.text:
        raise UsageError("neuro eval: no text to measure on.", "Give a text file: neuro eval small book.txt")
    if args.articles is not None and args.articles < 1:
        raise UsageError(f"--articles: got {args.articles}, expected at least 1.", "Leave it out for the whole text.")
    raw = text.read_text(Path(args.text))
    brain = _model.load(args.model, args)
    names = arms.of(brain)
    rows = []
    for arm in names:
        if not args.quiet:
            print(f"scoring with {WORDS[arm]} ...", file=sys.stderr, flush=True)
        rows.append(perplexity.evaluate(brain, raw, args.wikitext, arm, args.articles))
    record: dict[str, Any] = {
        "schema": "neuro.eval/1",
        "suite": "perplexity",
        "model": args.model,
        "text": Path(args.text).name,
    }
    record |= {"wikitext": args.wikitext, "arms": [row.to_dict() for row in rows]}
    if args.json:
        print(json.dumps(record))
    else:
        _print(rows)
    if args.out:
        atomic.write_text(Path(args.out) / "eval.json", json.dumps(record, indent=1) + "\n")
    return 0


def _print(rows: list[Perplexity]) -> None:
    print(f"{rows[0].words} words, {rows[0].tokens} tokens, {rows[0].vocabulary} vocabulary, one stream, batch 1")
    for row in rows:
        spread = "too few units for an interval"
        if row.word_perplexity_interval is not None:
            low, high = row.word_perplexity_interval
            spread = f"95 % {low:.2f} to {high:.2f}"
        line = f"{WORDS[row.arm]:<22}  word perplexity {row.word_perplexity:8.2f}  ({spread}, {row.units} articles or blocks)"
        print(line if row.bits_per_byte is None else f"{line}  {row.bits_per_byte:.4f} bits per byte")
