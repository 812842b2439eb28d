"""Named starting points: functions that return a whole `RunConfig`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from neuro.config import (
    AmygdalaConfig,
    BrainConfig,
    CortexConfig,
    DataConfig,
    HippocampusConfig,
    ProceduralConfig,
    RunConfig,
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


def wikitext2_word() -> RunConfig:
    """The closed vocabulary of the published WikiText-2 protocol (33,278 types); never what `run` loads."""
    base = small()
    brain = dataclasses.replace(base.brain, vocab_size=33_278)
    return dataclasses.replace(base, brain=brain, data=DataConfig(tokenizer="words"))


def gpt2_size() -> RunConfig:
    """Width, depth, heads and vocabulary of GPT-2 124M: what decode speed is measured on. No such brain is trained."""
    layers = 12
    cortex = CortexConfig(
        mixers=("recurrence", "window") * (layers // 2),
        feedforwards=("spiking", "spiking", "dense", "spiking") * (layers // 4),
        heads=12,
        feedforward_width=3072,
    )
    return RunConfig(BrainConfig(vocab_size=50_257, d_model=768, cortex=cortex))


PRESETS: dict[str, Callable[[], RunConfig]] = {
    "small": small,
    "tiny": tiny,
    "wikitext2-word": wikitext2_word,
    "gpt2-size": gpt2_size,
}
