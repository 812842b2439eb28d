"""Quantized step graphs: what they hold, that they answer as the float one does, and when they are refused."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper

from export import check, directml, onnx_graph, parity, quantize
from export.onnx_graph import EMBEDDING
from export.quantize import blocks, calibrated, dynamic, remainders, rewrites, weights
from neuro import rounding
from neuro.errors import CheckError, NeuroError, UsageError
from neuro.memory import phrases
from neuro.tokenizer import Tokenizer

SIZES = ["d_model=64", "vocab_size=300", "cortex.feedforward_width=128", "hippocampus.place_cells=64"]
TOKENS = 40


@pytest.fixture(scope="module")
def brain(tiny_brain):
    made = tiny_brain(SIZES)
    made.tokenizer = Tokenizer.train(["The keeper counted the boats, and the boats counted him. "] * 30, 300)
    return made


@pytest.fixture(scope="module")
def step(brain, tmp_path_factory, traced_once) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    onnx_graph.write(brain, {name: folder / f"{name}.onnx" for name in ("step", "commit", "prefill")})
    return folder / "step.onnx"


@pytest.fixture(scope="module")
def prefill(step) -> Path:
    return step.with_name("prefill.onnx")


@pytest.fixture(scope="module")
def fed(brain) -> list[dict[str, np.ndarray]]:
    """What the step graph is given over spans with written memories."""
    ids = torch.randint(0, 280, (TOKENS,), generator=torch.Generator().manual_seed(1)).numpy()
    return list(calibrated.feeds(brain, ids))


def answers(graph: Path | bytes, fed: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Every output of the graph, token after token."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph if isinstance(graph, bytes) else str(graph), options)
    names = [port.name for port in session.get_outputs()]
    runs = [session.run(None, {port.name: feed[port.name] for port in session.get_inputs()}) for feed in fed]
    return {name: np.stack(found) for name, found in zip(names, zip(*runs, strict=True), strict=True)}


def quantized(step: Path, folder: Path, recipe: str, fed: list[dict[str, np.ndarray]]) -> tuple[Path, dict]:
    path = Path(shutil.copy(step, folder / f"{recipe}.onnx"))
    if recipe == "int8-static":
        return path, quantize.static(path, fed)
    return path, getattr(quantize, recipe)(path)


def test_the_rewritten_graph_answers_as_the_graph_did(step, fed):
    model = onnx.load(step)
    rewrites.rewrite(model)
    onnx.checker.check_model(model, full_check=True)
    before, after = answers(step, fed), answers(model.SerializeToString(), fed)
    assert before.keys() == after.keys()
    assert np.abs(before["next.buffer.values"]).max() > 0 and np.any(fed[-1][memory("strengths")] > 0)
    for name in before.keys() - {"next.buffer.error"}:  # sums in integers
        assert np.allclose(before[name], after[name], atol=2e-5), name
    error, told = before["next.buffer.error"], after["next.buffer.error"]
    assert np.abs(error).max() > 0
    assert 0 < np.linalg.norm(told - error) <= 0.02 * np.linalg.norm(error)


def test_slots_that_are_recalled_louder_are_so_when_only_the_closest_are_read(tiny_brain, tmp_path):
    """Eight words that stand again after a commit: how loud each slot is goes with the slot, not with its place."""
    brain = tiny_brain([*SIZES, "hippocampus.phrase=0.4", "hippocampus.slots=64", "hippocampus.top_k=4"])
    path = tmp_path / "step.onnx"
    onnx_graph.write(brain, {"step": path, "commit": tmp_path / "commit.onnx"})
    said = torch.randint(0, 280, (20,), generator=torch.Generator().manual_seed(2)).numpy()
    fed = list(calibrated.feeds(brain, np.concatenate([said, said])))
    model = onnx.load(path)
    rewrites.read_chosen_slots(model)
    rewrites.sort_nodes(model)
    onnx.checker.check_model(model, full_check=True)
    before, after = answers(path, fed), answers(model.SerializeToString(), fed)
    for name in before:
        assert np.allclose(before[name], after[name], atol=2e-5), name
    code = brain.regions["hippocampus"].phrases
    led, stored = (
        torch.tensor(np.stack([feed[memory(name)][0] for feed in fed])) for name in ("last_codes", "phrases")
    )
    gains = phrases.gain(phrases.match(code.last(led)[1:].unsqueeze(1), stored[:-1]))
    assert 0 < int((gains > 0).sum()) < gains.numel(), "some slots are louder here, and not all"


def test_the_teaching_signal_is_not_wrong_in_the_same_direction_at_every_token():
    """A hundred predictions that lean one way: what is left of their rounding in the mean is small beside the errors.

    The 128 likeliest rows and the mean of all rows for the others leave .032 of them in the mean, and .072 at a token.
    """
    random = np.random.default_rng(5)
    matrix = random.standard_normal((4096, 64)).astype(np.float32)
    features = random.standard_normal((100, 1, 64)) * 0.2 + 0.1
    chances = np.exp(features @ matrix.T)
    chances = (chances / chances.sum(-1, keepdims=True)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["p", EMBEDDING], ["expected"], "teach")], "teach",
        [helper.make_tensor_value_info("p", onnx.TensorProto.FLOAT, ["batch", 1, 4096])],
        [helper.make_tensor_value_info("expected", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(matrix, EMBEDDING)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    rewrites.sum_in_integers(model)
    rewrites.sort_nodes(model)
    got = answers(model.SerializeToString(), [{"p": one[None]} for one in chances])["expected"][:, 0, 0]
    exact = (chances @ matrix)[:, 0]
    said = np.stack([matrix[random.choice(4096, p=one[0] / one.sum(dtype=np.float64))] for one in chances])
    size = np.sqrt(np.square(said - exact).sum(1).mean())
    assert np.linalg.norm((got - exact).mean(0)) <= 0.002 * size
    assert np.sqrt(np.square(got - exact).sum(1).mean()) <= 0.005 * size


@pytest.mark.parametrize("recipe", ["int8", "int8-static", "int4"])
def test_the_rows_that_the_teaching_signal_sums_are_made_once_and_are_those_that_are_looked_up(
    recipe, step, fed, tmp_path
):
    """ONNX Runtime makes every row when it loads the graph, and no token pays for it."""
    path, _ = quantized(step, tmp_path, recipe, fed)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "loaded.onnx"), 3
    onnxruntime.InferenceSession(str(path), options)
    loaded = onnx.load(tmp_path / "loaded.onnx").graph
    integers = {tensor.name for tensor in loaded.initializer if tensor.data_type == onnx.TensorProto.UINT8}
    assert any(node.op_type == "MatMulInteger" and node.input[1] in integers for node in loaded.node)
    assert not any(rewrites.EVERY_ROW in node.output for node in loaded.node)
    model = onnx.load(path)
    row = next(
        n.output[0].removesuffix(".coarse")
        for n in model.graph.node
        if n.name.endswith(remainders.LOOKED_UP) and not n.name.startswith(f"{EMBEDDING}.ids")
    )
    names = [row, f"{row}.coarse", rewrites.EVERY_ROW]
    model.graph.output.extend(helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in names)
    ids = [0, 7, 150, 299]
    found = answers(model.SerializeToString(), [{**fed[0], "token": np.array([i])} for i in ids])
    looked_up = found[row if recipe == "int4" else f"{row}.coarse"].reshape(len(ids), -1)
    assert np.allclose(looked_up, found[rewrites.EVERY_ROW][0, ids], atol=1e-6)


def memory(name: str) -> str:
    return f"state.regions.hippocampus.{name}"


def test_the_rewritten_graph_reads_the_chosen_slots_alone(step, fed):
    """No node is left whose output has an entry for every value of the memory's rows."""
    model = onnx.load(step)
    rewrites.rewrite(model)
    readers = [node.op_type for node in model.graph.node if memory("values") in node.input]
    assert readers == ["GatherND"]
    assert not any(node.op_type == "MatMul" and node.input[1] == EMBEDDING for node in model.graph.node)
    assert sum(node.op_type == "Div" for node in model.graph.node) > sum(
        node.op_type == "Reciprocal" for node in model.graph.node
    )


