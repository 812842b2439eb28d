"""The model that ships for microcontrollers: small enough, every memory on, and it remembers in C as it does in torch."""

from __future__ import annotations

import numpy as np
import pytest

import neuro
from export.c import board, emit, package
from export.c.quantized import Quantized, quantize
from neuro import folder, presets, tasks
from neuro.brain import Brain
from neuro.evaluate import recall

BUDGET = {"flash of a parameter": 1.5, "RAM": 64 * 1024, "activations": 8 * 1024}


@pytest.fixture(scope="module")
def brain() -> Brain:
    return neuro.load("micro", "cpu")


@pytest.fixture(scope="module")
def model(brain) -> Quantized:
    return quantize(brain)


def test_it_is_the_preset_with_every_part_on_in_less_than_a_megabyte(brain):
    assert brain.config == presets.micro().brain
    assert 125_000 <= sum(p.numel() for p in brain.parameters()) <= 140_000
    assert {"thalamus", "amygdala", "endocrine", "cortex", "hippocampus", "readout"} == set(brain.regions)
    assert brain.config.fast_rank > 0 and brain.config.hippocampus.slots >= 64
    assert brain.config.cortex.window <= 32 and set(brain.config.cortex.feedforwards) == {"spiking"}
    files = {path.name: path for path in folder.locate("micro").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md", "LICENSE"} == set(files)
    assert sum(path.stat().st_size for path in files.values()) < 600_000


def test_it_fits_its_budget_term_by_term(model, measured):
    flash = sum(emit.weight_bytes(model).values()) + package.CODE_BYTES
    activations = package.activation_bytes(model)
    ram = sum(emit.state_bytes(model).values()) + activations + package.STACK_BYTES
    for name, value in {
        "flash of a parameter": flash / model.parameters,
        "RAM": ram,
        "activations": activations,
    }.items():
        measured(name, value)
        assert value <= BUDGET[name]


def test_it_recalls_in_c_what_it_recalls_in_torch_and_nothing_without_memory(brain, model, tmp_path, measured):
    if board.missing(board.HOST):
        pytest.skip("no make and C compiler here")
    for source in (emit.header(model), emit.source(model)):
        (tmp_path / ("neuro_model.h" if "#ifndef NEURO_MODEL_H" in source else "neuro_model.c")).write_text(source)
    for path in package.SOURCES.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    task = tasks.parse("task:delayed:pairs=8,delay=80", brain.config.vocab_size)[0]
    rows = task.rows(np.random.default_rng(11), 60, brain.config.vocab_size)
    orders = []
    for tokens, scored in zip(rows.tokens.tolist(), rows.scored.tolist(), strict=True):
        orders.append(board.RESET)
        for token, asked in zip(tokens, [*scored[1:], False], strict=True):
            orders += [token, board.LOGITS] if asked else [token]
    outcome = board.run(tmp_path, board.HOST, tmp_path / "work", np.array(orders, np.int16))
    said = outcome.output.reshape(-1, brain.config.vocab_size).argmax(1)
    in_c = float((said == rows.tokens[rows.scored]).mean())
    in_torch = float(recall.answer(brain, rows).right.float().mean())
    without = float(recall.answer(brain, rows, "off").right.float().mean())
    for name, value in (("in C", in_c), ("in torch", in_torch), ("in torch, memory emptied", without)):
        measured(name, value)
    assert in_torch >= 0.85 and without <= 0.1
    assert abs(in_c - in_torch) <= 0.02
