"""neuro eval --suite ablation: what parts of a brain are worth, trained again without each, or the arms of an adapter."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuro.cli import refuse
from neuro.errors import UsageError

if TYPE_CHECKING:
    from neuro.workload import Workload

CHIP, PLATFORM = "loihi1", "cpu"
OF_BRAIN = ("wikitext", "articles", "length", "gap", "samples", "task", "rows", "episodes")  # settings of the suites
ONLY = ("parts", "suites", "against", "other", "tokenizer")  # options of no other suite
OPTIONS = (*OF_BRAIN, *ONLY, "seeds", "templates", "chip")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "--suite ablation (MODEL: a configuration or preset whose brain is trained again, or an adapter's folder)"
    )
    group.add_argument("--parts", metavar="LIST", help="of a brain: what is taken away, with commas (default: all)")
    group.add_argument("--suites", metavar="LIST", help="of a brain: perplexity,repeat,recall,habit,profile (all)")
    group.add_argument(
        "--against", action="append", metavar="ARM=DIR", help="of an adapter: lora=DIR, block=DIR; again for more seeds"
    )
    group.add_argument(
        "--other",
        metavar="FILE",
        help="of an adapter: a text as long as TEXT, whose memory SHUFFLED has (else left out)",
    )
    group.add_argument("--tokenizer", metavar="FILE", help="of an adapter's base, where it does not lie beside it")


def run(args: argparse.Namespace) -> int:
    from neuro import atomic, text
    from neuro.evaluate.ablation import is_adapter

    if len(args.text) != 1:
        raise UsageError(
            f"neuro eval --suite ablation: got {len(args.text)} texts, expected one.", "Give a held-out text file."
        )
    raw = text.read_text(Path(args.text[0]))
    adapter = is_adapter(Path(args.model))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = _of_adapter(args, raw) if adapter else _of_brain(args, raw)
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        print(f"warning: {' '.join(message.splitlines())}", file=sys.stderr)
    record: dict[str, Any] = {
        "schema": "neuro.eval/1",
        "suite": "ablation",
        "model": args.model,
        "text": Path(args.text[0]).name,
    } | found
    from neuro.evaluate import ablation_report

    if adapter:
        from neuro.evaluate import ablation_adapter

        lines, picture = ablation_adapter.table(record), ablation_adapter.picture
    else:
        lines, picture = ablation_report.table(record), ablation_report.picture
    if args.out:
        out = Path(args.out)
        atomic.write_text(out / "eval.json", json.dumps(record, indent=1) + "\n")
        if not adapter:
            atomic.write_text(out / "ablation.md", "\n".join(ablation_report.markdown(record)) + "\n")
        if picture(record, out / "ablation.png") is None and not args.quiet:
            print("no ablation.png: it needs matplotlib. pip install 'neuro-hybrid[plots]'", file=sys.stderr)
    print(json.dumps(record) if args.json else "\n".join(lines))
    return 0


def _of_brain(args: argparse.Namespace, raw: str) -> dict[str, Any]:
    from neuro import config as configs
    from neuro.evaluate import ablation_brain
    from neuro.evaluate.ablation_suites import Settings

    given = _given(args, (*OF_BRAIN, "seeds", "parts", "suites"))
    if not args.out:
        raise UsageError(
            "neuro eval --suite ablation: no --out.", "Give a folder: the trainings are kept in it, and go on from it."
        )
    config = configs.load(args.model, [*args.set, *([f"train.seed={args.seed}"] if "seed" in args.given else [])])
    settings = Settings(**{name: given[name] for name in OF_BRAIN if name in given}, seed=args.seed)
    return ablation_brain.run(
        config,
        raw,
        Path(args.out),
        lambda line: _say(line, args.quiet),
        settings=settings,
        backend=args.backend,
        force=args.force,
        price=price,
        **{name: given[name] for name in ("seeds", "parts", "suites") if name in given},
    )


def _of_adapter(args: argparse.Namespace, raw: str) -> dict[str, Any]:
    from neuro import text
    from neuro.evaluate import ablation_adapter

    refuse(args, "eval --suite ablation of an adapter", ("backend", "seed", "set"))
    if args.force:
        raise UsageError("neuro eval --suite ablation: --force has no effect here.", "Leave out --force.")
    given = _given(args, ("wikitext", "articles", "against", "other", "tokenizer"))
    if "other" in given:
        given["other"] = text.read_text(Path(given["other"]))
    if "tokenizer" in given:
        given["tokenizer"] = Path(given["tokenizer"])
    return ablation_adapter.run(
        Path(args.model), raw, lambda line: _say(line, args.quiet), out=Path(args.out) if args.out else None, **given
    )


def price(load: Workload) -> dict[str, float]:
    """Joules a token of a counted run, medians: its spiking layers on a chip and the rest on a CPU, and all on the CPU."""
    from sims.energy.report import estimate

    (row,) = estimate(load, CHIP, against=[PLATFORM], refined=False).to_dict()["against"]
    return {
        f"{CHIP} and {PLATFORM}": row["hybrid"]["joules_per_token"]["median"],
        f"{PLATFORM} alone": row["dense"]["joules_per_token"]["median"],
    }


def _given(args: argparse.Namespace, effective: tuple[str, ...]) -> dict[str, Any]:
    """The options that were given.

    Raises:
        UsageError: one without an effect here, or a number below 1.
    """
    given = {name: getattr(args, name) for name in OPTIONS}
    given = {name: value for name, value in given.items() if value is not None and value is not False}
    for name, value in given.items():
        if name not in effective:
            raise UsageError(f"neuro eval --suite ablation: --{name} has no effect here.", f"Leave out --{name}.")
        if isinstance(value, int) and not isinstance(value, bool) and value < 1:
            raise UsageError(f"--{name}: got {value}, expected at least 1.", f"Leave out --{name}, or give more.")
    return given


def _say(line: str, quiet: bool) -> None:
    if not quiet:
        print(line, file=sys.stderr, flush=True)
