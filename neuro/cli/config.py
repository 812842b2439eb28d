"""neuro config: print a fully resolved configuration (or write it with --out), or check one."""

from __future__ import annotations

import argparse
import json
import sys

from neuro import atomic, config
from neuro.cli import refuse
from neuro.errors import UsageError, nearest

ACTIONS = ("show", "check")

COMMON = ("set", "out")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", help="show or check")
    parser.add_argument("target", nargs="?", default="small", help="a preset or a TOML file (default: small)")


def run(args: argparse.Namespace) -> int:
    if args.action not in ACTIONS:
        raise UsageError(f"neuro config: unknown action '{args.action}'.", nearest(args.action, ACTIONS))
    if args.action == "check":
        refuse(args, "config check", ["out"])
    resolved = config.load(args.target, args.set)
    if args.action == "check":
        for caution in [] if args.quiet else config.cautions(resolved.brain):
            print(f"note: {caution}", file=sys.stderr)
        print(json.dumps({"schema": "neuro.config/1", "ok": True}) if args.json else f"{args.target}: fine")
        return 0
    if args.out:
        atomic.write_text(args.out, config.to_toml(resolved))
    if args.json:
        print(json.dumps({"schema": "neuro.config/1", "out": args.out, "config": config.to_dict(resolved)}))
    else:
        print(args.out if args.out else config.to_toml(resolved).rstrip("\n"))
    return 0
