"""The brain beside Transformer-XL and the Compressive Transformer: equal parameters, tokens, order, steps and optimizer.

    python benchmarks/transformer_peers.py --data $NEURO_DATA --out runs/peers --page docs/peers.md

text     WikiText-2 train as natural English in the byte BPE of the shipped model of that size (small: 8,192 types, micro: 320),
         whole softmax for all. Every model sees the windows that `neuro train` draws from the seed, rehearsed spans and
         fresh starts among them. The brain has dense feed-forwards and, of the regions, cortex, hippocampus and readout.
static   the brain trained without memories, its feed-forwards as much wider as makes it as large as the one with them.
mqar     the mixture of the preset `mqar`, the same examples for all.
peers    a window is one segment (of MQAR, in the compressive one, several); rate 4. Their feed-forward width is what
         brings them within 1 % of the brain's parameters. Products are bfloat16 in training where the processor has them.
rates    each model starts at both learning rates; after `--trial` of its steps the one better on valid goes on.
scores   WikiText-2 test, one stream, batch 1: word perplexity with an open vocabulary as in `neuro/evaluate/perplexity.py`.
         Of the memories in `TEXTS` a peer has the one that valid prefers. `repeat`: the passages, gap and ratio of
         `neuro/evaluate/repeat.py`. The brain with 16,384 slots, memories on and, same weights, emptied at every commit;
         and the static one.

Each finished piece is a file in `--out`; a run that was broken off goes on. Intervals: 95 %, bootstrap (seed 0, 1,000 draws)
over articles, and over samples and their blocks; differences are paired. Prints one JSON object; progress goes to stderr.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _machine
import _memory_transformer as peers
import _peer_page
import _peer_recall
import _peer_runs as runs_of
import _peer_training as training
import numpy as np
import prepare_corpus
import torch

import neuro
from neuro import config, corpus, text
from neuro.brain import Brain
from neuro.evaluate import arms, perplexity, recall, repeat, statistics
from neuro.evaluate.stream import Stream, evaluating
from neuro.train.streams import Streams

SLOTS = 16_384  # of the brain where text is scored
PLAIN = tuple(f"brain.{region}.enabled=false" for region in ("thalamus", "amygdala", "endocrine"))
MEMORIES = (
    "brain.hippocampus.pointer=true",
    "brain.hippocampus.key_direct=true",
    "brain.procedural.through_dense=true",
    "brain.procedural.bias_rate=0.015",
)


@dataclasses.dataclass(frozen=True)
class Text:
    """A size of brain, what its peers remember and the learning rates tried."""

    preset: str
    sets: tuple[str, ...]
    rates: tuple[float, ...]
    grown: dict[str, tuple[tuple[int, int], ...]]  # (M, C) of each peer: as trained, then longer


TEXTS = {
    "small": Text(
        "small",
        (
            *PLAIN,
            *MEMORIES,
            "brain.d_model=128",
            "brain.cortex.feedforwards=dense,dense,dense,dense",
            "brain.cortex.feedforward_width=416",
            "brain.hippocampus.slots=2048",
            "brain.procedural.rank=24",
            "train.batch=8",
            "train.memory_dropout=0.25",
        ),
        (3e-3, 1.5e-3),
        {"xl": ((256, 0), (512, 0), (1024, 0)), "compressive": ((256, 256), (512, 512))},
    ),
    "micro": Text(
        "micro",
        (
            *PLAIN,
            *MEMORIES,
            "brain.cortex.feedforwards=dense,dense",
            "brain.hippocampus.slots=1024",
            "brain.hippocampus.half_life_tokens=65536.0",
            "train.memory_dropout=0.25",
        ),
        (6e-3, 3e-3),
        {"xl": ((128, 0), (256, 0), (512, 0)), "compressive": ((128, 128), (256, 256))},
    ),
}


def prepared(data: Path, out: Path, most: int | None) -> Path:
    """WikiText-2's training and validation articles as documents, the first ``most`` of each."""
    folder = out / "corpus"
    for part in ("train", "valid"):
        if not (folder / part).exists():
            documents, _ = prepare_corpus.wikitext(data / "wikitext-2" / f"{part}.txt.gz")
            prepare_corpus.write_documents(folder / part, documents[:most])
    return folder


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


