"""Train the preset ``micro``: windows of a text and windows of recall tasks in turns, one optimizer.

    python benchmarks/train_micro.py TEXT --out FOLDER [--steps N] [--tasks task:...]

TEXT is one file; its first nine tenths train, the tokenizer too, and the rest is held out (the usual cut of Shakespeare).
On a text every token counts, on a task the answers alone. Both use the same ids: a row of a task is a stream that starts
afresh. One JSON line every 250 steps, with the held-out loss and the held-out accuracy of recall; FOLDER is a model.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import _machine
import numpy as np
import torch

import backends
from neuro import config as configs
from neuro import corpus, folder, presets
from neuro.brain import Brain
from neuro.tokenizer import Tokenizer
from neuro.train import objective, optimizer
from neuro.train.examples import Examples, held_out_answers
from neuro.train.loop import clip_gradient, held_out_nats, learning_rate
from neuro.train.streams import Streams

TASKS = "task:delayed:pairs=4,delay=16+delayed:pairs=4,delay=48+delayed:pairs=8,delay=80"


def _documents(whole: str, least: int = 4000) -> list[str]:
    """The text in pieces of ``least`` characters or more that end at a blank line: places for a stream to begin."""
    pieces, piece = [], ""
    for part in whole.split("\n\n"):
        piece += part + "\n\n"
        if len(piece) >= least:
            pieces.append(piece)
            piece = ""
    return [*pieces, piece] if piece else pieces


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text")
    parser.add_argument("--out", required=True, help="folder to write the model into")
    parser.add_argument("--steps", type=int, help="optimizer steps, half of them on the text (default: the preset's)")
    parser.add_argument("--tasks", default=TASKS, help=f"as data.train (default: {TASKS})")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override of the preset")
    options = parser.parse_args()
    sets = [*options.set, *([f"train.steps={options.steps}"] if options.steps else [])]
    run = configs.apply_sets(presets.micro(), sets)
    t = run.train
    torch.set_num_threads(1)
    torch.manual_seed(t.seed)

    whole = "".join(corpus.read_documents(options.text))
    cut = len(whole) * 9 // 10
    lines = (line + "\n" for line in whole[:cut].split("\n"))
    tokenizer = Tokenizer.train(lines, run.brain.vocab_size)
    parts = [corpus.encode([part], tokenizer) for part in _documents(whole[:cut])]
    train, starts = np.concatenate(parts), np.cumsum([0, *map(len, parts[:-1])])
    valid = corpus.encode([whole[cut:]], tokenizer)
    backend = backends.select("cpu")
    brain = Brain(run.brain, backend)
    brain.tokenizer = tokenizer
    if t.init:
        folder.adopt_weights(brain, folder.locate(t.init))
    span = run.brain.plasticity_span
    reading = Streams(train, starts, t.batch, span, t.rehearsal, t.seed)
    asking = Examples(options.tasks, run.brain.vocab_size, t.batch, t.seed)
    adam = optimizer.make(brain, backend, t.learning_rate, t.weight_decay)
    initial = brain.init_state(t.batch)
    said: dict[str, float] = {}
    state, seen, started = initial, 0, time.process_time()
    print(json.dumps({"train_tokens": int(train.size), "valid_tokens": int(valid.size)} | _machine.describe()))
    for step in range(t.steps):
        source = reading if step % 2 else asking
        window = source.window(t.spans_per_step)
        tokens, fresh = torch.from_numpy(window.tokens), torch.from_numpy(window.fresh)
        if source is reading:
            loss = objective.window_loss(brain, tokens, objective.fresh_rows(state, initial, fresh), t)
            state = loss.state
        else:
            loss = objective.window_loss(brain, tokens, initial, t, torch.from_numpy(window.scored))
        adam.zero_grad(set_to_none=True)
        loss.total.backward()
        norm = clip_gradient(brain.parameters(), t.clip_norm)
        if not math.isfinite(norm):
            raise SystemExit(f"the gradient of step {step + 1} is not finite")
        for group in adam.param_groups:
            group["lr"] = learning_rate(t, step)
        adam.step()
        said["text" if source is reading else "recall"] = float(loss.nats)
        seen += window.tokens.size
        if (step + 1) % 250 == 0 or step + 1 == t.steps:
            record = {"step": step + 1, "tokens": seen, "cpu_s": round(time.process_time() - started, 1)}
            record |= {"spike_rate": float(loss.spike_rate), "route": float(loss.route)}
            record |= {f"{name}_window_nats": nats for name, nats in said.items()}
            record["text_nats"] = held_out_nats(brain, valid, t.eval_tokens)
            answers = held_out_answers(brain, options.tasks, t.eval_tokens, t.seed)
            record |= {f"recall_{key.removeprefix('valid_')}": value for key, value in answers.items()}
            print(json.dumps(record), flush=True)
            about = record | {"train_tokens": int(train.size), "tasks": options.tasks, "train": configs.to_dict(t)}
            folder.save(brain, Path(options.out), about)


if __name__ == "__main__":
    main()
