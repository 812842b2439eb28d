"""Law: training that knows of an export's rounding rounds as the export does, and ends where the export rounds nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import neuro
from export import onnx_graph, quantize
from export.onnx_graph import EMBEDDING
from export.quantize import weights
from neuro import folder, presets, rounding, tensor_file
from neuro.config import apply_sets
from neuro.errors import FormatError, UsageError
from neuro.tokenizer import Tokenizer
from neuro.train import loop
from neuro.train.quantized import Quantized, matrices

pytestmark = pytest.mark.usefixtures("traced_once")
SIZES = ["d_model=64", "cortex.feedforward_width=96", "hippocampus.place_cells=64", "procedural.rank=16"]
RECIPES = ("int4", "int8")


def restored(step: Path, recipe: str) -> list[np.ndarray]:
    """Every quantized matrix [N,K] of a step graph as it is multiplied with, the vocabulary's first in the order of sizes."""
    graph = onnx.load(step).graph
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    found = []
    if recipe == "int4":
        products = {node.input[1]: node for node in graph.node if node.op_type == "MatMulNBits"}
        for name, node in products.items():
            packed, scales, zeros = (held[part] for part in (name, node.input[2], node.input[3]))
            sizes = {attribute.name: attribute.i for attribute in node.attribute}
            levels = np.stack([packed & 15, packed >> 4], -1).reshape(*scales.shape, rounding.BLOCK)
            zeros = np.stack([zeros & 15, zeros >> 4], -1).reshape(len(zeros), -1)[:, : scales.shape[1]]
            found.append(rounding.read((levels, scales, zeros), sizes["K"]))
        return found
    for name, levels in held.items():
        if levels.dtype == np.uint8 and name.endswith("_quantized"):
            base = name.removesuffix("_quantized")
            scale = held[f"{weights.TURNED if base == EMBEDDING else base}_scale"].reshape(-1)
            numbers = levels.astype(np.float32) - 128
            found.append((numbers if base == EMBEDDING else numbers.T) * scale[:, None])
    return found


def exported(brain, path: Path, recipe: str) -> list[np.ndarray]:
    onnx_graph.write(brain, {"step": path, "commit": path.with_name("commit.onnx")})
    getattr(quantize, recipe)(path)
    return restored(path, recipe)


def apart(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """The largest difference over the largest value, each matrix with the nearest of its shape."""
    assert sorted(a.shape for a in found) == sorted(b.shape for b in expected)
    gaps, left = [], list(expected)
    for a in found:
        near = min(
            (i for i, b in enumerate(left) if b.shape == a.shape), key=lambda i: float(np.abs(a - left[i]).max())
        )
        b = left.pop(near)
        gaps.append(float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)))
    return max(gaps)


def values(brain) -> list[np.ndarray]:
    return [p.detach().numpy().copy() for p in matrices(brain).values()]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("more", [[], ["procedural.through_dense=true", "procedural.natural=true"]])
def test_every_matrix_that_the_export_rounds_is_rounded_so_and_no_other(recipe, more, tiny_brain, tmp_path):
    brain = tiny_brain([*SIZES, *more])
    found = exported(brain, tmp_path / "step.onnx", recipe)
    before = values(brain)
    Quantized(brain, recipe).settle()
    assert apart(found, values(brain)) < 1e-6
    assert apart(before, values(brain)) > 1e-3


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("inputs", [64, 70])
def test_what_lies_on_the_grid_stays(recipe, inputs):
    """Of random weights, and of those whose ends are half way between two levels now and then."""
    for seed in range(20):
        matrix = np.random.default_rng(seed).standard_normal((200, inputs)).astype(np.float32)
        for given in (matrix, matrix.astype(np.float16).astype(np.float32), np.round(matrix * 4) / 4):
            there = rounding.on_grid(given, recipe)
            assert np.array_equal(rounding.once(there, recipe), there)
            assert rounding.recipe_of(there) is not None
        assert rounding.recipe_of(matrix) is None


def test_rounded_once_is_not_always_on_the_grid():
    """Both ends half way between two levels go inwards: 15 of 16 levels are left, and the next rounding moves them."""
    blocks = np.round(np.random.default_rng(0).standard_normal((4000, 32)) * 4).astype(np.float32) / 4
    there = rounding.once(blocks, "int4")
    assert (rounding.once(there, "int4") != there).any()
    there = rounding.on_grid(blocks, "int4")
    assert np.array_equal(rounding.once(there, "int4"), there)