def on_text(options: argparse.Namespace, kept: runs_of.Kept) -> dict[str, Any]:
    """Training, perplexity and repeated passages."""
    documents, size = prepared(options.data, options.out, options.documents), TEXTS[options.size]
    tokenizer = Path(neuro.__file__).parent / "models" / size.preset / "tokenizer.json"
    trial = math.ceil(options.steps * options.trial)
    sets = [
        *size.sets,
        *(f"data.{part}={documents / part}" for part in ("train", "valid")),
        f"data.tokenizer={tokenizer}",
        f"train.steps={options.steps}",
        f"train.warmup_steps={max(1, options.steps // 10)}",
        f"train.eval_every={trial}",
        "train.eval_tokens=8192",
        f"train.seed={options.seed}",
    ]
    runs = {rate: config.load(size.preset, [*sets, f"train.learning_rate={rate}"]) for rate in size.rates}
    run = runs[size.rates[0]]
    found = {"brain": kept.once("text-brain", lambda: runs_of.trained_brain(runs, options.out / "text-brain", trial))}
    brain = neuro.load(found["brain"]["folder"], "cpu", sets=[f"brain.hippocampus.slots={SLOTS}"]).eval()
    bare = runs_of.without_memories(runs, sum(brain.parameter_counts().values()))
    found["static"] = kept.once("text-static", lambda: runs_of.trained_brain(bare, options.out / "text-static", trial))
    static = neuro.load(found["static"]["folder"], "cpu").eval()
    peer = runs_of.peer_sizes(brain, {kind: memories[0] for kind, memories in size.grown.items()})
    ids = corpus.prepare(run.data, brain.config.vocab_size)
    t, models = run.train, {}
    window = t.spans_per_step * brain.config.plasticity_span
    for kind, peer_size in peer.items():
        windows = Streams(ids.train, ids.starts, t.batch, brain.config.plasticity_span, t.rehearsal, t.seed)
        path = options.out / f"text-{kind}.safetensors"

        def held_out(model: peers.MemoryTransformer) -> float:
            return training.held_out_nats(model, ids.valid, t.eval_tokens)

        def learn(kind=kind, peer_size=peer_size, windows=windows, path=path, held_out=held_out) -> dict[str, Any]:
            return runs_of.trained_peer(kind, peer_size, windows, run, size.rates, window, trial, held_out, path)

        found[kind] = kept.once(f"text-{kind}", learn)
        model = training.load(path)
        longer = {slots: training.grown(model, *slots) for slots in size.grown[kind]}
        tried = kept.once(
            f"text-{kind}-memory",
            lambda longer=longer, held_out=held_out: [held_out(model) for model in longer.values()],
        )
        slots = size.grown[kind][int(np.argmin(tried))]
        models[kind] = longer[slots]
        found[kind] |= {"memory": slots, "nats_by_memory": tried, "elements": training.elements(models[kind].size)}
    for name, ours in (("brain", brain), ("static", static)):
        found[name] |= {
            "parameters": sum(ours.parameter_counts().values()),
            "elements": recall.state_elements(ours)["state"],
        }
    shown = {"models": found, "step_tokens": t.batch * window, "valid_tokens": t.eval_tokens}
    return shown | scored(options, kept, brain, static, models)


def scored(
    options: argparse.Namespace,
    kept: runs_of.Kept,
    brain: Brain,
    static: Brain,
    models: dict[str, peers.MemoryTransformer],
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
        "static": lambda ids: brain_nats(static, "off", ids),
    }
    for kind, model in models.items():
        readers[kind] = lambda ids, model=model: training.surprises(model, np.array([ids]))[0]
    nats = {
        name: kept.once(f"test-{name}", lambda read=read: by_article(read(stream))) for name, read in readers.items()
    }
    protocol = repeat.Protocol(samples=options.samples)
    places, rows = repeat.samples(brain, raw, True, protocol), {}
    if options.hold:
        holds = training.grown(models["xl"], protocol.sample_tokens + protocol.length, 0)
        readers["xl that holds the sample"] = lambda ids: training.surprises(holds, np.array([ids]), 512)[0]
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
        "static": {kind: test_row(nats["static"], words, nats[kind]) for kind in models},
        "repeat": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with wikitext-2/")
    parser.add_argument("--out", type=Path, required=True, help="folder of finished pieces")
    parser.add_argument("--only", choices=("text", "mqar"))
    parser.add_argument("--size", choices=list(TEXTS), default="small", help="of the models that learn from text")
    parser.add_argument("--steps", type=int, default=976, help="of text: 2,048 tokens each of small, 1,024 of micro")
    parser.add_argument("--documents", type=int, help="articles to learn from, the first; all without it")
    parser.add_argument("--mqar-steps", type=int, default=320, help="of 16 examples")
    parser.add_argument("--mqar-brain", type=Path, help="a finished run of the preset (benchmarks/recall.py --out)")
    parser.add_argument("--trial", type=float, default=0.25, help="share of the steps after which one rate goes on")
    parser.add_argument("--articles", type=int, help="of the test text; all without it")
    parser.add_argument("--samples", type=int, default=5, help="passages that come again")
    parser.add_argument(
        "--hold", action="store_true", help="also a Transformer-XL whose memory reaches the first showing"
    )
    parser.add_argument("--rows", type=int, default=128, help="of each point of MQAR")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--page", type=Path, help="a page whose tables to write")
    options = parser.parse_args()
    torch.set_num_threads(1)

    def half(name: str, keys: tuple[str, ...]) -> runs_of.Kept:
        settings = {key: getattr(options, key) for key in (*keys, "trial", "seed")}
        record.update(settings)
        return runs_of.Kept(options.out, name, settings)

    record: dict[str, Any] = {"benchmark": "transformer_peers", "machine": _machine.describe()}
    if options.only != "mqar":
        record["text"] = on_text(options, half("text", ("size", "steps", "documents", "articles", "samples")))
    if options.only != "text":
        record["mqar"] = _peer_recall.on_mqar(options, half("mqar", ("mqar_steps", "rows")))
    if options.page:
        _peer_page.write(options.page, _peer_page.tables(record))
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
