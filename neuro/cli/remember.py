"""neuro remember: read a text into a memory file."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

COMMON = ("backend", "set")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a shipped model, a folder or a Hugging Face id")
    parser.add_argument("text", help="a text file (.txt, .txt.gz) or a folder")
    parser.add_argument("--memory", metavar="FILE", required=True, help="added to if it exists, made otherwise")


def run(args: argparse.Namespace) -> int:
    import torch

    from neuro import accounting, corpus, memory_file
    from neuro.cli import _model
    from neuro.session import Session

    documents = corpus.read_documents(args.text)
    brain = _model.load(args.model, args)
    state, transcript = memory_file.open_or_new(args.memory, brain, brain.init_state(1))
    tally = accounting.Tally(brain)
    session = Session(brain, state, observers=[tally], transcript=transcript)
    started = time.perf_counter()
    for document in documents:
        ids = [brain.tokenizer.bos_id, *brain.tokenizer.encode(document)]
        session.feed(torch.tensor([ids]), source=Path(args.text).name)
        session.reset(keep_memories=True)
    seconds = time.perf_counter() - started
    saved = memory_file.save(args.memory, brain, session.state, transcript)
    record = {
        "schema": "neuro.remember/1",
        "memory": args.memory,
        "documents": len(documents),
        "tokens": tally.tokens,
        "writes": tally.writes,
        "evictions": tally.evictions,
        "filled": saved,
    }
    if args.json:
        print(json.dumps(record))
        return 0
    print(
        f"{args.memory}: read {tally.tokens} tokens of {len(documents)} documents, {tally.writes} memories written, ",
        end="",
    )
    print(f"{tally.evictions} older ones replaced, {saved} held")
    if not args.quiet:
        print(f"speed   {tally.tokens / seconds:.0f} tokens/s", file=sys.stderr)
    return 0
