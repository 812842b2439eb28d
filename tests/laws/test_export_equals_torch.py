"""Law: the exported graphs say what torch says, over carried state and commits, for every region switched off."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from export import check, directml, onnx_graph, package, parity, quantize
from export import manifest as manifests
from export.ports import INTO
from export.runtime import HORMONES, Runtime
from neuro import folder, rounding, text
from neuro.cli import main
from neuro.errors import CheckError, NeuroError, UsageError
from neuro.state import leaves
from neuro.tokenizer import Tokenizer

pytestmark = pytest.mark.usefixtures("traced_once")
# A trace takes longer than all the rest of a law, so every brain here shows several things at once.
BRAINS = {
    "no thalamus, keys of a trace and of learned sparsity, neighbours": [
        "thalamus.enabled=false",
        "hippocampus.key_trace=0.6",
        "hippocampus.learned_sparsity=true",
        "hippocampus.contiguity=0.3",
    ],
    "no amygdala, keys of time and phrases, neighbours within events": [
        "amygdala.enabled=false",
        "hippocampus.time_cells=6",
        "hippocampus.phrase=0.4",
        "hippocampus.contiguity=0.3",
        "hippocampus.segments=true",
    ],
    "no endocrine, errors through dense layers that are skipped": [
        "endocrine.enabled=false",
        "procedural.through_dense=true",
        "cortex.feedforwards=dense,spiking",
        "thalamus.skips=layer",
    ],
    "no hippocampus, branched layers that are skipped": [
        "hippocampus.enabled=false",
        "cortex.feedforwards=branched,spiking",
        "thalamus.skips=layer",
    ],
    "a hormone at rest, branched layers": ["endocrine.off=serotonin", "cortex.feedforwards=branched,spiking"],
    "no cortex": ["cortex.enabled=false"],
}
TAGGED = ["hippocampus.tag=true", "hippocampus.controller=tagged", "hippocampus.writes_per_span=4"]
LEARNING = [
    "hippocampus.pointer=true",
    "hippocampus.key_direct=true",
    "procedural.natural=true",
    "procedural.outward_half_life_tokens=40",
    "procedural.bias_rate=0.1",
    "procedural.through_dense=true",
    "cortex.feedforwards=dense,spiking",
]


def agree(brain, runtime, ids, flips=1) -> parity.Parity:
    """What the graphs say and carry is what torch does; ``flips``: spikes on either side of a threshold, at most."""
    found = parity.measure(brain, runtime, ids.numpy(), realign=True)
    assert found.commits == ids.shape[1] // brain.config.plasticity_span + 1
    assert max(found.logits_relative, found.state_relative) <= 1e-5
    assert found.spike_flips <= flips
    assert found.realigned <= flips, "the maxima must not be of a few tokens only"
    return found


def test_step_and_commit_equal_torch_over_128_tokens_with_carried_state(save_model, tmp_path, tokens, measured):
    brain = folder.load(save_model(), "cpu")
    package.write_graphs(brain, tmp_path, profile="dml")
    runtime = Runtime(tmp_path)
    for batch in (1, 3):
        found = agree(brain, runtime, tokens(batch, parity.TOKENS, vocab_size=280))
        measured("logits", found.logits_relative)
        measured("state", found.state_relative)
        assert 0.02 < found.spike_rate < 0.2


@pytest.mark.parametrize("sets", BRAINS.values(), ids=BRAINS)
def test_brains_of_every_make_equal_torch_too(sets, save_model, tmp_path, tokens, measured):
    brain = folder.load(save_model(sets), "cpu")
    package.write_graphs(brain, tmp_path, profile="dml")
    ids = tokens(2, parity.TOKENS // 2, vocab_size=280).repeat(1, 2)  # the second half recalls the first
    runtime = Runtime(tmp_path)
    found = agree(brain, runtime, ids)
    measured("logits", found.logits_relative)
    measured("state", found.state_relative)
    if "cortex.enabled=false" not in sets:
        assert 0.02 < found.spike_rate < 0.2
    if "thalamus.skips=layer" in sets:
        route = brain.scan(ids[:, :16], brain.init_state(2)).events.route
        assert 0.2 < float(route.mean()) < 0.8, "the graph masks what torch does not run"
    if "endocrine.off=serotonin" in sets:
        assert (runtime.state[HORMONES] == 0.5).tolist() == [[False, False, False, True, False]] * 2


def test_a_brain_traced_again_leaves_the_same_bytes(traced_once, save_model, tmp_path):
    """So one that was traced may be copied, as these tests do, and an export says by its hashes what it came from."""
    brain = folder.load(save_model(), "cpu")
    for kind, trace in (("copied", onnx_graph.write), ("traced", traced_once)):
        (tmp_path / kind).mkdir()
        trace(brain, {name: tmp_path / kind / name for name in ("step", "commit")}, scatter=False)
    assert onnx_graph.write is not traced_once
    for name in ("step", "commit"):
        assert (tmp_path / "copied" / name).read_bytes() == (tmp_path / "traced" / name).read_bytes()


@pytest.mark.parametrize(("profile", "more"), [("cpu", TAGGED), ("dml", [])], ids=["cpu, tagged writes", "dml"])
def test_a_pointer_and_a_natural_memory_that_speaks_too_equal_torch_too(profile, more, save_model, tmp_path, tokens):
    brain = folder.load(save_model([*LEARNING, *more]), "cpu")
    made = torch.Generator().manual_seed(1)
    precision = torch.randn(2, 3 * brain.config.d_model, brain.config.d_model, generator=made)
    with torch.no_grad():
        brain.regions["cortex"].procedural.precision.copy_(precision.mT @ precision / len(precision[0]))
        if more:
            tag = brain.regions["hippocampus"].tag
            tag.weight[4:] = torch.randn(len(tag.weight) - 4, generator=made)
    package.write_graphs(brain, tmp_path, profile=profile)
    agree(brain, Runtime(tmp_path), tokens(2, 20, vocab_size=280).repeat(1, 2))  # the second half copies from the first


def test_a_cortex_of_spikes_equals_torch_too(save_model, tmp_path, tokens, measured):
    """Every projection stands behind thresholds: a value within rounding of one is a flip, and few are."""
    sets = ["cortex.encoding=spikes", "cortex.burst=2", "procedural.enabled=false"]
    sets += ["cortex.mixers=recurrence,recurrence", "cortex.feedforwards=spiking,spiking"]
    brain = folder.load(save_model(sets), "cpu")
    package.write_graphs(brain, tmp_path, profile="dml")
    ids = tokens(2, parity.TOKENS, vocab_size=280)
    found = agree(brain, Runtime(tmp_path), ids, flips=4)
    measured("logits", found.logits_max_abs)
    neurons = 2 * (3 * 2 * brain.config.d_model + brain.config.cortex.feedforward_width)
    spikes = found.spike_rate * neurons * ids.numel()
    assert round(spikes) == pytest.approx(spikes) and found.spike_rate > 0.02


def test_a_wrong_weight_breaks_parity(exported, tmp_path):
    _model, out = exported
    runtime = Runtime(out)
    brain = folder.load(out / "torch", "cpu")
    ids = package.golden_tokens(brain)[None]
    assert parity.measure(brain, runtime, ids).logits_max_abs <= 1e-4
    with torch.no_grad():
        brain.embedding[ids[0, 3]] += 0.1
    assert parity.measure(brain, runtime, ids).logits_max_abs > 1e-2


def test_the_graphs_carry_a_memory_that_matters(exported, tokens):
    runtime = Runtime(exported[1])
    ids = tokens(1, 40, vocab_size=280).numpy()[0]
    for token in ids:
        runtime.step([token])
    wrote = runtime.commit()
    assert wrote.min() > 0
    remembered = runtime.step([ids[3]])
    runtime.reset()
    assert np.abs(remembered - runtime.step([ids[3]])).max() > 1e-3


def test_every_state_leaf_is_a_port_and_starts_as_in_torch(exported):
    model, out = exported
    runtime, brain = Runtime(out, batch=2), folder.load(model, "cpu")
    expected = dict(leaves(brain.init_state(2)))
    assert {name.removeprefix(INTO) for name in runtime.state} == set(expected)
    for path, leaf in expected.items():
        got = runtime.state[INTO + path]
        assert got.dtype == leaf.numpy().dtype
        assert np.array_equal(got, leaf.numpy()), path


def test_the_int8_graph_is_smaller_and_close(save_model, tmp_path, measured):
    manifest = package.export_onnx(save_model(["d_model=64", "cortex.feedforward_width=256"]), tmp_path / "out", "int8")
    assert manifest["quantization"]["share_of_weight_bytes"] >= quantize.LEAST_SHARE
    assert "prefill" not in manifest["graphs"] and manifest["parity_with_the_step"]["decoder"]["absolute"] == 0.0
    measured("share of the float32 bytes", manifest["graphs"]["step"]["bytes"] / manifest["float_step_bytes"])
    kinds = {
        t.data_type
        for t in onnx.load(tmp_path / "out" / "onnx" / "model_quantized.onnx").graph.initializer
        if len(t.dims) >= 2
    }
    assert onnx.TensorProto.UINT8 in kinds
    assert 0 < manifest["parity"]["divergence"] <= check.DIVERGENCE_LIMIT


def test_a_quantizer_that_leaves_weights_alone_is_an_error(save_model, tmp_path, monkeypatch):
    monkeypatch.setattr(rounding, "THIN", 10_000)  # nothing is thick enough
    with pytest.raises(NeuroError, match="weight bytes"):
        package.export_onnx(save_model(), tmp_path / "out", "int8")
    assert not list(tmp_path.iterdir())


def test_int8_costs_less_than_two_percent_of_wikitext_perplexity(neuro_data, tmp_path, measured):
    """The shipped model on the beginning of WikiText-2's validation text; the whole test text is in benchmarks/."""
    package.export_onnx("small", tmp_path / "float")
    package.export_onnx("small", tmp_path / "int8", "int8")
    tokenizer = folder.load("small", "cpu").tokenizer
    raw = text.read_text(neuro_data / "wikitext-2" / "valid.txt.gz")[:8_000]
    ids = [tokenizer.bos_id, *tokenizer.encode(raw)]
    nats = [parity.stream_nats(Runtime(tmp_path / kind), ids) for kind in ("float", "int8")]
    ratio = float(np.exp((nats[1] - nats[0]) / len(raw.split())))
    measured("int8 / float32 word perplexity", ratio)
    assert ratio <= 1.02  # 1.002 to 1.006 on three passages
    sizes = [
        path.stat().st_size for kind in ("float", "int8") for path in (tmp_path / kind / "onnx").glob("model*.onnx")
    ]
    assert sizes[1] <= 0.3 * sizes[0]


