"""Named starting points: functions that return a whole `RunConfig`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from neuro.config import (
    AmygdalaConfig,
    BrainConfig,
    CortexConfig,
    DataConfig,
    EndocrineConfig,
    HippocampusConfig,
    ProceduralConfig,
    RunConfig,
    ThalamusConfig,
    TrainConfig,
)


def small() -> RunConfig:
    """The brain that ships: 4 layers of width 256, trained on a CPU in about an hour."""
    return RunConfig()


def tiny() -> RunConfig:
    """A brain for tests and first tries: every part on, a few thousand parameters, learns in seconds."""
    brain = BrainConfig(
        vocab_size=300,
        d_model=32,
        plasticity_span=16,
        amygdala=AmygdalaConfig(hidden=8),
        cortex=CortexConfig(
            mixers=("recurrence", "window"),
            feedforwards=("spiking", "dense"),
            heads=2,
            window=8,
            feedforward_width=48,
        ),
        hippocampus=HippocampusConfig(
            place_cells=64, sparsity=0.1, key_width=16, slots=32, top_k=4, writes_per_span=16
        ),
        procedural=ProceduralConfig(rank=4),
    )
    train = TrainConfig(steps=60, batch=4, spans_per_step=2, warmup_steps=10, eval_every=30, eval_tokens=512)
    return RunConfig(brain, DataConfig(), train)


def micro() -> RunConfig:
    """About 130,000 parameters with every part and memory on: what fits a microcontroller (`export.c`).

    ``benchmarks/train_micro.py`` trains it, on a text and on recall in turns.
    """
    brain = BrainConfig(
        vocab_size=320,
        d_model=64,
        plasticity_span=16,
        amygdala=AmygdalaConfig(hidden=16),
        cortex=CortexConfig(
            mixers=("recurrence", "window"),
            feedforwards=("spiking", "spiking"),
            heads=4,
            window=32,
            feedforward_width=208,
        ),
        hippocampus=HippocampusConfig(
            place_cells=96,
            sparsity=0.1,
            key_width=16,
            slots=128,
            top_k=4,
            writes_per_span=16,
            half_life_tokens=16_384.0,
        ),
        procedural=ProceduralConfig(rank=8),
    )
    train = TrainConfig(steps=2400, batch=16, learning_rate=5e-3, warmup_steps=100, eval_every=400, eval_tokens=8192)
    return RunConfig(brain, DataConfig(), train)


def ablation() -> RunConfig:
    """About 1.05 million parameters with every part on, trained in a minute: what `neuro eval --suite ablation` is for.

    The memory may write every token, and the window is one span long.
    """
    brain = BrainConfig(
        vocab_size=2048,
        d_model=128,
        plasticity_span=32,
        cortex=CortexConfig(window=32, feedforward_width=384),
        hippocampus=HippocampusConfig(
            place_cells=256, sparsity=0.05, key_width=32, slots=4096, top_k=8, writes_per_span=32
        ),
        procedural=ProceduralConfig(rank=16),
    )
    train = TrainConfig(
        steps=200,
        batch=16,
        spans_per_step=2,
        learning_rate=4e-3,
        warmup_steps=20,
        eval_every=200,
        eval_tokens=4096,
    )
    return RunConfig(brain, DataConfig(), train)


def wikitext2_word() -> RunConfig:
    """The closed vocabulary of the published WikiText-2 protocol (33,278 types); never what `run` loads.

    Under 12 million parameters, trained without its memories first (``--set brain.hippocampus.enabled=false --set
    brain.procedural.enabled=false``); then from there the memories alone (``train.init``, ``train.only``), so that the model
    without them is one that was trained without them (docs/training.md). The regions that helped no task are off, and so are
    spikes: the published numbers that it stands beside have none.
    """
    base = small()
    cortex = dataclasses.replace(base.brain.cortex, feedforwards=("dense",) * 4, feedforward_width=832)
    brain = dataclasses.replace(
        base.brain,
        vocab_size=33_278,
        cortex=cortex,
        thalamus=ThalamusConfig(enabled=False),
        amygdala=AmygdalaConfig(enabled=False),
        endocrine=EndocrineConfig(enabled=False),
    )
    train = TrainConfig(
        steps=2700,
        optimizer="muon",
        learning_rate=6e-3,
        final_share=0.02,
        sampled=2048,
        spelling=2800,
        dropout=0.15,
        embedding_dropout=0.1,
        rehearsal=0.0,
        eval_every=450,
        eval_tokens=16_384,
    )
    return RunConfig(brain, DataConfig(tokenizer="words"), train)


def mqar() -> RunConfig:
    """Multi-query associative recall, the mixture of Based (arXiv:2402.18668): two dense layers and an episodic memory.

    The span is 8, so that pairs are in memory before the first question. 256 slots hold what the longest row of training
    says; longer rows want more (``neuro.load(model, sets=["brain.hippocampus.slots=512"])``: the weights do not change).
    """
    parts = ("T=64,pairs=4,weight=5", "T=128,pairs=8", "T=256,pairs=16", "T=256,pairs=32", "T=256,pairs=64")
    return _recalling(
        vocab_size=8192,
        span=8,
        window=16,
        slots=256,
        train="task:" + "+".join(f"mqar:{part}" for part in parts),
        learning=TrainConfig(
            steps=320, batch=16, learning_rate=1e-2, warmup_steps=50, eval_every=100, eval_tokens=16384
        ),
    )


def delayed() -> RunConfig:
    """Recall far beyond a window of 256, and the newest of many bindings: trained within a few hundred tokens.

    With ``rebind`` the store needs a slot for every token there is, not for every token that came.
    """
    parts = [f"delayed:pairs={pairs},delay={delay}" for pairs, delay in ((4, 16), (8, 64), (8, 300))]
    parts += ["rebinding:pairs=8", "rebinding:pairs=16", "overwriting:pairs=4,bindings=8"]
    return _recalling(
        vocab_size=512,
        span=16,
        window=256,
        slots=512,
        train="task:" + "+".join(parts),
        learning=TrainConfig(
            steps=400, batch=16, learning_rate=1e-2, warmup_steps=50, eval_every=100, eval_tokens=16384
        ),
    )


def _recalling(vocab_size: int, span: int, window: int, slots: int, train: str, learning: TrainConfig) -> RunConfig:
    """A small brain of two dense window layers and an episodic memory; what the tasks do not need is off."""
    brain = BrainConfig(
        vocab_size=vocab_size,
        d_model=32,
        plasticity_span=span,
        thalamus=ThalamusConfig(enabled=False),
        endocrine=EndocrineConfig(enabled=False),
        cortex=CortexConfig(
            mixers=("window", "window"),
            feedforwards=("dense", "dense"),
            heads=2,
            window=window,
            feedforward_width=96,
        ),
        hippocampus=HippocampusConfig(
            place_cells=128,
            sparsity=0.1,
            key_width=16,
            slots=slots,
            top_k=4,
            writes_per_span=span,
            half_life_tokens=262_144.0,
            rebind=True,
        ),
        procedural=ProceduralConfig(enabled=False),
    )
    return RunConfig(brain, DataConfig(train=train), learning)


def gpt2_size() -> RunConfig:
    """Width, depth, heads and vocabulary of GPT-2 124M: what decode speed is measured on. No such brain is trained.

    Without a procedural memory: its teaching signal reads the vocabulary matrix, a third of all weights, once more a token.
    """
    layers = 12
    cortex = CortexConfig(
        mixers=("recurrence", "window") * (layers // 2),
        feedforwards=("spiking", "spiking", "dense", "spiking") * (layers // 4),
        heads=12,
        feedforward_width=3072,
    )
    brain = BrainConfig(
        vocab_size=50_257,
        d_model=768,
        cortex=cortex,
        hippocampus=HippocampusConfig(slots=1024),
        procedural=ProceduralConfig(enabled=False),
    )
    return RunConfig(brain)


def spiking() -> RunConfig:
    """A cortex whose every product reads spikes: recurrence mixers, LIF feed-forwards, neurons before each projection.

    Its dense twin, of the same shape and but for the thresholds of the same size, is this with
    ``--set brain.cortex.encoding=dense --set brain.cortex.feedforwards=dense,dense,dense,dense``.
    """
    base = small()
    cortex = CortexConfig(
        mixers=("recurrence",) * 4,
        feedforwards=("spiking",) * 4,
        encoding="spikes",
        burst=8,
        surrogate_slope=3.0,
        rate_target=0.137,
    )
    brain = dataclasses.replace(base.brain, cortex=cortex, procedural=ProceduralConfig(enabled=False))
    return dataclasses.replace(base, brain=brain, train=TrainConfig(spike_anneal=0.9))


PRESETS: dict[str, Callable[[], RunConfig]] = {
    "small": small,
    "tiny": tiny,
    "micro": micro,
    "ablation": ablation,
    "wikitext2-word": wikitext2_word,
    "mqar": mqar,
    "delayed": delayed,
    "gpt2-size": gpt2_size,
    "spiking": spiking,
}