@pytest.mark.parametrize(
    ("recipe", "size", "near"), [("int8", 0.45, 0.05), ("int8-static", 0.45, 0.06), ("int4", 0.4, 0.4)]
)
def test_a_recipe_makes_the_graph_smaller_and_keeps_what_it_says(recipe, size, near, step, fed, tmp_path, measured):
    path, record = quantized(step, tmp_path, recipe, fed)
    assert record["recipe"] == recipe == quantize.recipe_of(path)
    assert record["share_of_weight_bytes"] >= quantize.LEAST_SHARE
    assert min(min(dims) for dims in record["left_in_float"].values()) < rounding.THIN
    share = path.stat().st_size / step.stat().st_size
    measured("share of the float32 bytes", share)
    assert share <= size
    # One token of an untrained brain: a spike or a place cell that falls on the other side is most of the distance.
    expected, got = answers(step, fed[:1])["logits"], answers(path, fed[:1])["logits"]
    measured("distance of the logits", float(np.linalg.norm(got - expected) / np.linalg.norm(expected)))
    assert 0 < np.linalg.norm(got - expected) <= near * np.linalg.norm(expected)


@pytest.mark.parametrize("recipe", ["int8", "int8-static", "int4"])
def test_the_vocabulary_matrix_is_stored_once(recipe, step, fed, tmp_path):
    graph = onnx.load(quantized(step, tmp_path, recipe, fed)[0]).graph
    vocabulary, width = 300, 64
    stored = [t for t in graph.initializer if np.prod(t.dims) * (1 + (recipe == "int4")) == vocabulary * width]
    assert len(stored) == 1
    assert EMBEDDING not in {tensor.name for tensor in graph.initializer}


