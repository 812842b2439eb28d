"""The brain beside Transformer-XL and the Compressive Transformer: equal parameters, tokens, order, steps and optimizer.

    python benchmarks/transformer_peers.py --data $NEURO_DATA --out runs/peers --page docs/peers.md

text     WikiText-2 train as natural English in the shipped model's byte BPE (8,192 types), whole softmax for all. Every model
         sees the windows that `neuro train` draws from the seed, rehearsed spans and fresh starts among them.
mqar     the mixture of the preset `mqar`, the same examples for all.
peers    a window is one segment; of text, memory 256 and, in the compressive one, 256 slots at rate 4. Their feed-forward
         width is what brings them within 1 % of the brain's parameters. Weights are float32, products bfloat16 in training.
rates    each model starts at both learning rates; after `--trial` of its steps the one better on valid goes on.
scores   WikiText-2 test, one stream, batch 1: word perplexity with an open vocabulary as in `neuro/evaluate/perplexity.py`.
         A peer's memory at test is the longest tried (`GROWN`) that valid prefers. `repeat`: the passages, gap and ratio of
         `neuro/evaluate/repeat.py`. The brain with 16,384 slots, memories on and, same weights, emptied at every commit.

Each finished piece is a file in `--out`; a run that was broken off goes on. Intervals: 95 %, bootstrap (seed 0, 1,000 draws)
over articles, and over samples and their blocks; differences are paired. Prints one JSON object; progress goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _machine
import _memory_transformer as peers
import _peer_page
import _peer_training as training
import numpy as np
import prepare_corpus
import torch

import neuro
from neuro import atomic, config, corpus, tasks, text
from neuro.brain import Brain
from neuro.config import RunConfig
from neuro.errors import CheckError
from neuro.evaluate import arms, perplexity, recall, repeat, statistics
from neuro.evaluate.stream import Stream, evaluating
from neuro.train import loop
from neuro.train.examples import Examples
from neuro.train.streams import Streams

SLOTS = 16_384  # of the brain where text is scored
TEXT_RATES, MQAR_RATES = (3e-3, 1.5e-3), (1e-2, 3e-3)
TEXT = [
    "brain.d_model=128",
    "brain.cortex.feedforward_width=512",
    "brain.hippocampus.slots=2048",
    "brain.procedural.rank=24",
    "train.batch=8",
    "train.memory_dropout=0.25",
    "train.eval_tokens=16384",
]
# (M, C): as trained, then longer.
GROWN = {"xl": ((256, 0), (512, 0), (1024, 0)), "compressive": ((256, 256), (512, 512))}
# What an MQAR row is read in, and the memory that holds the longest row of the test.
MQAR = {"xl": (256, (256, 0), (1024, 0)), "compressive": (64, (64, 64), (64, 256))}


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Kept:
    """Finished pieces, one JSON file each."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        path = self.out / f"{name}.json"
        if not path.exists():
            say(name)
            began = time.process_time()
            made = {"found": make(), "processor_seconds": round(time.process_time() - began, 1)}
            atomic.write_text(path, json.dumps(made))
        return json.loads(path.read_text(encoding="utf-8"))["found"]


def prepared(data: Path, out: Path) -> Path:
    """WikiText-2's training and validation articles as documents."""
    folder = out / "corpus"
    for part in ("train", "valid"):
        if not (folder / part).exists():
            documents, _ = prepare_corpus.wikitext(data / "wikitext-2" / f"{part}.txt.gz")
            prepare_corpus.write_documents(folder / part, documents)
    return folder


def trained_brain(runs: dict[float, RunConfig], out: Path, trial: int) -> dict[str, Any]:
    """Every rate up to ``trial``, then the best on held-out text to the end -> its folder and what was measured."""

    def go(rate: float, until: int | None) -> dict[str, Any]:
        folder = out / f"{rate:g}"

        def report(record: dict[str, Any]) -> None:
            if record["event"] == "eval":
                say(f"  brain {rate:g}: {record}")
            if record["event"] == "step" and record["step"] == until:
                signal.raise_signal(signal.SIGINT)  # ends the run after its evaluation, with a checkpoint

        log = folder / "log.jsonl"
        done = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        if until is None or not done or done[-1]["step"] < until:
            try:
                loop.train(runs[rate], folder, backend="cpu", report=report)
            except KeyboardInterrupt:
                if until is None:
                    raise
            done = [json.loads(line) for line in log.read_text().splitlines()]
        evals = [record for record in done if record["event"] == "eval"]
        at = {record["step"]: record["valid_nats"] for record in evals}
        return {"folder": str(folder / "model"), "nats": at[until] if until else evals[-1]["valid_nats"]}

    nats = {f"{rate:g}": go(rate, trial)["nats"] for rate in runs}
    best = min(runs, key=lambda rate: nats[f"{rate:g}"])
    return go(best, None) | {"rates": nats, "rate": best}


