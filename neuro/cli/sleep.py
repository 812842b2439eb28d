"""neuro sleep: rounds without input in which a memory file's episodes are replayed, strengthened and merged."""

from __future__ import annotations

import argparse
import dataclasses
import json

COMMON = ("backend", "set")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a shipped model, a folder or a Hugging Face id")
    parser.add_argument("--memory", metavar="FILE", required=True, help="what 'neuro run' or 'neuro remember' saved")
    parser.add_argument("--rounds", type=int, default=1, help="of replay, some 2,000 tokens each (default: 1)")


def run(args: argparse.Namespace) -> int:
    from neuro import memory_file, remember
    from neuro.cli import _model

    brain = _model.load(args.model, args)
    memory = remember.Memory(brain, *memory_file.load(args.memory, brain, brain.init_state(1)))
    report = remember.sleep(memory, args.rounds)
    memory_file.save(args.memory, brain, memory.state, memory.transcript)
    if args.json:
        print(json.dumps({"schema": "neuro.sleep/1", "memory": args.memory} | dataclasses.asdict(report)))
        return 0
    if report.surprise:
        nats = " -> ".join(f"{nats:.2f}" for nats in report.surprise)
        print(f"{args.memory}: replayed {report.replayed_tokens} tokens, {nats} nats each")
    else:
        print(f"{args.memory}: nothing replayed, no stretch of it is held whole or nothing learns habits")
    print(f"{report.merged} memories merged, {report.strengthened} strengthened, {report.held} held")
    return 0