@pytest.mark.parametrize("recipe", ["int8", "int8-static"])
def test_large_weights_and_activations_overflow_on_no_processor(recipe, tmp_path):
    """Of uint8 times int8 a processor without VNNI adds two products in 16 bits; 2 * 255 * 127 is twice what they hold."""
    weight = np.ones((64, 32), np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "linear")
    ports = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, n]) for name, n in (("x", 64), ("y", 32))]
    graph = helper.make_graph([node], "large", ports[:1], ports[1:], [numpy_helper.from_array(weight, "w")])
    step, ones = tmp_path / "step.onnx", [{"x": np.ones((1, 64), np.float32)}]
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), step)
    path, _ = quantized(step, tmp_path, recipe, ones)
    assert np.allclose(answers(path, ones)["y"], 64.0, rtol=1e-5)
    stored = [tensor for tensor in onnx.load(path).graph.initializer if list(tensor.dims) == [64, 32]]
    assert [tensor.data_type for tensor in stored] == [onnx.TensorProto.UINT8]


def test_a_recipe_of_a_float_graph_is_none(step):
    assert quantize.recipe_of(step) is None


def gemm_graph(path: Path) -> Path:
    """A linear layer on a matrix of activations is a Gemm, which what looks for MatMul does not see."""
    weight = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], "linear")
    ports = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 64]) for name in "xy"]
    constants = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(weight[0], "b")]
    graph = helper.make_graph([node], "gemm", ports[:1], ports[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


@pytest.mark.parametrize("recipe", ["int8-static", "int4"])
def test_a_recipe_that_finds_nothing_is_an_error_in_two_parts(recipe, tmp_path):
    path = gemm_graph(tmp_path / "gemm.onnx")
    whole = path.read_bytes()
    with pytest.raises(NeuroError) as raised:
        if recipe == "int8-static":
            quantize.static(path, [{"x": np.zeros((1, 64), np.float32)}])
        else:
            getattr(quantize, recipe)(path)
    kind = recipe.removesuffix("-static")
    assert raised.value.what == f"quantize: 0.0 % of the weight bytes became {kind}, expected at least 95 %."
    assert raised.value.do == "Export without --quantize. Left in float: w."
    assert path.read_bytes() == whole and list(tmp_path.iterdir()) == [path]


def test_int8_finds_a_gemm_and_an_error_of_it_names_what_is_left(tmp_path, monkeypatch):
    path = gemm_graph(tmp_path / "gemm.onnx")
    assert quantize.int8(path)["left_in_float"] == {}
    whole = gemm_graph(path).read_bytes()
    monkeypatch.setattr(weights, "LEAST_SHARE", 1.01)
    with pytest.raises(NeuroError) as raised:
        quantize.int8(path)
    assert raised.value.what == "quantize: 100.0 % of the weight bytes became int8, expected at least 101 %."
    assert path.read_bytes() == whole and list(tmp_path.iterdir()) == [path]


def test_calibration_needs_tokens(step, tmp_path, brain):
    path = Path(shutil.copy(step, tmp_path / "step.onnx"))
    with pytest.raises(NeuroError, match="int8-static: got no calibration tokens, expected some"):
        quantize.static(path, [])
    short = tmp_path / "short.txt"
    short.write_text("The boats counted him.")
    with pytest.raises(UsageError) as raised:
        quantize.calibration_ids(short, brain)
    count = 1 + len(brain.tokenizer.encode("The boats counted him."))
    assert raised.value.what == f"{short}: got {count} tokens for calibration, expected at least {calibrated.TOKENS}."
    assert raised.value.do == "Give a longer text."
    short.write_text("The boats counted him. " * 400)
    ids = quantize.calibration_ids(short, brain)
    assert ids.shape == (calibrated.TOKENS,) and ids[0] == brain.tokenizer.bos_id


def test_static_scales_are_those_of_the_calibration(step, fed, tmp_path):
    """Twice the activations, twice the scales; what is fed in between changes nothing."""
    path, record = quantized(step, tmp_path, "int8-static", fed)
    assert record["calibration"]["tokens"] == TOKENS
    graph = onnx.load(path).graph
    held = {tensor.name: tensor for tensor in graph.initializer}
    quantizers = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert quantizers
    spikes = [node for node in quantizers if numpy_helper.to_array(held[node.input[1]]) == np.float32(1 / 255)]
    assert spikes, "what only is 0 or 1 is quantized exactly"
    model = onnx.load(step)
    rewrites.rewrite(model)
    weights.turn_embedding(model)
    names = [node.input[0] for node in quantizers]
    model.graph.output.extend(helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in names)
    found = answers(model.SerializeToString(), fed)
    for node in quantizers:
        values = found[node.input[0]]
        span = max(values.max(), 0.0) - min(values.min(), 0.0)
        assert numpy_helper.to_array(held[node.input[1]]) == pytest.approx(span / 255, rel=1e-4)


def test_no_other_scale_of_the_search_is_nearer_and_outliers_may_be_clipped():
    matrix = np.random.default_rng(3).standard_normal((5, 70)).astype(np.float32)
    matrix[0, 3] = 9.0
    levels, scales, zeros = blocks.rounded(matrix)
    assert levels.shape == (5, 3, blocks.BLOCK) and levels.max() <= 15
    restored = (levels.astype(np.float32) - zeros[..., None]) * scales[..., None]
    error = np.square(restored.reshape(5, -1)[:, :70] - matrix).sum()
    padded = np.pad(matrix, ((0, 0), (0, 26))).reshape(5, 3, -1)
    low, high = np.minimum(padded.min(-1), 0), np.maximum(padded.max(-1), 0)
    scale = (high - low)[..., None] / 15
    zero = np.rint(-low[..., None] / scale)
    plain = (np.clip(np.rint(padded / scale) + zero, 0, 15) - zero) * scale
    assert error < np.square(plain - padded).sum()
    assert np.all(restored[:, 2, 6:] == 0), "the filling stays zero"


def test_the_kernel_reads_the_packed_bytes_as_they_are_meant():
    """A product with one-hot rows gives back scale (q - zero), an odd number of blocks and an unfilled one among them."""
    matrix = np.random.default_rng(4).standard_normal((6, 70)).astype(np.float32)
    graph = helper.make_graph([], "one", [], [])
    blocks._store(graph, "w", blocks.rounded(matrix))
    node = helper.make_node(
        "MatMulNBits", ["x", "w_q4", f"w{weights.SCALES}", "w_zeros"], ["y"], domain="com.microsoft",
        K=70, N=6, bits=4, block_size=blocks.BLOCK, accuracy_level=4,
    )  # fmt: skip
    graph.node.append(node)
    graph.input.append(helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [70, 70]))
    graph.output.append(helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [70, 6]))
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    got = answers(model.SerializeToString(), [{"x": np.eye(70, dtype=np.float32)}])["y"][0]
    levels, scales, zeros = blocks.rounded(matrix)
    restored = ((levels.astype(np.float32) - zeros[..., None]) * scales[..., None]).reshape(6, -1)[:, :70]
    assert np.allclose(got, restored.T, atol=0.02)
    for row, column in itertools.product((0, 31, 32, 69), range(6)):
        assert abs(got[row, column] - matrix[column, row]) <= scales[column].max()