def trained_peer(
    kind: str,
    size: peers.Size,
    windows: Streams | Examples,
    run: RunConfig,
    rates: tuple[float, ...],
    segment: int,
    trial: int,
    held_out: Callable[[peers.MemoryTransformer], float],
    path: Path,
) -> dict[str, Any]:
    model, nats = training.halved(size, windows, run.train, rates, segment, trial, held_out)
    training.save(path, model)
    best = min(nats, key=lambda rate: nats[rate])
    say(f"  {kind}: {nats}")
    return {"rates": nats, "rate": float(best), "nats": held_out(model), "parameters": training.count(model)}


def peer_sizes(brain: Brain, layers: int, heads: int, memories: dict[str, tuple[int, int]]) -> dict[str, peers.Size]:
    """Peers of the brain's width and, within what one hidden unit more or less is, its parameters."""
    parameters = sum(brain.parameter_counts().values())
    return {
        kind: training.fitted(
            peers.Size(brain.config.vocab_size, brain.config.d_model, layers, heads, 1, memory, compressed), parameters
        )
        for kind, (memory, compressed) in memories.items()
    }


def brain_nats(brain: Brain, arm: str, stream: list[int]) -> np.ndarray:
    """Nats of each token after the first, one stream."""
    with evaluating(brain):
        return Stream(brain, arms.ARMS[arm]).read(stream)[1:]


def test_row(nats: list[float], words: list[int], against: list[float]) -> dict[str, Any]:
    """Word perplexity over the articles, and its change against another model's, paired."""
    columns = np.array([words, nats, against], dtype=float).T
    drawn = statistics.resampled_sums(list(columns[:, None]))
    total = columns.sum(0)
    return {
        "word_perplexity": math.exp(total[1] / total[0]),
        "interval": statistics.interval(np.exp(drawn[1] / drawn[0])),
        "change": math.expm1((total[1] - total[2]) / total[0]),
        "change_interval": statistics.interval(np.expm1((drawn[1] - drawn[2]) / drawn[0])),
    }


def repeat_row(places: list[repeat.Sample], shown: list[list[list[float]]]) -> dict[str, Any]:
    """Word perplexity of both showings and their ratio; ``shown`` holds, of each sample, the nats of both."""
    units = [np.stack([place.words, *map(np.array, both)], 1) for place, both in zip(places, shown, strict=True)]
    totals = sum(unit.sum(0) for unit in units)
    words, once, again = np.concatenate([totals[:, None], statistics.resampled_sums(units, repeat.BLOCK)], 1)
    ratio = np.exp((again - once) / words)
    return {
        "first": math.exp(once[0] / words[0]),
        "again": math.exp(again[0] / words[0]),
        "ratio": float(ratio[0]),
        "interval": statistics.interval(ratio[1:]),
    }


