"""What the C99 runner costs and still knows on bare Cortex-M boards in QEMU.

    python benchmarks/cortex_m.py [MODEL] [--rows N] [--text FILE --tokens N] [--cores LIST]

For each core, with every memory and without: flash, RAM term by term, stack, instructions of a token and of a commit, and
instructions per integer multiply-accumulate (additions that spikes cause are extra work, not counted as such). Then, on the
first core, recall of rows that training never drew and the loss on a text's last tenth, beside torch in float32 on the same
tokens; every logit of the board is also compared with the reference. One run each: instructions and answers repeat exactly.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import _machine
import numpy as np
import torch

from export.c import board, package
from export.c.quantized import quantize
from export.c.reference import Reference
from neuro import corpus, folder, tasks
from neuro.brain import Brain
from neuro.evaluate import recall
from neuro.session import Session

TASKS = (
    "task:delayed:pairs=4,delay=16",
    "task:delayed:pairs=4,delay=48",
    "task:delayed:pairs=8,delay=80",
    "task:delayed:pairs=8,delay=256",
)
OFF = ["hippocampus.enabled=false", "procedural.enabled=false"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="micro")
    parser.add_argument("--rows", type=int, default=50, help="of each recall task")
    parser.add_argument("--text", help="its last tenth is read; the usual cut of Shakespeare")
    parser.add_argument("--tokens", type=int, default=1000, help="of the text")
    parser.add_argument("--cores", default=",".join(board.TARGETS))
    parser.add_argument("--json", help="file for the whole record")
    options = parser.parse_args()
    torch.set_num_threads(1)
    record: dict[str, Any] = _machine.describe() | {"model": options.model, "seed": 0, "repeats": 1, "rows": []}
    print(json.dumps(record))
    source, cores = folder.locate(options.model), options.cores.split(",")
    brain = folder.load(source, "cpu")
    with tempfile.TemporaryDirectory() as place:
        for core in cores:
            for memory, sets in ((True, []), (False, OFF)):
                out = Path(place) / f"{core}-{'memory' if memory else 'none'}"
                manifest = package.export_c(source, out, core, sets)
                row = {key: manifest[key] for key in ("target", "memory", "flash", "ram", "instructions", "parity")}
                record["rows"].append(row)
                print(json.dumps(row), flush=True)
        first = Path(place) / f"{cores[0]}-memory"
        for task in TASKS:
            found = _recall(brain, first, cores[0], Path(place) / "work", task, options.rows)
            record.setdefault("recall", []).append(found)
            print(json.dumps(found), flush=True)
        if options.text:
            record["text"] = _text(brain, first, cores[0], Path(place) / "work", options.text, options.tokens)
            print(json.dumps(record["text"]))
    if options.json:
        Path(options.json).write_text(json.dumps(record, indent=1), encoding="utf-8")


def _recall(brain: Brain, out: Path, core: str, work: Path, source: str, count: int) -> dict[str, Any]:
    """Accuracy at the answers in torch and on the board, of the same rows."""
    task = tasks.parse(source, brain.config.vocab_size)[0]
    rows = task.rows(np.random.default_rng([0, *source.encode()]), count, brain.config.vocab_size)
    orders = []
    for tokens, scored in zip(rows.tokens, rows.scored, strict=True):
        orders.append(board.RESET)
        for at, token in enumerate(tokens.tolist()):
            orders.append(token)
            if at + 1 < len(tokens) and scored[at + 1]:
                orders.append(board.LOGITS)
    logits = board.run(out, core, work, np.array(orders, np.int16)).output.reshape(-1, brain.config.vocab_size)
    right = (logits.argmax(1) == rows.tokens[rows.scored]).reshape(count, -1)
    torch_right = recall.answer(brain, rows).right.numpy()
    empty = recall.answer(brain, rows, "off").right.numpy()
    apart = right.mean(1) - torch_right.mean(1)
    return {
        "task": source,
        "core": core,
        "rows": count,
        "answers": int(right.size),
        "torch": float(torch_right.mean()),
        "board": float(right.mean()),
        "difference": float(apart.mean()),
        "difference_95": list(recall.interval(apart, 0)),
        "torch_without_memory": float(empty.mean()),
    }


def _text(brain: Brain, out: Path, core: str, work: Path, path: str, most: int) -> dict[str, Any]:
    """Nats per token in one stream, in torch, on the board, and in the reference (which must be the board's)."""
    whole = "".join(corpus.read_documents(path))
    ids = corpus.encode([whole[len(whole) * 9 // 10 :]], brain.tokenizer)[:most].astype(np.int64)
    orders = [order for token in ids.tolist() for order in (token, board.LOGITS)]
    logits = board.run(out, core, work, np.array(orders, np.int16)).output.reshape(len(ids), -1)
    reference, equal = Reference(quantize(brain)), True
    for token, said in zip(ids.tolist(), logits, strict=True):
        equal = equal and bool(np.array_equal(reference.step(token), said))
        if reference.clock == brain.config.plasticity_span:
            reference.commit()
    exact = Session(brain).feed(torch.from_numpy(ids)[None], keep_logits=True)[0].numpy()
    return {
        "text": path.rsplit("/", 1)[-1],
        "tokens": len(ids),
        "core": core,
        "torch_nats": _nats(exact, ids),
        "board_nats": _nats(logits, ids),
        "top1_agreement": float((exact.argmax(1) == logits.argmax(1)).mean()),
        "board_equals_reference": equal,
    }


def _nats(logits: np.ndarray, ids: np.ndarray) -> float:
    chances = torch.log_softmax(torch.from_numpy(logits[:-1].copy()).double(), -1)
    return -float(chances[torch.arange(len(ids) - 1), torch.from_numpy(ids[1:])].mean())


if __name__ == "__main__":
    main()
