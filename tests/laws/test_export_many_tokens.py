"""Laws of the graphs that the step and the commit are not: the prefill takes any batch and length, the decoder commits
inside, and both say what the step says.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from export import manifest as manifests
from export import onnx_graph, package, ports, sharing
from export.latency import Decoder
from export.ports import INTO
from export.runtime import LEAST_LENGTH, Runtime
from neuro.brain import Brain
from neuro.errors import NeuroError
from neuro.state import leaves
from neuro.tokenizer import Tokenizer

SHAPES = [(1, 512), (3, 512), (4, 512)]  # none of them traced


@pytest.fixture(scope="module")
def made(tiny_brain, tmp_path_factory) -> tuple[Brain, Path, dict]:
    """A brain with everything on, its graphs, and their manifest."""
    tokenizer = Tokenizer.train(["The keeper counted the boats twice, and the boats counted him. "] * 30, 300)
    brain = tiny_brain([f"vocab_size={tokenizer.vocab_size}", "hippocampus.phrase=0.4"])
    brain.tokenizer = tokenizer
    out = tmp_path_factory.mktemp("graphs")
    return brain, out, package.write_graphs(brain.eval(), out)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_prefills_equal_torch_over_512_tokens_with_commits(shape, made, drive, tokens, measured):
    brain, out, _manifest = made
    ids = tokens(*shape, vocab_size=280)
    expected, runtime = drive(brain, ids), Runtime(out, shape[0])
    logits = runtime.feed(ids.numpy())
    state = {INTO + path: leaf.numpy() for path, leaf in leaves(expected.state)}
    gaps = [np.abs(runtime.state[name] - leaf).max() / max(1.0, np.abs(leaf).max()) for name, leaf in state.items()]
    measured("logits", float(np.abs(logits - expected.logits.numpy()).max()))
    measured("state over the leaf's largest value, if above 1", float(max(gaps)))
    assert np.abs(logits - expected.logits.numpy()).max() <= 1e-5
    assert max(gaps) <= 1e-5
    assert len(expected.commits) == 512 // brain.config.plasticity_span
    assert np.array_equal(runtime.spikes, expected.spikes.numpy()[:, -1])


def test_spikes_of_a_prefill_are_those_of_torch(made, tokens):
    brain, out, _manifest = made
    span = brain.config.plasticity_span
    total = 0
    for seed, (batch, length) in enumerate([(1, LEAST_LENGTH), (3, span), (7, span - 1)]):
        ids = tokens(batch, length, seed=seed, vocab_size=280)
        runtime = Runtime(out, batch)
        with torch.no_grad():
            expected = brain.scan(ids, brain.init_state(batch)).events.spikes.numpy()
        silence = np.zeros((batch, length, brain.config.prosody_channels), np.float32)
        assert np.array_equal(runtime._run("prefill", {"tokens": ids.numpy(), "prosody": silence})["spikes"], expected)
        total += int(expected.sum())
    assert total > 0


def test_a_fed_prompt_is_a_stepped_prompt(made, tokens):
    brain, out, _manifest = made
    ids = tokens(2, 3 * brain.config.plasticity_span + 2, vocab_size=280).numpy()
    fed, stepped = Runtime(out, 2), Runtime(out, 2)
    pieces = [fed.feed(ids[:, :5]), fed.feed(ids[:, 5:7]), fed.feed(ids[:, 7:])]
    one_by_one = np.stack([stepped.step(column) for column in ids.T], 1)
    assert np.abs(np.concatenate(pieces, 1) - one_by_one).max() <= 1e-5
    assert np.array_equal(fed.state[f"{INTO}clock"], stepped.state[f"{INTO}clock"])
    with pytest.raises(ValueError, match="feed: got ids of shape"):
        fed.feed(ids[:1])


def test_a_frozen_axis_is_an_error():
    for name, shape, frozen in (
        ("tokens", ["b", 5], "length"),
        ("logits", ["b", 5, 8], "length"),
        ("token", [2], "batch"),
    ):
        value = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        with pytest.raises(NeuroError) as caught:
            onnx_graph._free_axes(value)
        said = (
            f"export: the axis '{frozen}' of '{name}' was frozen at {shape[-1] if len(shape) == 1 else 5}",
            "Report",
        )
        assert str(caught.value).startswith(said[0]) and said[1] in str(caught.value)
    free = onnx.helper.make_tensor_value_info("tokens", onnx.TensorProto.INT64, ["x", "y"])
    onnx_graph._free_axes(free)
    assert [axis.dim_param for axis in free.type.tensor_type.shape.dim] == [ports.BATCH, ports.LENGTH]


def test_weights_stand_in_one_file_and_the_step_runs_alone(made, tmp_path):
    _brain, out, manifest = made
    bytes_of = {name: manifest["graphs"][name]["bytes"] for name in manifest["graphs"]}
    weights = sum(len(t.raw_data) for t in onnx.load(out / manifest["graphs"]["step"]["file"]).graph.initializer)
    assert bytes_of["step"] > weights > 2 * (bytes_of["prefill"] - 40_000), "the prefill has weights of its own"
    (tmp_path / "alone.onnx").write_bytes((out / manifest["graphs"]["step"]["file"]).read_bytes())
    session = onnxruntime.InferenceSession(str(tmp_path / "alone.onnx"), providers=["CPUExecutionProvider"])
    told = session.get_modelmeta().custom_metadata_map
    feed = {"token": np.array([5]), "prosody": np.zeros((1, 3), np.float32)}
    for port in json.loads(told["neuro.state"]):
        feed[port["name"]] = np.full([1 if a == "batch" else a for a in port["shape"]], port["initial"], port["dtype"])
    inputs = [port.name for port in session.get_inputs()]
    logits = session.run(["logits"], {name: feed[name] for name in inputs})[0]
    assert np.array_equal(logits, Runtime(out).step([5]))
    assert set(json.loads(told["neuro.next"])) == set(manifest["graphs"]["step"]["state"])
    assert (told["neuro.recipe"], int(told["neuro.plasticity_span"])) == ("float32", 16)


def test_shared_bytes_are_the_owners(tmp_path):
    array = np.arange(600, dtype=np.float32)
    for name, own in (("owner", array), ("guest", array), ("other", array + 1)):
        weight = onnx.numpy_helper.from_array(own, "w")
        node = onnx.helper.make_node("Add", ["x", "w"], ["y"])
        values = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [600]) for n in ("x", "y")]
        graph = onnx.helper.make_graph([node], name, values[:1], values[1:], [weight])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
        onnx.save(model, tmp_path / f"{name}.onnx")
    assert sharing.share(tmp_path / "guest.onnx", tmp_path / "owner.onnx") == array.nbytes
    assert sharing.share(tmp_path / "other.onnx", tmp_path / "owner.onnx") == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "guest.onnx"), providers=["CPUExecutionProvider"])
    assert np.array_equal(session.run(None, {"x": array})[0], 2 * array)


def test_the_decoder_says_what_step_and_commit_say_and_not_what_a_step_without_commits_says(made, tokens):
    brain, out, manifest = made
    runtime, decoder = Runtime(out, 2), Decoder(out, manifest, batch=2)
    still = Runtime(out, 2)
    still.manifest = still.manifest | {"plasticity_span": 10**9}  # never commits
    never = manifest["never_written"]
    ids = tokens(2, 5 * brain.config.plasticity_span + 3, vocab_size=280).numpy()
    apart = 0.0
    for index, column in enumerate(ids.T):
        got, expected = decoder.step(column), runtime.step(column)
        assert (got[:, never] < -1e29).all()
        got[:, never] = expected[:, never]
        assert np.array_equal(got, expected), index
        if index < brain.config.plasticity_span:
            assert np.array_equal(got, still.step(column))
        elif index < 2 * brain.config.plasticity_span:
            still.state[f"{INTO}clock"] = np.zeros_like(still.state[f"{INTO}clock"])
            apart = max(apart, float(np.abs(got - still.step(column)).max()))
    assert apart > 1e-3


def test_what_the_decoder_said_stays_said(made):
    _brain, out, manifest = made
    decoder = Decoder(out, manifest)
    first = decoder.step([5])
    kept = first.copy()
    decoder.step([40])
    assert np.array_equal(first, kept)


def likeliest(logits: np.ndarray, ids: list[int], never: list[int]) -> int:
    """The likeliest id that none of the last 12 was: a brain that was never trained would write one id for ever."""
    row = logits.copy()
    row[[*never, *ids[-12:]]] = -np.inf
    return int(row.argmax())


def test_over_five_spans_the_decoder_writes_torchs_tokens_with_commits_and_others_without(made):
    brain, out, manifest = made
    prompt, count = [brain.tokenizer.bos_id, 17, 40, 99], 5 * brain.config.plasticity_span
    never = manifest["never_written"]

    def torch_writes(commits: bool) -> list[int]:
        ids, state = list(prompt), brain.init_state(1)
        with torch.no_grad():
            for index in range(count):
                out = brain.step(torch.tensor([ids[index]]), state)
                state = out.state
                if brain.remaining(state) == 0:
                    empty = state._replace(clock=torch.zeros_like(state.clock))
                    state = brain.commit(state)[0] if commits else empty
                if index + 1 >= len(prompt):
                    ids.append(likeliest(out.logits[0].numpy(), ids, never))
        return ids

    def decoder_writes() -> list[int]:
        ids, decoder = list(prompt), Decoder(out, manifest)
        for index in range(count):
            logits = decoder.step([ids[index]])[0]
            if index + 1 >= len(prompt):
                ids.append(likeliest(logits, ids, never))
        return ids

    assert decoder_writes() == torch_writes(commits=True) != torch_writes(commits=False)


def test_operators_inside_if_and_scan_are_counted(made):
    _brain, out, manifest = made
    counts = manifest["graphs"]["decoder"]["operators"]
    assert counts["If"] == 1 and counts["ScatterElements"] > len(manifest["graphs"]["decoder"]["packed"]["memory"])
    assert manifest["graphs"]["prefill"]["operators"]["Scan"] >= 2
    names = [node.op_type for node in manifests.nodes_of(onnx.load(out / "onnx/commit.onnx").graph)]
    assert manifest["graphs"]["commit"]["operators"]["ScatterElements"] == names.count("ScatterElements") == 5
