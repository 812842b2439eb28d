"""neuro export: write a model for other runtimes; each format is a module of its own beside this one."""

from __future__ import annotations

import argparse
import importlib

from neuro.errors import UsageError, nearest

# What --to names -> module with run(args) -> exit code, and the options that it reads.
TARGETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "onnx": ("_to_onnx", ("profile", "quantize", "calibration")),
    "nir": ("_to_nir", ()),
    "c": ("_to_c", ("target", "quantize")),
}

COMMON = ("set", "out")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", default="small", help="a shipped model, a folder or a Hugging Face id")
    parser.add_argument("--to", default="onnx", metavar="FORMAT", help="what to write: " + ", ".join(TARGETS))
    parser.add_argument("--profile", metavar="NAME", help="onnx, what will run it: cpu (default), dml, web")
    parser.add_argument("--target", metavar="CORE", help="c: cortex-m4, cortex-m7 or cortex-m55")
    parser.add_argument(
        "--quantize", metavar="RECIPE", help="onnx: int8, int8-static, int4; c: int8 (default: float32)"
    )
    parser.add_argument(
        "--calibration",
        metavar="TEXT",
        help="onnx: a text; int8-static finds its scales on it, int4 (optional) its rounding",
    )


def run(args: argparse.Namespace) -> int:
    if args.to not in TARGETS:
        raise UsageError(
            f"--to: got '{args.to}', expected one of {', '.join(TARGETS)}.", nearest(args.to, list(TARGETS))
        )
    module, options = TARGETS[args.to]
    for option in {option for _, known in TARGETS.values() for option in known} - set(options):
        if getattr(args, option) is not None:
            raise UsageError(f"neuro export --to {args.to}: --{option} has no effect here.", f"Leave out --{option}.")
    if not args.out:
        raise UsageError("neuro export: nowhere to write to.", "Give a place with --out.")
    return int(importlib.import_module(f"neuro.cli.{module}").run(args))
