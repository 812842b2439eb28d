"""neuro recall: what is in a memory file, where it came from, and what a query makes of it."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuro.errors import MissingError, UsageError

if TYPE_CHECKING:
    from neuro.brain import Brain
    from neuro.state import BrainState
    from neuro.transcript import Transcript

CONTEXT = 8  # tokens shown on either side of what was stored

COMMON = ("backend", "set", "out")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a shipped model, a folder or a Hugging Face id")
    parser.add_argument("query", nargs="?", help="a text to recall after; without one, what is in the memory is listed")
    parser.add_argument("--memory", metavar="FILE", required=True, help="what 'neuro run' or 'neuro remember' saved")
    parser.add_argument("--top", type=int, default=5, help="how many memories to show (default: 5)")


def run(args: argparse.Namespace) -> int:
    from neuro import memory_file
    from neuro.cli import _model

    if args.top < 1:
        raise UsageError(f"--top: got {args.top}, expected at least 1.", "Give how many memories to show.")
    if args.out and not args.query:
        raise UsageError("neuro recall: --out has no effect without a text to recall after.", "Give a text.")
    brain = _model.load(args.model, args)
    state, transcript = memory_file.load(args.memory, brain, brain.init_state(1))
    record: dict[str, Any] = {"schema": "neuro.recall/1", "model": args.model, "memory": _contents(state, transcript)}
    if args.query:
        record |= _ask(brain, state, transcript, args.query, args.top)
    if args.out:
        _draw(brain, state, transcript, args.query, Path(args.out))
        record["picture"] = args.out
    if args.json:
        print(json.dumps(record))
    else:
        _print(record)
    return 0


def _contents(state: BrainState, transcript: Transcript) -> dict[str, Any]:
    from neuro.state import HippocampusState

    memory = state.regions.hippocampus
    if not isinstance(memory, HippocampusState):
        raise UsageError("recall: this brain has no episodic memory.", "Use a model with brain.hippocampus.enabled.")
    filled = memory.strengths[0] > 0
    sources = Counter(transcript.source(int(origin)) for origin in memory.origins[0][filled].tolist())
    return {
        "slots": filled.numel(),
        "filled": int(filled.sum()),
        "tokens_read": int(memory.position[0]),
        "sources": dict(sources.most_common()),
    }


def _ask(brain: Brain, state: BrainState, transcript: Transcript, query: str, top: int) -> dict[str, Any]:
    import torch

    from neuro.recall import explain, point
    from neuro.session import Session

    ids = torch.tensor([[brain.tokenizer.bos_id, *brain.tokenizer.encode(query)]])
    gates: list[float] = []

    class Gates:
        def span(self, events, commit) -> None:
            gates.extend(float(event.recall_gate[0, -1]) for event in events)

    session = Session(brain, state, observers=[Gates()])
    if ids.shape[1] > 1:
        session.feed(ids[:, :-1])
    pointed = point(brain, session.state, int(ids[0, -1]), top)
    logits = session.feed(ids[:, -1:])
    found = explain(brain, session.state, top)
    session.commit()
    without = Session(brain).feed(ids)
    likeliest = int(logits[0].argmax())
    said, blank = (torch.softmax(x[0], -1)[likeliest].item() for x in (logits, without))
    answer = {
        "query": query,
        "recall_gate": gates[-1],
        "next": {"text": brain.tokenizer.decode([likeliest]), "probability": said, "without_memory": blank},
        "recalled": [dataclasses.asdict(item) | _place(brain, transcript, item.origin) for item in found],
    }
    if pointed is not None:
        tokens = [
            {"text": brain.tokenizer.decode([item.token]), **dataclasses.asdict(item)}
            | _place(brain, transcript, item.origin)
            for item in pointed[1]
        ]
        answer["pointer"] = {"share": pointed[0], "copied": tokens}
    return answer


def _draw(brain: Brain, state: BrainState, transcript: Transcript, query: str, out: Path) -> None:
    """What was stored and recalled, token by token of the query."""
    import numpy as np

    from neuro import recall
    from neuro.plots import recall as pictures
    from neuro.plots.spikes import check_format

    check_format(out)
    ids = [brain.tokenizer.bos_id, *brain.tokenizer.encode(query)]
    found = recall.read(brain, state, ids)
    rows = [(t, slot.origin, found.gate[t] * slot.share) for t, slots in enumerate(found.recalled) for slot in slots]
    picture = pictures.over_text(
        [brain.tokenizer.decode([token]) for token in ids],
        found.surprise,
        found.salience,
        found.stored,
        found.gate,
        np.array(rows).reshape(-1, 3),
        [*transcript.sources, (len(transcript.ids), "this text")],
        found.commits,
        out,
    )
    if picture is None:
        raise MissingError("neuro recall: --out needs matplotlib.", "pip install 'neuro-hybrid[plots]'")


def _place(brain: Brain, transcript: Transcript, origin: int) -> dict[str, str]:
    before, after = transcript.around(origin, CONTEXT, CONTEXT + 1)
    decode = brain.tokenizer.decode
    return {
        "source": transcript.source(origin),
        "before": decode(before),
        "stored": decode(after[:1]),
        "after": decode(after[1:]),
    }


def _print(record: dict[str, Any]) -> None:
    memory = record["memory"]
    sources = ", ".join(f"{name} {count}" for name, count in memory["sources"].items()) or "nothing"
    print(
        f"memory  {memory['filled']} of {memory['slots']} slots filled after {memory['tokens_read']} tokens; from {sources}"
    )
    if "recalled" not in record:
        return
    print(f"gate    {record['recall_gate']:.2f} of what the memory says is let in after {record['query']!r}")
    for place, item in enumerate(record["recalled"], 1):
        words = "" if item["same_words"] is None else f"same words {item['same_words']:.2f}  "
        print(
            f"{place:>4}    cosine {item['cosine']:.3f}  {words}share {item['share']:.2f}  strength {item['strength']:.2f}  "
            f"{item['age_tokens']} tokens ago  {_words(item)}"
        )
    if not record["recalled"]:
        print("        nothing is stored, so nothing is recalled")
    if "pointer" in record:
        print(
            f"pointer {record['pointer']['share']:.2f} of the next token's chance is copied from what followed before"
        )
        for place, item in enumerate(record["pointer"]["copied"], 1):
            print(
                f"{place:>4}    {item['probability']:.2f} for {item['text']!r}, which followed {item['moments']} "
                f"stored moment{'s' * (item['moments'] != 1)}  {_words(item)}"
            )
    if "picture" in record:
        print(f"drawn   {record['picture']}")
    then = record["next"]
    print(
        f"next    {then['text']!r}: probability {then['probability']:.2f} with this memory, "
        f"{then['without_memory']:.2f} without"
    )


def _words(item: dict[str, Any]) -> str:
    """Where it was stored, with the text around."""
    return f"{item['source']}: {item['before']}[{item['stored']}]{item['after']}".replace("\n", " ")