@pytest.fixture(scope="module")
def pair(step, tmp_path_factory) -> dict[str, Path]:
    """int8 with one product and int8 rows alone, as `quantize_dynamic` leaves it, and with the remainders."""
    folder = tmp_path_factory.mktemp("pair")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remainders, "second_activations", lambda model: [])
        patch.setitem(remainders.SHARE, "int8", 10**9)
        plain = Path(shutil.copy(step, folder / "plain.onnx"))
        quantize.int8(plain)
    whole = Path(shutil.copy(step, folder / "whole.onnx"))
    return {"plain": plain, "whole": whole, "record": quantize.int8(whole)}


def test_all_products_but_the_readouts_and_those_of_spikes_have_remainders_and_the_manifest_names_them(pair):
    record, graph = pair["record"], onnx.load(pair["whole"]).graph
    named = record["two_products"]
    assert any(name.endswith("place_cells.project.weight") for name in named)
    assert any(name.endswith("feedforward.inject.weight") for name in named)
    assert not any(name.endswith("feedforward.project.weight") for name in named), "spikes are exact"
    assert any("hippocampus.key" in name for name in named) and not any("embedding" in name for name in named)
    counts = [
        sum(node.op_type == "MatMulInteger" for node in onnx.load(pair[key]).graph.node) for key in ("whole", "plain")
    ]
    assert counts[0] - counts[1] == len(named)
    assert record["finer_rows"] == 300 // remainders.SHARE["int8"]
    assert record["share_of_weight_bytes"] >= quantize.LEAST_SHARE
    assert all(node.name for node in graph.node) and len({node.name for node in graph.node}) == len(graph.node)
    assert directml.violations(onnx.load(pair["whole"])) == directml.violations(onnx.load(pair["plain"]))


