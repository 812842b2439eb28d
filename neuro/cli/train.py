"""neuro train: learn from a text, a folder or a Hugging Face dataset."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

from neuro.cli import _tasks
from neuro.errors import MissingError, NeuroWarning

COMMON = ("backend", "seed", "set", "out")
OUT_IS_FOLDER = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config",
        nargs="?",
        default="small",
        help="a TOML file, a preset (see: neuro config show) or a task of recorded spikes: " + ", ".join(_tasks.TASKS),
    )


def run(args: argparse.Namespace) -> int:
    if args.config in _tasks.TASKS:
        return _tasks.train(args)

    from neuro import config, config_text, plots, presets
    from neuro.train import distributed, loop

    if args.config not in presets.PRESETS and not Path(args.config).exists():
        known = [*presets.PRESETS, *_tasks.TASKS]
        do = config_text.nearest_or_path(args.config, known)
        raise MissingError(f"config '{args.config}': no such preset, task or file.", do)
    run_config = config.load(args.config, _sets(args))
    out = Path(args.out or "run")
    args.quiet = args.quiet or not distributed.is_first()  # one process of several says what all of them do
    line = _Progress(run_config.train.steps, args)
    for caution in [] if args.quiet else config.cautions(run_config.brain):
        print(f"note: {caution}", file=sys.stderr)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NeuroWarning)  # said above
            loop.train(run_config, out, args.backend, line.report)
    except KeyboardInterrupt:
        line.close()
        if distributed.is_first():
            print(f"interrupted: saved in {out}; the same command goes on from there.", file=sys.stderr)
        return 130
    line.close()
    if not distributed.is_first():
        return 0
    picture = plots.loss_curve(out / "log.jsonl", out / "loss.png")
    if args.json:
        valid = _last_valid(out / "log.jsonl")
        record = {"schema": "neuro.train/1", "out": str(out), "valid_nats": valid, "picture": picture is not None}
        print(json.dumps(record))
    else:
        print(f"{out / 'model'}: trained; run it with: neuro run {out / 'model'}")
        if picture is None:
            print("no loss.png: matplotlib is missing (pip install 'neuro-hybrid[plots]')", file=sys.stderr)
    return 0


def _last_valid(log: Path) -> float | None:
    """Of the last evaluation of the run, in this start or an earlier one; None of a recall task or of no steps."""
    records = [json.loads(line) for line in log.read_text(encoding="utf-8").split("\n") if line]
    return next((r.get("valid_nats") for r in reversed(records) if r["event"] == "eval"), None)


def _sets(args: argparse.Namespace) -> list[str]:
    return list(args.set or []) + ([f"train.seed={args.seed}"] if "seed" in args.given else [])


class _Progress:
    """One line that is rewritten on a terminal, and one line per evaluation elsewhere."""

    def __init__(self, steps: int, args: argparse.Namespace) -> None:
        self.steps, self.quiet, self.terminal = steps, args.quiet, sys.stderr.isatty()
        self.valid: float | None = None
        self.last: dict[str, Any] = {}

    def report(self, record: dict[str, Any]) -> None:
        if record["event"] == "eval":
            self.valid = record["valid_nats"]
        else:
            self.last = record
        if self.quiet or (record["event"] == "step" and not self.terminal):
            return
        valid = "" if self.valid is None else f"  valid {self.valid:.3f}"
        speed = self.last["tokens"] / max(1e-9, self.last["seconds"])
        text = (
            f"step {self.last['step']}/{self.steps}  nats {self.last['nats']:.3f}{valid}  "
            f"firing {100 * self.last['spike_rate']:.1f} %  routed {100 * self.last['route']:.0f} %  {speed:.0f} tokens/s"
        )
        sys.stderr.write(f"\r{text}\x1b[K" if self.terminal else text + "\n")
        sys.stderr.flush()

    def close(self) -> None:
        if self.terminal and self.last and not self.quiet:
            sys.stderr.write("\n")