def test_verify_is_content_with_a_fresh_export_and_leaves_it_as_it_is(exported):
    before = {path: path.read_bytes() for path in exported[1].rglob("*") if path.is_file()}
    report = check.verify(exported[1])
    assert report.quantization is None
    assert report.parity.logits_relative <= 1e-5
    assert {path: path.read_bytes() for path in exported[1].rglob("*") if path.is_file()} == before


def copy(source: Path, target: Path) -> Path:
    for path in source.rglob("*"):
        if path.is_file():
            (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            (target / path.relative_to(source)).write_bytes(path.read_bytes())
    return target


@pytest.mark.parametrize(
    "name", ["onnx/model.onnx", "onnx/commit.onnx", "tokenizer.json", "run.py", "torch/model.safetensors"]
)
def test_verify_refuses_a_missing_a_truncated_and_a_changed_file(name, exported, tmp_path):
    out = copy(exported[1], tmp_path / "out")
    whole = (out / name).read_bytes()
    for broken in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        (out / name).write_bytes(broken)
        with pytest.raises(CheckError, match=rf"{name}: is not as exported: got {len(broken)} bytes, sha256"):
            check.verify(out)
    (out / name).unlink()
    with pytest.raises(CheckError, match=rf"{name}: is not as exported: got nothing, expected {len(whole)} bytes"):
        check.verify(out)


@pytest.mark.parametrize(
    "change",
    [
        {"never_written": []},
        {"bos": 5},
        {"plasticity_span": 8},
        {"vocab_size": 299},
        {"fingerprint": "0" * 64},
        {"state": []},
        {"graphs": {}},
        {"quantization": {"recipe": "int8"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_verify_notices_a_changed_manifest(change, exported, tmp_path):
    """What the runner may never write, where it starts and when it commits decide what it says."""
    out = copy(exported[1], tmp_path / "out")
    record = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    (out / "manifest.json").write_text(json.dumps(record | change), encoding="utf-8")
    with pytest.raises(CheckError, match=f"manifest.json: '{next(iter(change))}' is not that of the graphs"):
        check.verify(out)


def test_what_is_no_longer_an_export_exits_4_and_what_is_not_there_exits_3(exported, tmp_path, capsys):
    def verify(path: Path) -> int:
        code = main(["verify", str(path)])
        assert capsys.readouterr().err.count("\n") == (2 if code else 0)
        return code

    out = copy(exported[1], tmp_path / "out")
    assert (verify(out), verify(tmp_path / "none")) == (0, 3)
    manifest = out / "manifest.json"
    record = json.loads(manifest.read_text(encoding="utf-8"))
    without = {name: entry for name, entry in record["files"].items() if name != "run.py"}
    for change in (
        {"files": {"onnx/model.onnx": {}}},
        {"files": record["files"] | {"onnx/model.onnx": {}}},
        {"files": record["files"] | {"onnx/model.onnx": None}},
        {"files": []},
        {"files": without},
        {"schema": "neuro.export/1"},
    ):
        manifest.write_text(json.dumps(record | change), encoding="utf-8")
        assert verify(out) == 4, change
    manifest.write_text(json.dumps(record)[:-9], encoding="utf-8")
    assert verify(out) == 4
    manifest.unlink()
    assert verify(out) == 4


def test_verify_notices_graphs_that_say_something_else(exported, tmp_path):
    out = copy(exported[1], tmp_path / "out")
    model = onnx.load(out / "onnx" / "model.onnx")
    weight = next(t for t in model.graph.initializer if t.name == onnx_graph.EMBEDDING)
    weight.CopyFrom(onnx.numpy_helper.from_array(1.5 * onnx.numpy_helper.to_array(weight), weight.name))
    onnx.save(model, out / "onnx" / "model.onnx")
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["files"]["onnx/model.onnx"] = manifests.describe_file(out / "onnx" / "model.onnx")
    manifest["graphs"]["step"]["bytes"] = manifest["files"]["onnx/model.onnx"]["bytes"]
    (out / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckError, match="parity with torch is broken"):
        check.verify(out)


def test_graphs_of_other_ports_or_opset_are_named(exported, tmp_path, capsys):
    """By `verify` and by the runner, each in two lines and with its exit code."""
    out = copy(exported[1], tmp_path / "out")
    path = out / "onnx" / "model.onnx"
    whole = onnx.load(path)

    def put(model: onnx.ModelProto) -> None:
        onnx.save(model, path)
        record = json.loads((out / "manifest.json").read_text())
        record["files"]["onnx/model.onnx"] = manifests.describe_file(path)
        (out / "manifest.json").write_text(json.dumps(record))

    other = onnx.ModelProto()
    other.CopyFrom(whole)
    old, spare = other.graph.input[-1].name, "state.spare"
    other.graph.input[-1].name = spare
    for node in other.graph.node:
        node.input[:] = [spare if name == old else name for name in node.input]
    put(other)
    with pytest.raises(
        CheckError, match=r"model.onnx: its inputs are not those of the manifest: got \d+, expected \d+, odd"
    ):
        check.verify(out)
    done = subprocess.run([sys.executable, str(out / "run.py"), "12"], capture_output=True, text=True, check=False)
    assert done.returncode == 4
    said = done.stderr.split("\n")
    assert said[0].endswith("its ports are not those of the manifest.") and len(said) == 3
    whole.opset_import[0].version = 19
    put(whole)
    with pytest.raises(CheckError, match=f"model.onnx: got opset 19, expected {onnx_graph.OPSET}"):
        check.verify(out)
    path.unlink()
    assert main(["verify", str(out)]) == 4
    assert capsys.readouterr().err.count("\n") == 2
    done = subprocess.run([sys.executable, str(out / "run.py"), "12"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (4, 2) and "got nothing, expected a graph" in done.stderr


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--to", "onxn"], "--to: got 'onxn'"),
        (["--profile", "gpu"], "--profile: got 'gpu'"),
        (["--quantize", "int9"], "--quantize: got 'int9'"),
    ],
)
def test_an_unknown_name_is_wrong_usage_and_writes_nothing(option, said, exported, tmp_path, capsys):
    code = main(["export", str(exported[0]), "--to", "onnx", "--out", str(tmp_path / "out"), *option])
    err = capsys.readouterr().err
    assert code == 2 and said in err and err.count("\n") == 2
    assert not list(tmp_path.iterdir())


def test_the_profile_dml_has_no_operator_that_the_provider_lacks(save_model, tmp_path):
    manifest = package.export_onnx(save_model(), tmp_path / "out", profile="dml")
    assert manifest["profile"] == "dml" and set(manifest["graphs"]) == {"step", "commit"}
    for entry in manifest["graphs"].values():
        assert directml.violations(onnx.load(tmp_path / "out" / entry["file"])) == []
    assert not (tmp_path / "out" / "genai_config.json").exists()
    check.verify(tmp_path / "out")


def test_genai_writes_what_the_runner_writes(exported):
    """The folder as it is, in ONNX Runtime GenAI; a wheel beside the environment is enough (PYTHONPATH)."""
    og = pytest.importorskip("onnxruntime_genai", reason="onnxruntime-genai is not installed")
    runner, count = Runtime(exported[1]), 300
    tokenizer = Tokenizer.load(exported[1] / "tokenizer.json")
    prompt = "The keeper counted the boats twice.\n"
    model = og.Model(str(exported[1]))
    assert list(og.Tokenizer(model).encode(prompt)) == tokenizer.encode(prompt)
    ids = [tokenizer.bos_id, *tokenizer.encode(prompt)]
    options = og.GeneratorParams(model)
    options.set_search_options(max_length=len(ids) + count, do_sample=False)
    generator = og.Generator(model, options)
    generator.append_tokens(ids)
    written: list[int] = []
    while len(written) < count:
        generator.generate_next_token()
        written.append(int(generator.get_next_tokens()[0]))
    assert written == runner.generate(ids, count)


def test_a_folder_with_other_things_in_it_is_left_alone(exported, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match="no export"):
        package.export_onnx(exported[0], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_failed_export_keeps_the_earlier_one(exported, tmp_path, monkeypatch):
    out = copy(exported[1], tmp_path / "out")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    monkeypatch.setattr(check, "GAP_LIMIT", 0.0)
    with pytest.raises(CheckError):
        package.export_onnx(exported[0], out)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
