"""Law: the C99 runner says what its numpy reference says, to the bit, over tokens, commits, cut spans and a reset; and the
reference says what torch says, within what int8 costs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export.c import board, emit, package, parity
from export.c.package import SOURCES, activation_bytes
from export.c.quantized import Quantized, quantize
from export.c.reference import Reference
from neuro.brain import Brain

KINDS = {
    "as the preset tiny": [],
    "spiking only": ["cortex.feedforwards=spiking,spiking"],
    "dense only": ["cortex.feedforwards=dense,dense"],
    "recurrence only": ["cortex.mixers=recurrence,recurrence", "cortex.feedforwards=spiking,spiking"],
    "two windows and odd widths": ["cortex.mixers=window,window", "cortex.feedforward_width=43", "cortex.window=5"],
    "few writes": ["hippocampus.writes_per_span=3", "hippocampus.slots=5", "hippocampus.top_k=2"],
    "odd place cells": ["hippocampus.place_cells=37"],
    "a hormone at rest": ["endocrine.off=serotonin"],
}
SPAN = 16  # of the preset tiny
needs_compiler = pytest.mark.skipif(board.missing(board.HOST) is not None, reason="no make and C compiler here")


@pytest.fixture(params=list(KINDS), ids=lambda name: name.replace(" ", "_"))
def brain(request, tiny_brain) -> Brain:
    return tiny_brain(KINDS[request.param]).eval()


def write(model: Quantized, out: Path) -> Path:
    out.mkdir()
    for source in SOURCES.iterdir():
        (out / source.name).write_bytes(source.read_bytes())
    (out / "neuro_model.h").write_text(emit.header(model))
    (out / "neuro_model.c").write_text(emit.source(model))
    return out


def script(model: Quantized) -> tuple[np.ndarray, np.ndarray]:
    """Orders with a full span, a span cut short, more tokens than slots or window hold, and a new life -> what they give."""
    random, reference, vocab = np.random.default_rng(0), Reference(model), model.config.vocab_size
    orders, expected = [], []

    def memories() -> None:
        orders.append(board.MEMORIES)
        expected.append(reference.state["modulators"].copy())
        if model.memory:
            expected.extend([reference.state["fast"].ravel().copy(), reference.state["strengths"].copy()])

    for part in (SPAN, 5, 2 * SPAN + 3, board.RESET, 7):
        if part == board.RESET:
            orders.append(part)
            reference.reset()
            continue
        # Few different tokens, so that keys come again.
        for token in random.integers(0, min(vocab, 12), part).tolist():
            orders += [token, board.LOGITS]
            expected.append(reference.step(token))
            if reference.clock == SPAN:
                reference.commit()
        orders.append(board.COMMIT)
        reference.commit()
        memories()
    return np.array(orders, np.int16), np.concatenate(expected)


@needs_compiler
def test_the_program_of_this_computer_equals_the_reference_to_the_bit(brain, tmp_path):
    model = quantize(brain)
    orders, expected = script(model)
    outcome = board.run(write(model, tmp_path / "c"), board.HOST, tmp_path / "work", orders)
    assert np.array_equal(outcome.output, expected)
    assert np.abs(expected).max() > 0 and np.isfinite(expected).all()
    assert outcome.report["state_bytes"] == sum(emit.state_bytes(model).values())
    assert outcome.report["activation_bytes"] == activation_bytes(model, input_bytes=1)


@needs_compiler
def test_without_memory_it_equals_the_reference_too_and_is_smaller(tiny_brain, tmp_path):
    brain = tiny_brain([])
    model = quantize(brain, memory=False)
    orders, expected = script(model)
    outcome = board.run(write(model, tmp_path / "c"), board.HOST, tmp_path / "work", orders)
    assert np.array_equal(outcome.output, expected)
    whole = quantize(brain)
    assert sum(emit.state_bytes(model).values()) < sum(emit.state_bytes(whole).values())
    assert sum(emit.weight_bytes(model).values()) < sum(emit.weight_bytes(whole).values())
    assert model.parameters < whole.parameters


@pytest.mark.parametrize("core", list(board.TARGETS))
def test_the_program_of_a_board_equals_the_reference_to_the_bit(core, tiny_brain, tmp_path):
    tool = board.missing(core)
    if tool:
        pytest.skip(f"no {tool} here")
    model = quantize(tiny_brain(KINDS["odd place cells"]))
    orders, expected = script(model)
    outcome = board.run(write(model, tmp_path / "c"), core, tmp_path / "work", orders)
    assert np.array_equal(outcome.output, expected)
    assert outcome.report["activation_bytes"] == activation_bytes(model, 1 if core == "cortex-m55" else 2)
    assert 0 < outcome.report["stack_bytes"] < package.STACK_BYTES
    assert outcome.report["step_instructions"] > outcome.report["steps"] * 1000


def test_the_reference_says_what_torch_says(brain, measured):
    found, _, _ = parity.measure(brain, quantize(brain), np.random.default_rng(1).integers(0, 40, 3 * SPAN).tolist())
    measured("divergence", found["divergence"])
    measured("spike mismatch", found["spike_mismatch"])
    assert found["commits"] == 3
    assert found["divergence"] < 0.01 and abs(found["nats"] - found["torch_nats"]) < 0.05
    assert found["spike_mismatch"] < 0.02


def test_the_reference_without_memory_is_torch_without_memory(tiny_brain):
    whole = tiny_brain([])
    plain, tokens = parity.without_memory(whole), np.random.default_rng(2).integers(0, 40, 2 * SPAN).tolist()
    assert "hippocampus" not in plain.regions and not plain.config.fast_rank
    found, _, _ = parity.measure(plain, quantize(whole, memory=False), tokens)
    assert found["divergence"] < 0.01


def test_a_hormone_at_rest_stays_there_to_the_bit(tiny_brain):
    reference = Reference(quantize(tiny_brain(KINDS["a hormone at rest"])))
    for token in range(20, 20 + SPAN):
        reference.step(token)
    reference.commit()
    assert (reference.state["modulators"] == 0.5).tolist() == [False, False, False, True, False]


def test_a_commit_is_what_learns(tiny_brain):
    reference = Reference(quantize(tiny_brain([])))
    for token in range(20, 30):
        reference.step(token)
    assert not reference.state["fast"].any() and not reference.state["strengths"].any()
    reference.commit()
    assert (
        reference.state["fast"].any() and (reference.state["strengths"] > 0).sum() == 9
    )  # the first has no key before it
    before = {name: np.copy(value) for name, value in reference.state.items()}
    reference.commit()  # of no tokens
    assert all(np.array_equal(before[name], value) for name, value in reference.state.items())


def test_a_product_never_leaves_int32(tiny_brain):
    for vocab in (300, 9000):
        model = quantize(tiny_brain([f"vocab_size={vocab}"]))
        assert 127 * model.mix_levels * vocab < 2**31
        assert model.mix_levels >= 1000
