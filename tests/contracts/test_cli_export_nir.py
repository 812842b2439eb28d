"""neuro export --to nir: one file for each spiking part, which the other verbs take, and errors of two lines."""

from __future__ import annotations

import json
import sys

import pytest

import backends
from neuro import nir_graph as nir
from neuro.cli import main
from neuro.errors import UsageError
from neuro.spiking_classifier import ClassifierConfig, LayerConfig, SpikingClassifier
from neuro.train import classify


def test_the_shipped_brain_leaves_as_files(tmp_path, capsys):
    assert main(["export", "small", "--to", "nir", "--out", str(tmp_path / "b.nir"), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["schema"] == "neuro.export.nir/1" and record["model"] == "small"
    assert [row["part"] for row in record["parts"]] == [f"cortex.layers.{n}.feedforward" for n in (0, 1, 3)]
    assert {row["file"] for row in record["parts"]} == {str(path) for path in tmp_path.iterdir()}
    for row in record["parts"]:
        assert row["input"] == [257] and row["output"] == [256] and row["dt"] == 1e-3
        assert nir.read(row["file"]).metadata["part"] == row["part"]
    assert main(["energy", record["parts"][0]["file"], "--input", "dense", "--json"]) == 0


@pytest.mark.parametrize("as_folder", [True, False])
def test_a_classifier_leaves_as_the_file_named(tmp_path, capsys, as_folder):
    model = SpikingClassifier(ClassifierConfig((6,), (LayerConfig(5),), 3), backends.select("cpu").ops)
    file = tmp_path / "run" / "classifier.safetensors"
    file.parent.mkdir()
    classify.save(file, model, {"task": "nmnist", "neuron": "spiking"})
    given = file.parent if as_folder else file
    assert main(["export", str(given), "--to", "nir", "--out", str(tmp_path / "c.nir")]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{tmp_path / 'c.nir'}: classifier, 6 -> 3, ")
    assert "reset subtract, fires at the threshold, dt 0.05 s" in said
    assert nir.read(tmp_path / "c.nir").metadata["dt"] == 0.05


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (
            ["small", "--to", "nir", "--out", "b.nir", "--quantize", "int8"],
            2,
            "neuro export --to nir: --quantize has no effect here.\nLeave out --quantize.\n",
        ),
        (["nowhere", "--to", "nir", "--out", "b.nir"], 3, "model 'nowhere': neither a shipped model nor a folder.\n"),
        (
            ["small", "--to", "nirr", "--out", "b.nir"],
            2,
            "--to: got 'nirr', expected one of ",
        ),
    ],
)
def test_mistakes_are_two_lines(words, code, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", *words]) == code
    said = capsys.readouterr().err
    assert said.startswith(text) and len(said.splitlines()) == 2
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "nir", None)
    assert main(["export", "small", "--to", "nir", "--out", str(tmp_path / "b.nir")]) == 3
    assert capsys.readouterr().err.endswith("pip install 'neuro-hybrid[nir]'\n")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_graph_is_not_overwritten(tmp_path):
    notes = tmp_path / "notes.txt"
    notes.write_text("weeks of work")
    with pytest.raises(UsageError, match=r"notes\.txt: there is a file that is no NIR file\.\nChoose another name"):
        nir.write(nir.Graph({"in": nir.Input((2,)), "out": nir.Output((2,))}, (("in", "out"),)), notes)
    assert notes.read_text() == "weeks of work" and list(tmp_path.iterdir()) == [notes]
