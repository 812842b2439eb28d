"""What does it cost a cortex to read spikes alone? The preset ``spiking`` and its dense twin, trained alike on WikiText-2.

    python benchmarks/spiking_cortex.py --data $NEURO_DATA --out DIR --seed 0

Both have the same shape, seed, data, steps and, but for the thresholds, parameters; the twin's mixers read values and its
feed-forwards are dense and gated. No hippocampus and no procedural memory: it is the cortex that is compared. A byte BPE of
the training split; every split as natural English (`benchmarks/prepare_corpus.py`), in 16 streams, all tokens scored. Word
perplexity is over the words of the file, one <eos> a line included; token perplexity depends on the vocabulary.

spikes_per_synapse: sum of spikes x fan-out over tokens x weights (`neuro.accounting`), on the test split. break_even: spikes
per synapse at which the populations cost on the chip what a dense layer would cost there at least, that is one synaptic
operation per weight, one message per input and the same targets. An arm that was trained is not trained again, one that was
interrupted goes on. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import resource
import sys
from pathlib import Path
from typing import Any

import _machine
import numpy as np
import prepare_corpus
import torch

from neuro import accounting, corpus, presets
from neuro.brain import Brain
from neuro.config import RunConfig, apply_sets
from neuro.evaluate.stream import evaluating
from neuro.text import read_text
from neuro.tokenizer import Tokenizer
from neuro.train import loop
from neuro.workload import Workload
from sims.energy import sides

ARMS = {"spikes": "spiking", "dense": "dense"}  # feed-forward of each
# Each the best on valid of those tried: 4e-3, 8e-3, 1.6e-2 for the dense arm, 8e-3 and 1.2e-2 for the spikes.
RATES = {"spikes": 1.2e-2, "dense": 8e-3}
SPLITS = ("valid", "test")
ROWS = 16


def documents(data: Path, out: Path, vocab: int) -> dict[str, int]:
    """Write each split's articles and the tokenizer into ``out``, once -> words of each split, an <eos> a line included."""
    words = {}
    for split in ("train", *SPLITS):
        path = data / "wikitext-2" / f"{split}.txt.gz"
        raw = read_text(path)
        words[split] = len(raw.split()) + raw.count("\n")
        if not (out / split).exists():
            prepare_corpus.write_documents(out / split, prepare_corpus.wikitext(path)[0])
    if not (out / "tokenizer.json").exists():
        lines = (line + "\n" for text in corpus.read_documents(str(out / "train")) for line in text.split("\n"))
        Tokenizer.train(lines, vocab).save(out / "tokenizer.json")
    return words


def configured(options: argparse.Namespace, arm: str) -> RunConfig:
    sets = [
        "brain.hippocampus.enabled=false",
        f"brain.d_model={options.width}",
        f"brain.cortex.feedforward_width={options.feedforward_width or 4 * options.width}",
        f"brain.cortex.mixers={','.join(['recurrence'] * options.layers)}",
        f"brain.cortex.feedforwards={','.join([ARMS[arm]] * options.layers)}",
        f"brain.cortex.encoding={arm}",
        f"brain.cortex.rate_target={options.rate_target}",
        f"train.batch={options.batch}",
        f"train.warmup_steps={options.steps // 10}",
        f"data.train={options.out / 'train'}",
        f"data.valid={options.out / 'valid'}",
        f"data.tokenizer={options.out / 'tokenizer.json'}",
        f"train.steps={options.steps}",
        f"train.seed={options.seed}",
        f"train.learning_rate={getattr(options, f'{arm}_learning_rate')}",
        f"train.optimizer={getattr(options, f'{arm}_optimizer')}",
        f"train.eval_every={max(1, options.steps // 4)}",
        "train.spans_per_step=2",
        "train.rehearsal=0",
    ]
    return apply_sets(presets.PRESETS["spiking"](), sets)


