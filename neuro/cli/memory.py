"""neuro memory: what a memory file holds, item by item; search it, forget for good, keep a copy, bring one back."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuro.errors import UsageError, nearest

if TYPE_CHECKING:
    from neuro.remember import Memory

COMMON = ("backend", "set")
ACTIONS = ("ls", "search", "forget", "save", "load")
_EXCERPT = 60  # characters of an item that are shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", help="ls, search TEXT, forget ITEM..., save FILE, load FILE")
    parser.add_argument("model", help="a shipped model, a folder or a Hugging Face id")
    parser.add_argument("what", nargs="*", help="the text, the numbers that ls and search print, or the file")
    parser.add_argument("--memory", metavar="FILE", required=True, help="what 'neuro run' or 'neuro remember' saved")
    parser.add_argument("--source", metavar="NAME", help="forget: every item that came from there")
    parser.add_argument("--top", type=int, default=5, help="search: how many items to show (default: 5)")


def run(args: argparse.Namespace) -> int:
    if args.action not in ACTIONS:
        raise UsageError(f"neuro memory: got '{args.action}'.", nearest(args.action, ACTIONS))
    if args.source is not None and args.action != "forget":
        raise UsageError(f"neuro memory {args.action}: --source has no effect here.", "Leave out --source.")
    if args.top < 1:
        raise UsageError(f"--top: got {args.top}, expected at least 1.", "Give how many items to show.")
    numbers = _numbers(args) if args.action == "forget" else []
    if args.action == "ls" and args.what:
        raise UsageError(f"neuro memory ls: got '{args.what[0]}', expected nothing more.", "To look for it: search.")
    if args.action not in ("ls", "forget") and len(args.what) != 1:
        kind = "one text, in quotes" if args.action == "search" else "one file"
        raise UsageError(f"neuro memory {args.action}: got {len(args.what)} words, expected {kind}.", "Give that.")
    from neuro import memory_file, remember
    from neuro.cli import _model

    brain = _model.load(args.model, args)
    if args.action == "load":
        state, transcript = memory_file.load(args.what[0], brain, brain.init_state(1))
        return _copy(args, remember.Memory(brain, state, transcript), args.memory)
    memory = remember.Memory(brain, *memory_file.load(args.memory, brain, brain.init_state(1)))
    if args.action == "save":
        if Path(args.what[0]).exists():
            raise UsageError(f"{args.what[0]}: is there already.", "Choose another name, or remove it first.")
        return _copy(args, memory, args.what[0])
    if args.action == "forget":
        return _forget(args, memory, numbers)
    rows = _list(memory)
    if args.action == "search":
        found = remember.search(memory, args.what[0])[: args.top]
        rows = [rows[number] | {"recall": recall} for number, recall in found]
    if args.json:
        print(json.dumps({"schema": f"neuro.memory.{args.action}/1", "memory": args.memory, "items": rows}))
        return 0
    for row in rows:
        recall = f"recall {row['recall']:6.2f}  " if "recall" in row else ""
        print(
            f"{row['item']:>6}  {recall}{row['held']:>5} of {row['tokens']} tokens held  {row['source']}: {row['text']}"
        )
    if not rows:
        print("nothing has been read" if args.action == "ls" else "nothing is recalled")
    return 0


def _numbers(args: argparse.Namespace) -> list[int]:
    if not args.what and args.source is None:
        raise UsageError("neuro memory forget: nothing to forget was named.", "Give item numbers, or --source NAME.")
    for word in args.what:
        if not word.isdecimal():
            raise UsageError(
                f"neuro memory forget: got '{word}', expected an item's number.", "'neuro memory ls' prints them."
            )
    return [int(word) for word in args.what]


def _list(memory: Memory) -> list[dict[str, Any]]:
    transcript, decode = memory.transcript, memory.brain.tokenizer.decode
    rows = []
    for number, (item, held) in enumerate(zip(transcript.items(), memory.held(), strict=True)):
        text = decode(transcript.ids[item.start + 1 : item.stop][: 2 * _EXCERPT]).strip()
        short = text if len(text) <= _EXCERPT else text[:_EXCERPT].rstrip() + " ..."
        row = {"item": number, "source": transcript.source(item.start), "tokens": len(item), "held": held}
        rows.append(row | {"text": " ".join(short.split())})
    return rows


def _forget(args: argparse.Namespace, memory: Memory, numbers: list[int]) -> int:
    from neuro import memory_file, remember

    sources = [memory.transcript.source(item.start) for item in memory.transcript.items()]
    if args.source is not None:
        # 'facts.csv' is all of its lines, 'facts.csv:5' one of them.
        meant = [number for number, source in enumerate(sources) if args.source in (source, _file_of(source))]
        if not meant:
            raise UsageError(
                f"--source: nothing came from '{args.source}'.", nearest(args.source, sorted(set(sources)))
            )
        numbers = numbers + meant
    chosen, again = set(numbers), 0

    def progress() -> None:
        nonlocal again
        again += 1
        if not args.quiet and sys.stderr.isatty():
            print(f"\rread again {again} of {len(sources) - len(chosen)} items", end="", file=sys.stderr, flush=True)

    kept = remember.forget(memory, chosen, progress)
    filled = memory_file.save(args.memory, memory.brain, kept.state, kept.transcript)
    if args.json:
        record = {"memory": args.memory, "forgotten": sorted(chosen), "read_again": again, "filled": filled}
        print(json.dumps({"schema": "neuro.memory.forget/1"} | record))
        return 0
    print(
        f"{args.memory}: {len(chosen)} forgotten; the {again} that stay were read again without them, {filled} memories held"
    )
    return 0


def _file_of(source: str) -> str:
    """The file of a source such as 'facts.csv:5'."""
    name, _, line = source.rpartition(":")
    return name if line.isdecimal() else source


def _copy(args: argparse.Namespace, memory: Memory, target: str) -> int:
    from neuro import memory_file

    filled = memory_file.save(target, memory.brain, memory.state, memory.transcript)
    if args.json:
        record = {"memory": target, "items": len(memory.transcript.items()), "filled": filled}
        print(json.dumps({"schema": f"neuro.memory.{args.action}/1"} | record))
        return 0
    print(f"{target}: {len(memory.transcript.items())} items, {filled} memories held")
    return 0
