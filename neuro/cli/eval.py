"""neuro eval: measure a model with a suite."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuro.cli import _ablation, _tasks, refuse
from neuro.errors import UsageError, nearest

if TYPE_CHECKING:
    from neuro.brain import Brain

# Each suite is a module of neuro/evaluate with run(brain, raw, out, say, **options) -> record, table(record) -> lines and
# picture(record, path) -> path or None; beside its name, the options that have an effect in it. One whose raw is not the
# text of one file has read(path, ...) -> raw, the texts by name.
SUITES: dict[str, tuple[str, ...]] = {
    "perplexity": ("wikitext", "articles"),
    "repeat": ("wikitext", "length", "gap", "samples", "seed"),
    "recall": ("task", "rows", "seed"),
    "profile": ("gap", "seeds", "episodes", "templates", "seed"),
    "habit": ("seeds", "episodes", "templates", "seed"),
    "dissociation": ("gap", "seeds", "episodes", "templates", "seed"),
    "dialogue": ("gap", "seeds", "episodes", "templates", "seed"),
    "babi": ("task", "seeds", "episodes", "seed"),
    "adaptation": ("length", "seeds", "seed"),
    "generation": ("wikitext", "samples", "seed"),
}
WITHOUT_TEXT = ("recall", "habit", "dialogue")
SEVERAL_TEXTS = ("adaptation",)
ABLATION = "ablation"  # of several models, which it trains or compares: neuro/cli/_ablation.py
COUNTS = ("articles", "length", "gap", "samples", "rows", "seeds", "episodes")

COMMON = ("backend", "seed", "set", "out")
OUT_IS_FOLDER = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", default="small", help="a shipped model, a folder or a Hugging Face id")
    parser.add_argument(
        "text", nargs="*", help="a text file (.txt, .txt.gz) or a folder; babi: its zip; adaptation: several files"
    )
    parser.add_argument("--suite", default="perplexity", help="what to measure: " + ", ".join((*SUITES, ABLATION)))
    parser.add_argument("--wikitext", action="store_true", help="the text is in WikiText's form: published protocol")
    parser.add_argument(
        "--articles", type=int, help="perplexity: only the first so many articles (or blocks of 50 lines)"
    )
    parser.add_argument("--length", type=int, help="repeat: tokens shown twice (2000); adaptation: of each text (4096)")
    parser.add_argument(
        "--gap", type=int, help="repeat: tokens in between (8000); profile: the most (16384); dialogue: turns (20)"
    )
    parser.add_argument("--samples", type=int, help="repeat: passages (5); generation: continuations (100)")
    parser.add_argument("--task", help="recall: mqar, delayed or 'task:...' as in data.train; babi: qa1,qa2,... (all)")
    parser.add_argument("--seeds", type=int, help="profile, habit, dialogue, babi, adaptation: how many (default: 3)")
    parser.add_argument("--episodes", type=int, help="profile, habit, dialogue, babi: streams of each seed")
    parser.add_argument(
        "--templates", help="profile, habit, dialogue: held-out (default), or tuning to choose settings by"
    )
    parser.add_argument("--force", action="store_true", help="measure on a text that the model was trained on")
    parser.add_argument(
        "--chip", help="a network that train wrote from a task: also in the integers of loihi1, xylo_audio3, ..."
    )
    parser.add_argument("--rows", type=int, help="recall: episodes of each task (default: 200)")
    _ablation.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    if args.suite == ABLATION:
        return _ablation.run(args)
    if _tasks.trained_here(Path(args.model)):
        refuse(args, "eval", ("seed", "set"))
        return _tasks.evaluate(args)
    if args.chip:
        got = "neuro eval: got --chip, expected it only with a network that train wrote from a task of recorded spikes."
        raise UsageError(got, "Leave it out; `neuro energy` knows chips for a model of language.")
    if args.suite not in SUITES:
        raise UsageError(f"--suite: got '{args.suite}'.", nearest(args.suite, (*SUITES, ABLATION)))
    options = _options(args)
    if args.text and args.suite in WITHOUT_TEXT:
        raise UsageError(f"neuro eval --suite {args.suite}: got a text, expected none.", "Leave it out.")
    if args.force and args.suite in WITHOUT_TEXT:
        raise UsageError(f"neuro eval --suite {args.suite}: --force has no effect here.", "Leave out --force.")
    if not args.text and args.suite not in WITHOUT_TEXT:
        raise UsageError("neuro eval: no text to measure on.", "Give a text file: neuro eval small book.txt")
    if len(args.text) > 1 and args.suite not in SEVERAL_TEXTS:
        raise UsageError(
            f"neuro eval --suite {args.suite}: got {len(args.text)} texts, expected one.", "Give one file or a folder."
        )

    from neuro import atomic, text, training_text
    from neuro.cli import _model

    suite = importlib.import_module(f"neuro.evaluate.{args.suite}")
    paths = [Path(name) for name in args.text]
    raw: Any = suite.read(*paths) if hasattr(suite, "read") else text.read_text(paths[0]) if paths else ""
    texts = raw if isinstance(raw, dict) else {paths[0].name: raw} if paths else {}
    where = _model.locate(args.model)
    seen = training_text.refuse_read(where, texts, args.force) if texts else None
    brain = _model.load(str(where), args)
    _refuse_short(brain, texts)
    out = Path(args.out) if args.out else None
    record: dict[str, Any] = {
        "schema": "neuro.eval/1",
        "suite": args.suite,
        "model": args.model,
        "text": [path.name for path in paths] if len(paths) > 1 else paths[0].name if paths else None,
        "read_in_training": seen,
    }
    record |= suite.run(brain, raw, out, lambda line: _say(line, args.quiet), **options)
    if out is not None:
        atomic.write_text(out / "eval.json", json.dumps(record, indent=1) + "\n")
    print(json.dumps(record) if args.json else "\n".join(suite.table(record)))
    if out is not None and suite.picture(record, out / f"{args.suite}.png") is None:
        _say(f"no {args.suite}.png: it needs matplotlib. pip install 'neuro-hybrid[plots]'", quiet=False)
    return 0


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """The options given that have an effect in the suite.

    Raises:
        UsageError: one that has none, or is below 1.
    """
    where, effective = f"eval --suite {args.suite}", SUITES[args.suite]
    given = {name: getattr(args, name) for name in ("wikitext", "task", "templates", *_ablation.ONLY, *COUNTS)}
    given = {name: value for name, value in given.items() if value is not None and value is not False}
    if "seed" in args.given:
        given["seed"] = args.seed
    for name, value in given.items():
        if name not in effective:
            raise UsageError(f"neuro {where}: --{name} has no effect here.", f"Leave out --{name}.")
        if name in COUNTS and value < 1:
            raise UsageError(f"--{name}: got {value}, expected at least 1.", f"Leave out --{name}, or give more.")
    return given


def _refuse_short(brain: Brain, texts: dict[str, str]) -> None:
    """Raises UsageError: a text shorter than one plasticity span, over which no memory is ever read."""
    span = brain.config.plasticity_span
    for name, raw in texts.items():
        tokens = len(brain.tokenizer.encode(raw[: 32 * span]))
        if tokens < span and len(raw) <= 32 * span:
            raise UsageError(
                f"{name}: got {tokens} tokens, expected at least one span of this model ({span}).",
                "Give a longer text.",
            )


def _say(line: str, quiet: bool) -> None:
    if not quiet:
        print(line, file=sys.stderr, flush=True)