def scored(brain: Brain, ids: np.ndarray) -> tuple[float, int, accounting.Tally]:
    """Nats of every token but the first of each of `ROWS` streams, how many those are, and what was counted."""
    rows = torch.from_numpy(ids[: len(ids) // ROWS * ROWS].astype(np.int64)).reshape(ROWS, -1)
    tally, state, nats, count = accounting.Tally(brain), brain.init_state(ROWS), 0.0, 0
    with evaluating(brain), torch.no_grad():
        for span in rows.split(brain.config.plasticity_span, 1):
            out = brain.scan(span, state)
            nats, count = nats + float(out.aux.surprise.double().sum()), count + int(out.aux.predicted.sum())
            state, commit = brain.commit(out.state)
            tally.span([out.events], commit)
    return nats, count, tally


def break_even(brain: Brain, load: Workload) -> float:
    """Spikes per synapse at which the chip's price of the spikes is that of a dense layer on the same chip."""
    full = []
    for p, emitter in zip(load.populations, accounting.emitters(brain), strict=True):
        spikes = emitter.channels * load.tokens
        full.append(dataclasses.replace(p, spikes=spikes, synaptic_ops=spikes * p.fan_out))
    phase = dataclasses.replace(load.phases[0], populations=tuple(full))
    chip = sides.on_chip(dataclasses.replace(load, phases=(phase,)), "loihi1", 0)
    assert chip.priced is not None and chip.placement.fits
    kinds = chip.priced.by_kind
    events = sum(kinds[kind].median for kind in ("synaptic_op", "spike", "message"))
    updates = sum(term.count for term in chip.terms[phase.name] if term.kind == "neuron_update")
    own = sum(p.updates for p in load.populations) / updates * kinds["neuron_update"].median
    return 1.0 - own / events


def measure(options: argparse.Namespace, arm: str, words: dict[str, int]) -> dict[str, Any]:
    place = options.out / f"{arm}-{options.seed}"
    run = configured(options, arm)
    brain = loop.train(run, place, "cpu")
    row: dict[str, Any] = {"parameters": sum(brain.parameter_counts().values())}
    row["cortex_parameters"] = brain.parameter_counts()["cortex"]
    row["train_tokens"] = options.steps * run.train.batch * run.train.spans_per_step * brain.config.plasticity_span
    for split in SPLITS:
        ids = corpus.encode(corpus.read_documents(str(options.out / split)), brain.tokenizer)
        nats, count, tally = scored(brain, ids)
        per_word = nats / count * len(ids) / words[split]
        row[split] = {
            "tokens": count,
            "nats_per_token": nats / count,
            "token_perplexity": math.exp(nats / count),
            "word_perplexity": math.exp(per_word),
        }
    load = accounting.workload(brain, tally, f"spiking_cortex {arm}", (1.0, 0.0))
    if load.populations:
        row["spikes_per_synapse"] = accounting.spikes_per_synapse(load)
        row["break_even"] = break_even(brain, load)
        row["break_even_margin"] = row["break_even"] / row["spikes_per_synapse"]
        row["spikes_per_neuron"] = {p.name: p.spikes / (p.neurons * load.tokens) for p in load.populations}
    macs = {signal: 0 for signal in ("dense", "binary")}
    for operation in load.operations:
        if operation.region == "cortex" and operation.kind == "mac":
            macs[operation.signal] += operation.count
    row["cortex_macs_per_token"] = {signal: round(count / load.tokens, 1) for signal, count in macs.items()}
    row["updates_per_token"] = sum(p.updates for p in load.populations) / load.tokens
    row["products_with_zero"] = products_with_zero(brain, ids)
    return row


def products_with_zero(brain: Brain, ids: np.ndarray) -> float:
    """Share of the cortex's products whose input rounds to 0 in int8, scaled by the largest of its token."""
    zeros, every = [0], [0]

    def look(module: torch.nn.Linear, inputs: tuple[torch.Tensor, ...]) -> None:
        x = inputs[0]
        step = x.abs().amax(-1, keepdim=True).clamp_min(1e-30) / 127
        zeros[0] += int((x.abs() < step / 2).sum()) * module.out_features
        every[0] += x.numel() * module.out_features

    linear = [m for m in brain.regions["cortex"].modules() if isinstance(m, torch.nn.Linear) and m.in_features > 8]
    handles = [module.register_forward_pre_hook(look) for module in linear]
    scored(brain, ids[: ROWS * 4 * brain.config.plasticity_span])
    for handle in handles:
        handle.remove()
    return zeros[0] / every[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with wikitext-2/")
    parser.add_argument("--out", type=Path, required=True, help="for the corpus and the runs; the place to resume from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--feedforward-width", type=int, default=0, help="neurons; 0: four times the width")
    parser.add_argument("--vocab", type=int, default=2048)
    parser.add_argument("--rate-target", type=float, default=0.137, help="spikes per synapse that the budget aims at")
    for arm, rate in RATES.items():
        parser.add_argument(f"--{arm}-learning-rate", type=float, default=rate)
        parser.add_argument(f"--{arm}-optimizer", choices=("adamw", "muon"), default="adamw")
    options = parser.parse_args()
    torch.set_num_threads(1)
    words = documents(options.data, options.out, options.vocab)
    arms = {}
    for arm in ARMS:
        arms[arm] = measure(options, arm, words)
        print(f"{arm}: test word perplexity {arms[arm]['test']['word_perplexity']:.1f}", file=sys.stderr)
    ratios = {
        f"{split}_{kind}": arms["spikes"][split][kind] / arms["dense"][split][kind]
        for split in SPLITS
        for kind in ("word_perplexity", "token_perplexity")
    }
    settings = {name: value for name, value in vars(options).items() if name not in ("data", "out")}
    record = {
        "benchmark": "spiking_cortex",
        "machine": _machine.describe(),
        "settings": settings,
        "arms": arms,
        "spikes_over_dense": ratios,
        "cpu_seconds": round(resource.getrusage(resource.RUSAGE_SELF).ru_utime, 1),
    }
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
