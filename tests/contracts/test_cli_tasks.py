"""``neuro train TASK`` and ``neuro eval DIR`` for networks of spikes, on made-up recordings in the formats of the real ones."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from neuro.cli import main


def encode(address: np.ndarray, time_us: np.ndarray) -> bytes:
    columns = [address >> 8, address & 255, 128 | time_us >> 16, time_us >> 8 & 255, time_us & 255]
    return np.stack(columns, 1).astype(np.uint8).tobytes()


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """A folder NEURO_DATA with thirty recordings of bright rows, one row a label, and a pair of spike trains."""
    root, generator = tmp_path / "data", np.random.default_rng(0)
    for name in ("nmnist-small", "oxford-spikes"):
        (root / name).mkdir(parents=True)
    files = {"train1K.txt": "".join(f"{k}\t{k % 10}\n" for k in range(1, 31)).encode()}
    for k in range(1, 31):
        x, y = generator.integers(8, 26, 200), np.full(200, 4 + 3 * (k % 10))
        files[f"{k}.bs2"] = encode(x << 8 | y, np.sort(generator.integers(0, 300_000, 200)))
    with tarfile.open(root / "nmnist-small" / "NMNISTsmall.tar.xz", "w:xz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    for name, count in (("input", 300), ("output", 900)):
        times = np.sort(generator.integers(0, 1_890_000, count))
        (root / "oxford-spikes" / f"{name}.bs1").write_bytes(encode(generator.integers(0, 200, count), times))
    monkeypatch.setenv("NEURO_DATA", str(root))
    return root


def ran(capsys, *argv: str) -> tuple[int, str, str]:
    code = main([str(word) for word in argv])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("neuron", ["spiking", "graded"])
def test_a_classifier_is_trained_measured_and_measured_again(data, tmp_path, capsys, neuron):
    out = tmp_path / "run"
    sets = ["--set", "epochs=2", "--set", f"neuron={neuron}", "--set", "fold=1"]
    code, text, _ = ran(capsys, "train", "nmnist", "--out", out, *sets, "-q")
    assert code == 0 and text.startswith(f"nmnist, {neuron}, fold 1:") and "multiply-accumulates a sample" in text
    assert ("synaptic operations" in text) == (neuron == "spiking") and "modelled energy" in text
    result = json.loads((out / "result.json").read_text())
    assert result["schema"] == "neuro.task/1" and result["samples"] == 6 and result["plan"]["epochs"] == 2
    assert {path.name for path in out.iterdir()} == {"checkpoint.safetensors", "classifier.safetensors", "result.json"}
    code, text, _ = ran(capsys, "eval", out, "--json")
    assert code == 0 and json.loads(text) == result
    if neuron == "spiking":
        assert result["synaptic_ops"] >= result["spikes"][-1] * 10 > 0 and result["joules"]["on"] == "loihi1"
    else:
        assert result["synaptic_ops"] is None and result["joules"]["on"] == "cpu:e5-2630"


def test_a_classifier_is_measured_in_a_chips_integers(data, tmp_path, capsys):
    out = tmp_path / "run"
    assert ran(capsys, "train", "nmnist", "--out", out, "--set", "epochs=2", "--set", "reset=hard")[0] == 0
    code, text, _ = ran(capsys, "eval", out, "--chip", "loihi1", "--json")
    found = json.loads(text)
    assert code == 0 and found["on_chip"]["accuracy_float"] == found["accuracy"]
    assert found["on_chip"]["samples"] == found["samples"] and found["on_chip"]["layers"]["spikes"][0] > 0
    assert min(found["on_chip"]["layers"]["steps_that_agree"]) > 0.9
    code, text, _ = ran(capsys, "eval", out, "--chip", "loihi1")
    assert code == 0 and "right in its integers" in text and "out of the chip's ranges" in text
    assert json.loads((out / "result.json").read_text()).keys() == found.keys() - {"on_chip"}
    code, _, error = ran(capsys, "eval", out, "--chip", "xylo_audio3")
    assert code == 4 and error.startswith("chip xylo_audio3: does not fit: a hard reset, the chip's is soft; decay 0.8")
    assert ran(capsys, "eval", out, "--chip", "loihi")[0] == 2
    code, _, error = ran(capsys, "eval", "small", "book.txt", "--chip", "loihi1")
    assert code == 2 and "expected it only with a network that train wrote" in error
    graded = tmp_path / "graded"
    sets = ("--set", "epochs=1", "--set", "neuron=graded")
    assert ran(capsys, "train", "nmnist", "--out", graded, *sets)[0] == 0
    code, _, error = ran(capsys, "eval", graded, "--chip", "loihi1")
    assert code == 2 and "chip: got neuron 'graded' and start 0.0, expected 'spiking' and 0." in error
    code, _, error = ran(capsys, "train", "nmnist", "--out", graded, *sets, "--set", "reset=hard")
    assert code == 2 and "got --set reset for graded neurons" in error
    code, _, error = ran(capsys, "train", "nmnist", "--out", graded, "--set", "reset=hart")
    assert code == 2 and "got --set reset=hart, expected soft or hard.\nDid you mean 'hard'?" in error


def test_an_answer_to_a_train_is_learned_and_measured(data, tmp_path, capsys):
    out = tmp_path / "run"
    code, text, _ = ran(capsys, "train", "oxford", "--out", out, "--set", "steps=30", "--set", "hidden=32", "-q")
    assert code == 0 and text.startswith("oxford: van Rossum distance")
    result = json.loads((out / "result.json").read_text())
    assert result["distance"] < result["untrained"] and result["config"]["hidden"] == 32
    code, text, _ = ran(capsys, "eval", out, "--out", tmp_path / "again")
    assert code == 0 and "spikes" in text
    assert json.loads((tmp_path / "again" / "eval.json").read_text()) == result


def test_what_has_no_effect_is_refused(data, tmp_path, capsys):
    out = tmp_path / "run"
    ran(capsys, "train", "oxford", "--out", out, "--set", "steps=1", "--set", "hidden=8", "-q")
    refused = [
        (["eval", out, "book.txt"], "neuro eval: got a text, expected none for a network of spikes.\nLeave it out."),
        (["eval", out, "--suite", "recall"], "neuro eval: got --suite recall, expected none for a network of spikes."),
        (["eval", out, "--rows", "3"], "neuro eval: got --rows, expected none for a network of spikes."),
        (["eval", out, "--seed", "3"], "neuro eval: --seed has no effect here.\nLeave out --seed."),
        (["train", "nmnist", "--set", "fold=9"], "fold: got '9', expected one of 0, 1, 2, 3, 4."),
        (
            ["train", "nmnist", "--set", "epoch=9"],
            "train nmnist: got --set epoch, which is no key of it.\nDid you mean 'epochs'?",
        ),
        (
            ["train", "nmnist", "--set", "folds=2"],
            "train nmnist: got --set folds, which is no key of it.\nDid you mean 'fold'?",
        ),
        (["train", "nmnist", "--set", "neuron=lif"], "task nmnist: got neuron 'lif'."),
        (["train", "nmnist", "--set", "seed=3"], "train nmnist: got --set seed=3, expected --seed.\nWrite --seed 3."),
    ]
    for argv, says in refused:
        code, _, err = ran(capsys, *argv)
        assert code == 2 and err.startswith(says), err


def test_several_processes_are_refused_before_any_of_them_learns(data, tmp_path, capsys, monkeypatch):
    """Under torchrun each would train the same network into the same folder."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, error = ran(capsys, "train", "nmnist", "--out", tmp_path / "run")
    assert code == 2 and not (tmp_path / "run").exists()
    assert error == (
        "train nmnist: got 2 processes, expected one: a task of recorded spikes is not shared.\n"
        "Start it without torchrun.\n"
    )


def test_a_folder_without_the_recordings_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NEURO_DATA", str(tmp_path))
    code, _, err = ran(capsys, "train", "nmnist", "--out", tmp_path / "run")
    assert code == 3 and "NMNISTsmall.tar.xz: no such file." in err and not (tmp_path / "run").exists()
