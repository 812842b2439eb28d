"""neuro energy: price what a run did."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from neuro import atomic, workload
from neuro.cli import refuse
from neuro.errors import UsageError

COMMON = ("backend", "seed", "set", "out")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", nargs="?", default="small", help="a run.json, a model, or 'why'")
    parser.add_argument("text", nargs="?", help="text to run a model on; or the term to explain after 'why'")
    parser.add_argument("--chip", default="loihi1", help="chip for the spiking layers (default: loihi1)")


def run(args: argparse.Namespace) -> int:
    from sims.energy import report

    if args.target == "why":
        refuse(args, "energy why", COMMON)
        if not args.text:
            raise UsageError("neuro energy why: no term.", "For example: neuro energy why loihi1.synop")
        words = report.why(args.text)
        print(json.dumps({"schema": "neuro.energy.why/1", "term": args.text, "text": words}) if args.json else words)
        return 0
    if args.target.endswith(".json"):
        if args.text is not None:
            raise UsageError(
                f"neuro energy {args.target}: got a text too.", "A run.json is priced as it is; omit the text."
            )
        refuse(args, f"energy {args.target}", ["backend", "set"])
        load = workload.read(args.target)
    else:
        from neuro.cli.run import measure

        load = measure(args.target, args.text, args)
    priced = report.estimate(load, args.chip, args.seed)
    print(json.dumps(priced.to_dict()) if args.json else priced.to_text())
    if args.out:
        atomic.write_text(Path(args.out) / "energy.json", json.dumps(priced.to_dict(), indent=1) + "\n")
    return 0
