"""The runner of an export: alone with numpy and onnxruntime, it reads, samples and refuses as the brain does."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from export import check, package, runtime
from export.runtime import Runtime, nucleus
from neuro import folder
from neuro.sampling import Sampler
from neuro.session import Session
from neuro.tokenizer import Tokenizer

pytestmark = pytest.mark.usefixtures("traced_once")


def test_the_folder_runs_without_this_package(exported, tmp_path):
    """From elsewhere, with an interpreter that cannot import neuro, torch or onnx."""
    block = "import sys; sys.modules.update(dict.fromkeys(('neuro', 'torch', 'onnx', 'export', 'backends')))"
    script = f"{block}; import runpy; runpy.run_path({str(exported[1] / 'run.py')!r}, run_name='__main__')"
    for arguments in (["The keeper", "--tokens", "5"], ["12", "7", "43", "--tokens", "5"], ["--check"]):
        done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()


def test_the_runner_reads_a_literal_bos_as_the_tokenizer_does(exported, monkeypatch, capsys):
    out, read = exported[1], []
    monkeypatch.setattr(Runtime, "generate", lambda self, ids, n, *how: read.extend(ids) or [])
    monkeypatch.setattr(runtime, "__file__", str(out / "run.py"))
    monkeypatch.setattr(sys, "argv", ["run.py", "a<bos>b <unk>"])
    assert runtime.main() == 0
    tokenizer = Tokenizer.load(out / "tokenizer.json")
    assert read == [tokenizer.bos_id, *tokenizer.encode("a<bos>b <unk>")]
    assert tokenizer.bos_id not in read[1:]


def test_the_runner_refuses_an_id_that_is_none_in_two_lines(exported):
    argv = [sys.executable, str(exported[1] / "run.py"), "12", "99999"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    most = json.loads((exported[1] / "manifest.json").read_text(encoding="utf-8"))["vocab_size"]
    assert done.stderr.split("\n") == [
        f"run.py: got the token id 99999, expected ids below {most}.",
        "Give ids of this folder's tokenizer.json, or a text.",
        "",
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("manifest.json", "[]", "got a list, expected an object"),
        ("onnx/model.onnx", "no graph", "cannot open it"),
        ("golden.npz", "no numbers", "run.py: "),
        ("tokenizer.json", "{", "tokenizer.json"),
    ],
)
def test_the_runner_refuses_a_damaged_folder_in_two_lines(exported, tmp_path, monkeypatch, capsys, name, content, said):
    out = tmp_path / "out"
    shutil.copytree(exported[1], out)
    (out / name).write_text(content)
    monkeypatch.setattr(runtime, "__file__", str(out / "run.py"))
    monkeypatch.setattr(sys, "argv", ["run.py", *(["--check"] if name == "golden.npz" else ["The", "--tokens", "1"])])
    assert runtime.main() == 4
    lines = capsys.readouterr().err.strip().split("\n")
    assert len(lines) == 2 and said in lines[0] and lines[1] == "Copy or export the folder again, whole."


def test_the_runner_writes_no_fewer_tokens_than_none(exported, monkeypatch, capsys):
    monkeypatch.setattr(runtime, "__file__", str(exported[1] / "run.py"))
    monkeypatch.setattr(sys, "argv", ["run.py", "The", "--tokens", "-3"])
    assert runtime.main() == 2
    assert capsys.readouterr().err.startswith("run.py: got --tokens -3, expected 0 or more.")


def test_the_runner_samples_as_warm_as_the_brain(save_model, exported, tmp_path):
    """Same warmth, same ids from the same draws, before and after commits; without octaves nothing is written of them."""
    model, out = save_model(["endocrine.temperature_octaves=2.0"]), tmp_path / "out"
    package.export_onnx(model, out)
    brain, runner = folder.load(model, "cpu"), Runtime(out)
    assert runner.manifest["temperature_octaves"] == 2.0
    assert "temperature_octaves" not in Runtime(exported[1]).manifest
    session, choose, again = Session(brain), Sampler(0.9, 0.95, seed=5), Sampler(0.9, 0.95, seed=5)
    session.feed(torch.arange(30).unsqueeze(0))
    logits = runner.feed([list(range(30))])[:, -1]
    warmths = []
    for token in session.generate(choose, 40):
        warmths.append(float(runner.warmth()[0]))
        assert again(torch.from_numpy(logits[0]), warmths[-1]) == token
        logits = runner.step([token])
    assert warmths[-1] == pytest.approx(float(brain.warmth(session.state)[0]), abs=1e-6)
    assert len(set(warmths)) >= 3, "two commits at least"
    check.verify(out)


def test_the_runners_nucleus_is_the_samplers():
    logits = torch.randn(50, generator=torch.Generator().manual_seed(1))
    p, ids = torch.softmax(logits.double() / 0.7, 0).sort(descending=True)
    kept = p.masked_fill(p.cumsum(0) - p >= 0.8, 0.0)
    expected = torch.zeros(50, dtype=torch.float64).scatter(0, ids, kept / kept.sum()).numpy()
    assert nucleus(logits.numpy(), 0.7, 0.8) == pytest.approx(expected)
    assert 1 < (expected > 0).sum() < 50


def test_the_runner_samples_from_a_seed_and_refuses_what_is_no_temperature(exported):
    runner = Runtime(exported[1])

    def written(**options):
        runner.reset()
        return runner.generate([], 20, **options)

    assert written(temperature=1.0, seed=3) == written(temperature=1.0, seed=3) != written(temperature=1.0, seed=4)
    cool = written(temperature=1e-6)
    assert cool == written()
    runner.warmth = lambda: np.array([1e-6])
    assert written(temperature=1.0) == cool
    del runner.warmth
    banned = runner.manifest["never_written"]
    assert banned and not set(written(temperature=50.0, top_p=1.0)) & set(banned)
    with pytest.raises(
        ValueError, match=r"got temperature -1 and top_p 0.9, expected 0 or more and a share in \(0, 1\]"
    ):
        runner.generate([], 1, -1, 0.9)
    done = subprocess.run(
        [sys.executable, "run.py", "--top-p", "0"], cwd=exported[1], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == (
        "run.py: got --temperature 0.0, --top-p 0.0, --seed 0, expected 0 or more, a share in (0, 1], 0 or more.\n"
        "Leave them out, or give --temperature 0.9.\n"
    )
    options = ["--temperature", "1", "--seed", "3", "--tokens", "5"]
    done = subprocess.run(
        [sys.executable, "run.py", *options, "7"], cwd=exported[1], capture_output=True, text=True, check=False
    )
    runner.reset()
    own = runner.generate([runner.manifest["bos"], 7], 5, 1.0, seed=3)
    assert done.stdout.split() == [str(token) for token in own]


def test_batch_of_the_runtime_is_checked(exported):
    runtime = Runtime(exported[1], batch=2)
    with pytest.raises(ValueError, match="expected 2 ids"):
        runtime.step([1])
    with pytest.raises(ValueError, match="ids below"):
        runtime.step([1, 10**6])
