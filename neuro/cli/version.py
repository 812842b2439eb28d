"""neuro version."""

from __future__ import annotations

import argparse
import json

import neuro

COMMON: tuple[str, ...] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none of its own."""


def run(args: argparse.Namespace) -> int:
    record = {"schema": "neuro.version/1", "version": neuro.__version__}
    print(json.dumps(record) if args.json else f"neuro {neuro.__version__}")
    return 0
