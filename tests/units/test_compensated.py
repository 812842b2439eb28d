"""Rounding that knows its inputs: never worse on them, the same twice, and nothing where there is nothing to make good."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from export import onnx_graph, quantize
from export.quantize import blocks, compensated, weights

SIZES = ["d_model=64", "vocab_size=300", "cortex.feedforward_width=128", "hippocampus.place_cells=64"]
MOST = 15


def fed(outputs: int, inputs: int, tokens: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A matrix [N,K], and the moments [K,K] of inputs that go together."""
    random = np.random.default_rng(seed)
    mixed = random.standard_normal((tokens, inputs)) @ random.standard_normal((inputs, inputs))
    return random.standard_normal((outputs, inputs)).astype(np.float32), mixed.T @ mixed / tokens


def losses(matrix: np.ndarray, moment: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What plain and compensated rounding cost each output."""
    plain = blocks.rounded(matrix)
    better = (compensated.compensated(matrix, plain, moment, MOST), *plain[1:])
    return tuple(compensated.loss(blocks.read(parts, matrix.shape[1]) - matrix, moment) for parts in (plain, better))


@pytest.mark.parametrize(("inputs", "tokens"), [(64, 500), (70, 500), (130, 40), (32, 1)])
def test_no_output_is_worse_than_by_plain_rounding_and_the_whole_is_better(inputs, tokens):
    """An unfilled block, more inputs than tokens and a single token among them."""
    plain, better = losses(*fed(24, inputs, tokens))
    assert np.all(better <= plain) and better.sum() < 0.8 * plain.sum()


def test_inputs_that_do_not_go_together_have_nothing_to_make_good():
    matrix, _ = fed(8, 70, 1)
    plain = blocks.rounded(matrix)
    levels = compensated.compensated(matrix, plain, np.diag(np.linspace(1.0, 2.0, 70)), MOST)
    assert np.array_equal(levels, plain[0])


@pytest.mark.parametrize("silent", [False, True])
def test_a_matrix_of_its_own_levels_stays_itself(silent):
    """Where plain rounding loses nothing, and where the text moves no input at all."""
    matrix, moment = fed(8, 70, 500)
    matrix = matrix if silent else blocks.read(blocks.rounded(matrix), matrix.shape[1])
    plain = blocks.rounded(matrix)
    levels = compensated.compensated(matrix, plain, 0.0 * moment if silent else moment, MOST)
    assert np.array_equal(levels, plain[0])


def test_levels_stay_levels_and_the_filling_stays_zero():
    matrix, moment = fed(6, 70, 500)
    plain = blocks.rounded(matrix)
    levels = compensated.compensated(matrix, plain, 1e4 * moment, MOST)
    assert levels.dtype == np.uint8 and levels.shape == plain[0].shape and levels.max() <= MOST
    assert np.array_equal(levels[:, 2, 6:], plain[0][:, 2, 6:])
    assert not np.array_equal(levels, plain[0])


def test_loss_is_the_mean_square_of_what_a_product_misses():
    random = np.random.default_rng(3)
    rows, apart = random.standard_normal((50, 12)), random.standard_normal((5, 12))
    found = compensated.loss(apart, rows.T @ rows / 50)
    assert np.allclose(found, np.square(rows @ apart.T).mean(0))
    assert compensated.error_of(2 * apart, apart, rows.T @ rows) == pytest.approx(1.0)


@pytest.fixture(scope="module")
def graph(tiny_brain, tmp_path_factory, traced_once) -> tuple[Path, list[quantize.Feed]]:
    """A step graph, and what it is given over a text."""
    brain, folder = tiny_brain(SIZES), tmp_path_factory.mktemp("graphs")
    onnx_graph.write(brain, {name: folder / f"{name}.onnx" for name in ("step", "commit")})
    ids = torch.randint(0, 280, (96,), generator=torch.Generator().manual_seed(1)).numpy()
    return folder / "step.onnx", list(quantize.feeds(brain, ids))


def test_moments_are_those_of_every_token(graph):
    step, calibration = graph
    model = onnx.load(step)
    names = sorted({node.input[0] for node in weights.thick_products(model)})[:2]
    found, tokens = compensated.moments(model, names, calibration)
    assert tokens == len(calibration) == 96
    rows = [values for values in compensated.activations(model, names, calibration)]
    for index, name in enumerate(names):
        seen = np.concatenate([row[index].reshape(-1, row[index].shape[-1]) for row in rows]).astype(np.float64)
        assert np.allclose(found[name], seen.T @ seen / 96, rtol=1e-4, atol=1e-6)
    assert compensated.moments(model, names, []) == ({}, 0)


def test_a_calibrated_graph_is_as_large_loses_less_and_is_the_same_twice(graph, tmp_path):
    step, calibration = graph
    paths = [Path(shutil.copy(step, tmp_path / f"{index}.onnx")) for index in range(3)]
    records = [quantize.int4(path, given) for path, given in zip(paths, ((), calibration, calibration), strict=True)]
    plain, first, second = (path.read_bytes() for path in paths)
    assert len(plain) == len(first) and plain != first == second
    assert "calibration" not in records[0] and records[1] == records[2]
    told = records[1]["calibration"]
    assert told["tokens"] == 96
    assert 0 < told["mean_error_of_a_product"]["error-compensated"] < told["mean_error_of_a_product"]["plain"]
    changed = [
        tensor.name
        for tensor, other in zip(*(onnx.load(path).graph.initializer for path in paths[:2]), strict=True)
        if tensor.raw_data != other.raw_data
    ]
    assert changed and all(name.endswith("_q4") for name in changed), "scales, zeros and looked-up rows stay"
    assert f"{weights.TURNED}_q4" not in changed