def test_two_products_leave_a_hundredth_of_the_error_of_one(pair, step, fed):
    """An activation in 16 bits: what is left is the weights' rounding, which is the same in both."""
    model, plain, whole = onnx.load(step), onnx.load(pair["plain"]), onnx.load(pair["whole"])
    weight = next(name for name in pair["record"]["two_products"] if name.endswith("thalamus.gate.weight"))
    quantized = {t.name: numpy_helper.to_array(t) for t in whole.graph.initializer}
    matrix = (quantized[f"{weight}_quantized"].astype(np.float32) - dynamic.MIDDLE) * quantized[f"{weight}_scale"]
    for graph in (plain, whole):
        source = next(n for n in graph.graph.node if f"{weight}_quantized" in n.input)
        x = next(n for n in graph.graph.node if source.input[0] in n.output).input[0]
        out = next(n.output[0] for n in model.graph.node if weight in n.input)
        graph.graph.output.extend(helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in (x, out))
    apart = []
    for graph in (plain, whole):
        found = answers(graph.SerializeToString(), fed[:8])
        expected = found[x] @ matrix
        apart.append(float(np.linalg.norm(found[out] - expected) / np.linalg.norm(expected)))
    assert 0 < apart[0] and apart[1] <= apart[0] / 100


@pytest.mark.parametrize("recipe", ["int8", "int4"])
def test_a_frequent_row_has_four_more_bits_and_a_rare_one_has_not(recipe, step, fed, tmp_path):
    """Of a row's largest distance from float32 a fifteenth is left by fifteen steps."""
    matrix = next(numpy_helper.to_array(t) for t in onnx.load(step).graph.initializer if t.name == EMBEDDING)
    path, record = quantized(step, tmp_path, recipe, fed)
    rows = 300 // remainders.SHARE[recipe]
    assert record["finer_rows"] == rows
    model = onnx.load(path)
    row = next(n.output[0] for n in model.graph.node if n.name.endswith(remainders.LOOKED_UP)).removesuffix(".coarse")
    names = [f"{row}.coarse", row]
    model.graph.output.extend(helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in names)
    ids = np.array([0, 1, rows - 1, rows, 299])
    found = answers(model.SerializeToString(), [{**fed[0], "token": np.array([i])} for i in ids])
    coarse, fine = (np.abs(found[name].reshape(len(ids), -1) - matrix[ids]).max(1) for name in names)
    assert np.all(fine[:3] <= coarse[:3] / 15 * 1.01)
    assert np.array_equal(fine[3:], coarse[3:]) and coarse.min() > 0