def on_text(options: argparse.Namespace, kept: Kept) -> dict[str, Any]:
    """Training, perplexity and repeated passages."""
    documents = prepared(options.data, options.out)
    tokenizer = Path(neuro.__file__).parent / "models" / "small" / "tokenizer.json"
    trial = math.ceil(options.steps * options.trial)
    sets = [
        *TEXT,
        *(f"data.{part}={documents / part}" for part in ("train", "valid")),
        f"data.tokenizer={tokenizer}",
        f"train.steps={options.steps}",
        f"train.warmup_steps={max(1, options.steps // 10)}",
        f"train.eval_every={trial}",
        f"train.seed={options.seed}",
    ]
    runs = {rate: config.load("small", [*sets, f"train.learning_rate={rate}"]) for rate in TEXT_RATES}
    run = runs[TEXT_RATES[0]]
    found = {"brain": kept.once("text-brain", lambda: trained_brain(runs, options.out / "text-brain", trial))}
    brain = neuro.load(found["brain"]["folder"], "cpu", sets=[f"brain.hippocampus.slots={SLOTS}"]).eval()
    sizes = peer_sizes(
        brain, len(brain.config.cortex.mixers), brain.config.cortex.heads, {k: GROWN[k][0] for k in GROWN}
    )
    ids = corpus.prepare(run.data, brain.config.vocab_size)
    t, models = run.train, {}
    window = t.spans_per_step * brain.config.plasticity_span
    for kind, size in sizes.items():
        windows = Streams(ids.train, ids.starts, t.batch, brain.config.plasticity_span, t.rehearsal, t.seed)
        path = options.out / f"text-{kind}.safetensors"

        def held_out(model: peers.MemoryTransformer) -> float:
            return training.held_out_nats(model, ids.valid, t.eval_tokens)

        def learn(kind=kind, size=size, windows=windows, path=path, held_out=held_out) -> dict[str, Any]:
            return trained_peer(kind, size, windows, run, TEXT_RATES, window, trial, held_out, path)

        found[kind] = kept.once(f"text-{kind}", learn)
        model = training.load(path)
        longer = {slots: training.grown(model, *slots) for slots in GROWN[kind]}
        tried = kept.once(
            f"text-{kind}-memory",
            lambda longer=longer, held_out=held_out: [held_out(model) for model in longer.values()],
        )
        slots = GROWN[kind][int(np.argmin(tried))]
        models[kind] = longer[slots]
        found[kind] |= {"memory": slots, "nats_by_memory": tried, "elements": training.elements(models[kind].size)}
    found["brain"] |= {
        "parameters": sum(brain.parameter_counts().values()),
        "elements": recall.state_elements(brain)["state"],
    }
    return {"models": found, **scored(options, kept, brain, models)}


def scored(
    options: argparse.Namespace, kept: Kept, brain: Brain, models: dict[str, peers.MemoryTransformer]
) -> dict[str, Any]:
    """WikiText-2 test, and passages of it that come again."""
    raw = text.read_text(options.data / "wikitext-2" / "test.txt.gz")
    coded = perplexity.code(raw, brain, True)
    first = slice(options.articles)
    units, flags, words = coded.ids[first], coded.flag_nats[first], coded.words[first]
    stream, ends = [brain.tokenizer.bos_id, *(i for unit in units for i in unit)], np.cumsum([*map(len, units)])[:-1]

    def by_article(nats: np.ndarray) -> list[float]:
        return [float(part.sum()) + flag for part, flag in zip(np.split(nats, ends), flags, strict=True)]

    readers: dict[str, Callable[[list[int]], np.ndarray]] = {
        "real": lambda ids: brain_nats(brain, "real", ids),
        "off": lambda ids: brain_nats(brain, "off", ids),
    }
    for kind, model in models.items():
        readers[kind] = lambda ids, model=model: training.surprises(model, np.array([ids]))[0]
    nats = {
        name: kept.once(f"test-{name}", lambda read=read: by_article(read(stream))) for name, read in readers.items()
    }
    places = repeat.samples(brain, raw, True, repeat.Protocol(samples=options.samples))
    rows = {}
    for name, read in readers.items():
        shown = []
        for number, place in enumerate(places):

            def both(read=read, place=place) -> list[list[float]]:
                parts = [place.warm_up, place.passage, place.gap, place.passage]
                cost = read([brain.tokenizer.bos_id, *(i for part in parts for i in part)])
                return [cost[len(place.warm_up) :][: len(place.passage)].tolist(), cost[-len(place.passage) :].tolist()]

            shown.append(kept.once(f"repeat-{name}-{number}", both))
        rows[name] = repeat_row(places, shown)
    return {
        "articles": len(units),
        "tokens": len(stream) - 1,
        "words": sum(words),
        "test": {name: test_row(cost, words, nats["real"]) for name, cost in nats.items()},
        "repeat": rows,
    }


