"""neuro export: write a model for other runtimes; each format is a module of its own beside this one."""

from __future__ import annotations

import argparse
import importlib

from neuro.errors import UsageError, nearest

TARGETS = {"onnx": "_to_onnx"}  # what --to names -> module with run(args) -> exit code

COMMON = ("set", "out")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", default="small", help="a shipped model, a folder or a Hugging Face id")
    parser.add_argument("--to", default="onnx", metavar="FORMAT", help="what to write: " + ", ".join(TARGETS))
    parser.add_argument("--profile", metavar="NAME", help="onnx, what will run it: cpu (default), dml, web")
    parser.add_argument("--quantize", metavar="RECIPE", help="int8: weights of 8 bits (default: float32)")


def run(args: argparse.Namespace) -> int:
    if args.to not in TARGETS:
        raise UsageError(
            f"--to: got '{args.to}', expected one of {', '.join(TARGETS)}.", nearest(args.to, list(TARGETS))
        )
    if not args.out:
        raise UsageError("neuro export: nowhere to write to.", "Give a place with --out.")
    return int(importlib.import_module(f"neuro.cli.{TARGETS[args.to]}").run(args))