def test_a_gradient_is_that_of_the_rounded_weights_and_a_step_is_taken_by_the_others(tiny_brain):
    brain, twin = tiny_brain(SIZES), tiny_brain(SIZES)
    learned = {name: p.detach().clone() for name, p in brain.named_parameters()}
    ids = torch.arange(24).reshape(2, 12)
    with Quantized(brain, "int4").held():
        brain.scan(ids, brain.init_state(2)).aux.surprise.sum().backward()
    Quantized(twin, "int4").settle()
    twin.scan(ids, twin.init_state(2)).aux.surprise.sum().backward()
    own = dict(twin.named_parameters())
    for name, p in brain.named_parameters():
        assert torch.equal(p, learned[name])
        assert (p.grad is None) == (own[name].grad is None)
        assert p.grad is None or torch.equal(p.grad, own[name].grad), name


@pytest.fixture
def run(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("The keeper counted the boats, and the boats counted him; nobody counted the gulls. " * 60)
    sets = [f"brain.{item}" for item in SIZES] + [f"data.train={text}", "train.steps=4", "train.eval_tokens=64"]
    return apply_sets(presets.tiny(), sets)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_export_of_a_model_so_trained_rounds_nothing(recipe, run, tmp_path, traced_once):
    """Of the file it is saved in, too; and saved again it is the same."""
    made = loop.train(apply_sets(run, [f"train.quantize={recipe}", "train.eval_every=2"]), tmp_path / "run")
    brain = neuro.load(tmp_path / "run" / "model", "cpu")
    for name, p in matrices(brain).items():
        assert torch.equal(p, dict(made.named_parameters())[name]), name
    assert apart(exported(brain, tmp_path / "step.onnx", recipe), values(brain)) < 1e-6
    again = neuro.load(folder.save(brain, tmp_path / "again"), "cpu")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), brain.parameters(), strict=True))
    size = (tmp_path / "run" / "model" / "model.safetensors").stat().st_size
    matrix = sum(p.numel() for p in matrices(brain).values())
    assert size < 2 * sum(p.numel() for p in brain.parameters()) - (0.8 if recipe == "int8" else 1.2) * matrix
    start = apply_sets(run, [f"train.init={tmp_path / 'run' / 'model'}", "train.steps=0"])
    assert all(
        torch.equal(a, b)
        for a, b in zip(loop.train(start, tmp_path / "on").parameters(), brain.parameters(), strict=True)
    )


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_file_of_levels_without_their_scales_is_refused(recipe, tiny_brain, tmp_path):
    tokenizer = Tokenizer.train(["The keeper counted the boats, and the boats counted him. "] * 30, 280)
    brain = tiny_brain([*SIZES, f"vocab_size={tokenizer.vocab_size}"])
    brain.tokenizer = tokenizer
    Quantized(brain, recipe).settle()
    path = folder.save(brain, tmp_path / "model") / "model.safetensors"
    tensors, header = tensor_file.read(path, folder.SCHEMA)
    name = f"embedding.{recipe}"
    assert name in tensors and "embedding" not in tensors
    for broken in (
        {key: x for key, x in tensors.items() if key != "embedding.scales"},
        tensors | {"embedding.scales": tensors["embedding.scales"][:-1]},
        tensors | {name: tensors[name][:, :-1]},
    ):
        tensor_file.write(path, broken, header)
        with pytest.raises(FormatError, match="embedding"):
            folder.read_weights(path.parent) if "embedding.scales" not in broken else neuro.load(path.parent, "cpu")


def test_a_run_that_stopped_goes_on_from_the_weights_in_float(run, tmp_path):
    run = apply_sets(run, ["train.quantize=int4", "train.eval_every=2", "train.warmup_steps=0", "train.final_share=1"])
    whole = loop.train(run, tmp_path / "whole")
    loop.train(dataclasses.replace(run, train=dataclasses.replace(run.train, steps=2)), tmp_path / "cut")
    cut = loop.train(run, tmp_path / "cut")
    assert all(torch.equal(a, b) for a, b in zip(cut.parameters(), whole.parameters(), strict=True))


def test_shares_of_matrices_have_no_grid(run):
    with pytest.raises(UsageError, match=r"train\.quantize: got int4, expected none with train\.parallel=fsdp"):
        apply_sets(run, ["train.quantize=int4", "train.parallel=fsdp"])
    with pytest.raises(UsageError, match=r"train\.quantize: got int2, expected none or int8 or int4"):
        apply_sets(run, ["train.quantize=int2"])
