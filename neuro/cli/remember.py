"""neuro remember: read texts or pairs into a memory file, each once."""

from __future__ import annotations

import argparse
import json
import sys
import time

COMMON = ("backend", "set")
SAVE_EVERY = 30.0  # seconds between two saves: what an interruption can cost


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a shipped model, a folder or a Hugging Face id")
    parser.add_argument("text", help="a text (.txt, .txt.gz, .md), a folder of them, .jsonl, or .csv of pairs")
    parser.add_argument("--memory", metavar="FILE", required=True, help="added to if it exists, made otherwise")


def run(args: argparse.Namespace) -> int:
    from neuro import accounting, items, memory_file, remember
    from neuro.cli import _model

    given = items.read(args.text)
    brain = _model.load(args.model, args)
    memory = remember.Memory(brain, *memory_file.open_or_new(args.memory, brain, brain.init_state(1)))
    tally = accounting.Tally(brain)
    counts = {True: 0, False: 0}
    interrupted = False
    started = saved_at = time.perf_counter()
    try:
        for new in remember.read(memory, given, observers=[tally]):
            counts[new] += 1
            if time.perf_counter() - saved_at > SAVE_EVERY:
                memory_file.save(args.memory, brain, memory.state, memory.transcript)
                saved_at = time.perf_counter()
    except KeyboardInterrupt:
        interrupted = True
    finally:
        # Whatever stopped it (a broken line, say): what was read whole is kept, and passed over the next time.
        seconds = time.perf_counter() - started
        saved = memory_file.save(args.memory, brain, memory.state, memory.transcript)
    record = {
        "schema": "neuro.remember/2",
        "memory": args.memory,
        "items": counts[True],
        "known": counts[False],
        "tokens": tally.tokens,
        "writes": tally.writes,
        "evictions": tally.evictions,
        "filled": saved,
        "interrupted": interrupted,
    }
    if args.json:
        print(json.dumps(record))
    else:
        known = f" ({counts[False]} known already)" if counts[False] else ""
        print(
            f"{args.memory}: read {tally.tokens} tokens of {counts[True]} item{'s' * (counts[True] != 1)}{known}, "
            f"{tally.writes} memories written, {tally.evictions} older ones replaced, {saved} held"
        )
        if not args.quiet:
            if tally.tokens:
                print(f"speed   {tally.tokens / max(1e-9, seconds):.0f} tokens/s", file=sys.stderr)
            if interrupted:
                print("stopped after the last whole item; the same command goes on from there", file=sys.stderr)
    return 130 if interrupted else 0
