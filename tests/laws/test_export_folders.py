"""Law: a folder for the web holds the same brain, its raster, and what JavaScript needs; every recipe leaves as a folder."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from export import check, package, quantize, web
from export.ports import INTO
from export.runtime import Runtime
from neuro import folder, presets, workload
from neuro.brain import Brain
from neuro.cli import main
from neuro.config import apply_sets
from neuro.errors import CheckError
from neuro.memory import contents
from neuro.state import leaves
from neuro.tokenizer import Tokenizer

pytestmark = pytest.mark.usefixtures("traced_once")


@pytest.fixture(scope="module")
def exported(tmp_path_factory, traced_once) -> tuple[Brain, Path]:
    torch.manual_seed(0)
    tokenizer = Tokenizer.train(["The keeper counted the boats twice, and the boats counted him. "] * 30, 300)
    brain = Brain(apply_sets(presets.tiny().brain, [f"vocab_size={tokenizer.vocab_size}"])).eval()
    brain.tokenizer = tokenizer
    model, out = folder.save(brain, tmp_path_factory.mktemp("model")), tmp_path_factory.mktemp("web") / "out"
    assert main(["export", str(model), "--to", "onnx", "--profile", "web", "--out", str(out), "-q"]) == 0
    return folder.load(model, "cpu"), out


def test_the_folder_is_whole_and_says_what_is_likeliest(exported):
    brain, out = exported
    check.verify(out)
    manifest = json.loads((out / "manifest.json").read_text())
    assert set(web.FILES) <= set(manifest["files"]) and manifest["profile"] == "web"
    golden, runtime = json.loads((out / "golden.json").read_text()), Runtime(out)
    ids = package.golden_tokens(brain)[: web.STEPS]
    assert golden["tokens"] == ids.tolist() and len(golden["likeliest"]) == web.STEPS == 48
    never = brain.tokenizer.never_written
    for token, likeliest in zip(ids, golden["likeliest"], strict=True):
        logits = runtime.step([token])[0]
        assert likeliest not in never and logits[likeliest] == np.delete(logits, list(never)).max()


def test_the_step_gives_every_neurons_spikes(exported, tokens):
    brain, out = exported
    recording = Brain(brain.config, brain.backend, record_raster=True).eval()
    recording.load_state_dict(brain.state_dict())
    runtime, state = Runtime(out), recording.init_state(1)
    fired = 0
    for token in tokens(1, 30, vocab_size=280)[0].tolist():
        found = recording.step(torch.tensor([token]), state)
        state = found.state if recording.remaining(found.state) else recording.commit(found.state)[0]
        results = runtime._run("step", {"token": np.array([token]), "prosody": np.zeros((1, 3), np.float32)})
        runtime._end_span()
        raster = found.events.raster
        assert raster is not None and np.array_equal(results["raster"], raster[:, 0].numpy())
        assert np.array_equal(results["raster"].sum(-1), results["spikes"])
        fired += int(results["spikes"].sum())
    assert fired > 50


def test_the_counted_work_lies_beside_and_can_be_priced(exported, capsys):
    brain, out = exported
    energy = json.loads((out / "manifest.json").read_text())["energy"]
    load = workload.read(out / energy["workload"])
    assert [phase.name for phase in load.phases if phase.tokens] == ["decode"] and energy["tokens"] == 128
    products = sum(row.count for row in load.operations if row.kind == "mac")
    assert (
        energy["multiply_accumulates_per_token"] == round(products / 128) > sum(brain.parameter_counts().values()) / 4
    )
    assert energy["spikes_per_token"] > 1
    assert main(["energy", str(out / energy["workload"]), "--chip", "loihi1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["schema"].startswith("neuro.energy")


def test_the_manifest_says_which_state_is_memory(exported):
    brain, out = exported
    manifest = json.loads((out / "manifest.json").read_text())
    state = brain.init_state(1)
    held = {id(tensor) for tensor in contents.held(state).values()}
    assert manifest["memory"] == [INTO + path for path, leaf in leaves(state) if id(leaf) in held]
    assert len(manifest["memory"]) == len(held) == 6


@pytest.mark.parametrize("name", ["index.html", "neuro.mjs", "golden.json"])
def test_a_changed_or_missing_file_is_noticed(exported, tmp_path, name):
    out = shutil.copytree(exported[1], tmp_path / "copy")
    (out / name).write_text((out / name).read_text() + " ")
    with pytest.raises(CheckError, match=f"{name}: is not as exported"):
        check.verify(out)
    (out / name).unlink()
    with pytest.raises(CheckError, match=name):
        check.verify(out)


def test_without_its_packages_the_runner_says_what_to_do(exported):
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node here")
    done = subprocess.run([node, "run.mjs", "--check"], cwd=exported[1], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr == "run.mjs: the package onnxruntime-web is missing.\nRun npm install in this folder.\n"


@pytest.mark.parametrize("recipe", ["int8-static", "int4"])
def test_the_other_recipes_leave_as_folders_too(exported, tmp_path, recipe, capsys, monkeypatch):
    """Each with a calibration text, which the manifest names and holds the hash of."""
    brain, out = exported
    text = tmp_path / "text.txt"
    text.write_text("The keeper counted the boats twice, and the boats counted him. " * 60)
    monkeypatch.setitem(quantize.CALIBRATED, "int4", 96)
    given = ["--profile", "web", "--quantize", recipe, "--calibration", str(text)]
    assert main(["export", str(out / "torch"), *given, "--out", str(tmp_path / "q"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["quantization"]
    assert told["recipe"] == recipe
    expected = {"text": "text.txt", "sha256": hashlib.sha256(text.read_bytes()).hexdigest()}
    assert told["calibration"].items() >= (expected | {"tokens": quantize.CALIBRATED[recipe]}).items()
    assert main(["verify", str(tmp_path / "q"), "-q"]) == 0
    assert Runtime(tmp_path / "q").step([5]).shape == (1, brain.config.vocab_size)


def test_calibration_belongs_to_its_recipe(exported, tmp_path, capsys):
    short = tmp_path / "short.txt"
    short.write_text("The keeper.")
    argv = ["export", str(exported[1] / "torch"), "--out", str(tmp_path / "q"), "--quantize"]
    for given, words in (
        (
            ["int8", "--calibration", str(short)],
            "--calibration: got with --quantize int8, expected a text with int8-static or int4 alone.",
        ),
        (["int8-static"], "--calibration: got nothing with --quantize int8-static"),
        (["int8-static", "--calibration", str(short)], "tokens for calibration, expected at least 512"),
        (["int4", "--calibration", str(short)], "tokens for calibration, expected at least 4096"),
        (
            ["int4", "--profile", "dml"],
            "--quantize int4: got --profile dml, expected cpu or web: the DirectML provider",
        ),
    ):
        assert main([*argv, *given]) == 2
        lines = capsys.readouterr().err.strip().split("\n")
        assert len(lines) == 2 and words in lines[0], lines
    assert not (tmp_path / "q").exists()


def test_the_web_runner_samples_as_warm_as_noradrenaline_says():
    """A level of 1 at -4 octaves is a sixteenth of the temperature: the less likely of two ids is then never drawn."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node here")
    script = """
        import { Brain } from "./neuro.mjs";
        class Tensor { constructor(dtype, data, dims) { Object.assign(this, { dtype, data, dims }); } }
        const port = { name: "state.regions.endocrine.modulators", shape: ["batch", 5], dtype: "float32" };
        const said = [];
        for (const temperature_octaves of [undefined, 0, -4]) {
          const state = [{ ...port, initial: [[0.5, 1, 0.5, 0.5, 0.5]] }];
          const brain = new Brain({ Tensor }, { state, memory: [], never_written: [], temperature_octaves }, {});
          said.push([brain.warmth(), brain.choose([0, 1], () => 0.9, 1, 1)]);
        }
        console.log(JSON.stringify(said));
    """
    web = Path(__file__).parents[2] / "export" / "web"
    done = subprocess.run(
        [node, "--input-type=module", "-e", script], cwd=web, capture_output=True, text=True, check=False
    )
    assert done.stderr == "" and json.loads(done.stdout) == [[1, 0], [1, 0], [1 / 16, 1]]