def test_a_vocabulary_of_a_few_words_or_of_an_odd_width_has_no_finer_rows(step):
    model = onnx.load(step)
    matrix = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == EMBEDDING)
    before = model.SerializeToString()
    for few, odd in ((4, 64), (300, 63)):
        assert remainders.finer_rows(model, matrix[:few, :odd], matrix[:few, :odd], 5) == 0
    assert model.SerializeToString() == before


@pytest.mark.parametrize("off", ["hippocampus", "procedural", "cortex"])
def test_a_graph_without_the_part_is_quantized_too(off, tiny_brain, tmp_path):
    files = {name: tmp_path / f"{name}.onnx" for name in ("step", "commit")}
    onnx_graph.write(tiny_brain([*SIZES, f"{off}.enabled=false"]), files)
    assert quantize.int8(files["step"])["share_of_weight_bytes"] >= quantize.LEAST_SHARE


@pytest.mark.parametrize(("recipe", "near"), [("int8", 0.12), ("int4", 0.5)])
def test_a_prefill_is_quantized_with_the_bytes_of_the_step(recipe, near, step, prefill, tmp_path, fed):
    """Its recurrences stand in graphs of their own, and its teaching signal sums over all of the vocabulary."""
    path = Path(shutil.copy(prefill, tmp_path / "prefill.onnx"))
    assert getattr(quantize, recipe)(path)["share_of_weight_bytes"] >= quantize.LEAST_SHARE
    stepped = onnx.load(quantized(step, tmp_path, recipe, fed)[0]).graph
    held = {tensor.raw_data for tensor in stepped.initializer if len(tensor.raw_data) >= 4096}
    assert held and held <= {tensor.raw_data for tensor in onnx.load(path).graph.initializer}
    spoken = [{**fed[0], "tokens": np.arange(20, 25)[None], "prosody": np.zeros((1, 5, 3), np.float32)}]
    expected, got = answers(prefill, spoken), answers(path, spoken)
    for name in ("logits", "next.buffer.error"):
        apart = np.linalg.norm(got[name] - expected[name])
        assert 0 < apart <= near * np.linalg.norm(expected[name]), name


def test_each_recipe_has_a_limit_of_its_own_and_the_error_names_it():
    far = parity.Parity(1, 128, 2, *(0.0,) * len(dataclasses.fields(parity.Parity)[3:]))
    far = dataclasses.replace(far, divergence=0.2)
    check.judge(far, "int4", "export", "Do it.")
    with pytest.raises(CheckError) as raised:
        check.judge(far, "int8", "export", "Do it.")
    what = "export: parity with torch is broken: got a divergence of 0.2000 nats per token, expected at most 0.1."
    assert (raised.value.what, raised.value.do) == (what, "Do it.")
    assert check.DIVERGENCE_LIMITS.keys() == set(quantize.RECIPES)
