"""Train the hippocampus of a model, and nothing else, to find facts among others and among text.

    python benchmarks/train_recall.py small $NEURO_DATA/wikitext-2/train.txt.gz --out FOLDER [--thoughts FOLDER]

Streams are of `neuro.train.episodes`, the loss of `neuro.train.rehearse`; no form of `neuro.evaluate.templates` is read.
Every tensor outside the hippocampus stays bit for bit what it is in MODEL. --thoughts keeps what the frozen regions made of
the streams, the costly part, so that a run that was cut off, or one with another setting, does not make it again. One JSON line
every 50 steps on streams that are not trained on: of text, answers and repeated passages the surprise (nats), the share of the
slots that hold the token among all slots, and the share of tokens that were the likeliest.
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

from neuro import folder, tensor_file, text
from neuro.brain import Brain
from neuro.train import rehearse
from neuro.train.episodes import AGAIN, ANSWER, TEXT, Episodes
from neuro.train.rehearse import Thoughts

NAMES = {TEXT: "text", ANSWER: "answers", AGAIN: "passages"}
PART = 2_000_000  # characters of a text, which of four parts is told by the seed
EVERY = 50  # steps
BACK = ("value", "out", "memory.null", "null_modulation", "memory.log_trust")  # what --back takes of a model
ROWS = 8  # streams that are read side by side
SCHEMA = "neuro.thoughts/1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text", help="that the facts are lost in")
    parser.add_argument("--out", required=True, help="folder to write the model into")
    parser.add_argument("--thoughts", help="folder that keeps what the frozen regions made of the streams")
    parser.add_argument("--batches", type=int, default=5, help=f"of {ROWS} streams (default: %(default)s)")
    parser.add_argument("--brief", type=int, default=0, help="further batches, with more and shorter passages again")
    parser.add_argument("--also", help="another text, read as it is")
    parser.add_argument("--also-batches", type=int, default=4, help="further brief batches over that text")
    parser.add_argument("--length", type=int, default=2048, help="tokens of a stream (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="default: %(default)s")
    parser.add_argument("--search", type=float, default=1.0, help="weight of the search loss (default: %(default)s)")
    parser.add_argument(
        "--weights",
        type=float,
        nargs=3,
        default=[1.0, 0.3, 0.3],
        help="of text, answers and passages (default: 1 0.3 0.3)",
    )
    parser.add_argument("--spans", type=int, default=12, help="of a stream that are read in a step")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override of the brain's settings"
    )
    parser.add_argument("--back", help="a model whose value, output and gate are taken in the end")
    parser.add_argument("--raise", type=float, default=0.0, dest="raised", help="added to the gate's null in the end")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    brain = folder.load(options.model, sets=options.set)
    training = thoughts(options, options.seed, options.batches)
    training += thoughts(options, options.seed, options.brief, "brief-")
    training += thoughts(options, options.seed, options.also_batches if options.also else 0, "also-")
    held_out = thoughts(options, options.seed + 98, 1)[: ROWS // 2]
    weights = dict(zip(NAMES, options.weights, strict=True))
    span = brain.config.plasticity_span
    random = np.random.default_rng(options.seed)
    adam = torch.optim.Adam(rehearse.parameters(brain), lr=options.learning_rate, betas=(0.9, 0.98))
    print(json.dumps({"machine": _machine.describe(), "options": vars(options)}))
    print(json.dumps({"step": 0, **measured(brain, held_out, weights, options.search)}), flush=True)
    started = time.process_time()
    for step in range(options.steps):
        stream, earlier = (training[int(number)] for number in random.integers(len(training), size=2))
        asked = rehearse.spans_to_ask(stream, span, options.spans, random)
        loss = rehearse.replay_loss(brain, stream, asked, weights, options.search, random, earlier)
        adam.zero_grad()
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(rehearse.parameters(brain), 1.0)
        warm, done = min(1.0, (step + 1) / 20), step / options.steps
        adam.param_groups[0]["lr"] = options.learning_rate * warm * (0.525 + 0.475 * math.cos(math.pi * done))
        adam.step()
        if step + 1 == options.steps and options.back:
            take_back(brain, options.back, options.raised)
        if (step + 1) % EVERY == 0 or step + 1 == options.steps:
            found = measured(brain, held_out, weights, options.search)
            print(json.dumps({"step": step + 1, **found, "cpu_s": time.process_time() - started}), flush=True)
            run = {name: value for name, value in vars(options).items() if not isinstance(value, str)}
            about = folder.read_record(folder.locate(options.model))["about"]
            about["recall"] = [*about.get("recall", []), run | {"steps_done": step + 1}]
            folder.save(brain, options.out, about)


def thoughts(options: argparse.Namespace, seed: int, batches: int, kind: str = "") -> list[Thoughts]:
    """What the model makes of ``batches`` batches of streams, read from --thoughts where they lie there."""
    brain, streams, found = None, None, []
    for batch in range(batches):
        kept = Path(options.thoughts) / f"{kind}{seed}-{batch}.safetensors" if options.thoughts else None
        if kept is not None and kept.exists():
            tensors, _ = tensor_file.read(kept, SCHEMA)
            found += [Thoughts(*row) for row in zip(*(tensors[name] for name in Thoughts._fields), strict=True)]
            continue
        if brain is None or streams is None:
            # Few slots: what is recalled here moves hormones alone.
            brain = folder.load(options.model, sets=["hippocampus.slots=1024"])
            raw = text.read_text(Path(options.also if kind == "also-" else options.text))[PART * (seed % 4) :][:PART]
            if kind != "also-":
                raw = "\n".join(map(text.detokenize, raw.split("\n")))
            ids = brain.tokenizer.encode(raw)
            streams = Episodes(np.array(ids), brain.tokenizer, options.length, seed, bool(kind))
            for _ in range(batch * ROWS):
                streams.draw()
        rows = rehearse.think(brain, [streams.draw() for _ in range(ROWS)])
        if kept is not None:
            columns = {
                name: torch.stack(column)
                for name, column in zip(Thoughts._fields, zip(*rows, strict=True), strict=True)
            }
            tensor_file.write(kept, columns, {"schema": SCHEMA})
        found += rows
    return found


@torch.no_grad()
def take_back(brain: Brain, model: str, raised: float) -> None:
    """Only how slots are found stays trained: the streams hold more that repeats than texts do, and no fast weights."""
    before = folder.load(model).state_dict()
    for name, tensor in brain.state_dict().items():
        if name.startswith(tuple(f"regions.hippocampus.{part}" for part in BACK)):
            tensor.copy_(before[name])
    brain.state_dict()["regions.hippocampus.memory.null.bias"].add_(raised)


def measured(brain: Brain, held_out: list[Thoughts], weights: dict[int, float], search: float) -> dict[str, object]:
    """Means over streams that are not trained on."""
    random, span = np.random.default_rng(5), brain.config.plasticity_span
    with torch.no_grad():
        losses = [
            rehearse.replay_loss(
                brain, stream, rehearse.spans_to_ask(stream, span, 16, random), weights, search, random
            )
            for stream in held_out
        ]
    return {
        name: {
            field: round(
                float(np.mean([values[kind] for loss in losses if kind in (values := getattr(loss, field))])), 3
            )
            for field in ("nats", "found", "right")
        }
        for kind, name in NAMES.items()
    }


if __name__ == "__main__":
    main()