def on_mqar(options: argparse.Namespace, kept: Kept) -> dict[str, Any]:
    """The preset's mixture, and the published test points."""
    trial = math.ceil(options.mqar_steps * options.trial)
    sets = [
        f"train.steps={options.mqar_steps}",
        f"train.eval_every={trial}",
        "train.eval_tokens=4096",
        f"train.seed={options.seed}",
    ]
    runs = {rate: config.load("mqar", [*sets, f"train.learning_rate={rate}"]) for rate in MQAR_RATES}
    run = runs[MQAR_RATES[0]]
    t, source = run.train, run.data.train

    def learned() -> dict[str, Any]:
        if options.mqar_brain is None:
            return trained_brain(runs, options.out / "mqar-brain", trial)
        return {"folder": str(options.mqar_brain / "model"), "rate": rate_of(options.mqar_brain, run), "rates": {}}

    found = {"brain": kept.once("mqar-brain", learned)}
    brain = neuro.load(found["brain"]["folder"], "cpu", sets=["brain.hippocampus.slots=512"]).eval()
    results = {
        "brain": kept.once(
            "mqar-test-brain",
            lambda: [r.accuracy for r in recall.evaluate(brain, rows=options.rows, chosen=("real",))],
        )
    }
    found["brain"] |= {
        "parameters": sum(brain.parameter_counts().values()),
        "elements": recall.state_elements(brain)["state"],
    }
    memories = {kind: trained for kind, (_, trained, _) in MQAR.items()}
    sizes = peer_sizes(brain, len(brain.config.cortex.mixers), brain.config.cortex.heads, memories)
    for kind, size in sizes.items():
        segment, _, longest = MQAR[kind]
        path = options.out / f"mqar-{kind}.safetensors"

        def held_out(model: peers.MemoryTransformer, segment: int = segment) -> float:
            return training.held_out_answers(model, source, t.eval_tokens, t.seed, segment)

        def learn(kind=kind, size=size, segment=segment, path=path, held_out=held_out) -> dict[str, Any]:
            examples = Examples(source, brain.config.vocab_size, t.batch, t.seed)
            return trained_peer(kind, size, examples, run, MQAR_RATES, segment, trial, held_out, path)

        found[kind] = kept.once(f"mqar-{kind}", learn)
        model = training.grown(training.load(path), *longest)
        found[kind] |= {"memory": longest, "elements": training.elements(model.size)}
        results[kind] = kept.once(
            f"mqar-test-{kind}", lambda model=model, segment=segment: mqar_points(model, segment, options.rows)
        )
    return {"models": found, "points": list(recall.MQAR_BASED), "accuracy": results, "rows": options.rows}


def rate_of(folder: Path, run: RunConfig) -> float:
    """The learning rate of a finished run of the preset.

    Raises:
        CheckError: its steps, batch or seed are not this comparison's.
    """
    other = config.load(folder / "config.toml")
    for name in ("steps", "batch", "seed"):
        got, expected = getattr(other.train, name), getattr(run.train, name)
        if got != expected:
            raise CheckError(
                f"{folder}: got train.{name} {got}, expected {expected} as the peers have.",
                "Give a run of the same steps, batch and seed, or leave --mqar-brain out.",
            )
    return other.train.learning_rate


def mqar_points(model: peers.MemoryTransformer, segment: int, rows: int) -> list[float]:
    """Accuracy at each published point, on the rows that `neuro.evaluate.recall` draws."""
    found = []
    for source in recall.MQAR_BASED:
        (task,) = tasks.parse(source, model.size.vocab)
        random = np.random.default_rng([0, *tasks.spelled(task).encode()])
        right = []
        for part in np.array_split(np.arange(rows), min(rows // 2, -(-rows // recall.ROWS_AT_ONCE))):
            right.append(training.answers(model, task.rows(random, len(part), model.size.vocab), segment).right)
        found.append(float(torch.cat(right).double().mean()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with wikitext-2/")
    parser.add_argument("--out", type=Path, required=True, help="folder of finished pieces")
    parser.add_argument("--only", choices=("text", "mqar"))
    parser.add_argument("--steps", type=int, default=976, help="of 2,048 tokens of text")
    parser.add_argument("--mqar-steps", type=int, default=320, help="of 16 examples")
    parser.add_argument("--mqar-brain", type=Path, help="a finished run of the preset (benchmarks/recall.py --out)")
    parser.add_argument("--trial", type=float, default=0.25, help="share of the steps after which one rate goes on")
    parser.add_argument("--articles", type=int, help="of the test text; all without it")
    parser.add_argument("--samples", type=int, default=5, help="passages that come again")
    parser.add_argument("--rows", type=int, default=128, help="of each point of MQAR")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--page", type=Path, help="a page whose tables to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    kept = Kept(options.out)
    settings = {k: getattr(options, k) for k in ("steps", "mqar_steps", "trial", "articles", "samples", "rows", "seed")}
    record: dict[str, Any] = {"benchmark": "transformer_peers", "machine": _machine.describe(), **settings}
    if options.only != "mqar":
        record["text"] = on_text(options, kept)
    if options.only != "text":
        record["mqar"] = on_mqar(options, kept)
    if options.page:
        _peer_page.write(options.page, _peer_page.tables(record))
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
