"""Looking at spikes from the command line: views, recordings, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from neuro import plots
from neuro.cli import main
from neuro.plots import spikes
from neuro.recorder import Recorder, Recording

TEXT = "The keeper of the lamp in the harbour is called Victor.\nNobody knows the colour of the old boat.\n" * 30
VIEWS = ("overview", "raster", "rates", "membrane", "weights", "surrogate")


@pytest.fixture(scope="module")
def model(saved_model) -> str:
    return str(saved_model(TEXT.split("\n")))


@pytest.fixture(scope="module")
def recording(model, tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("recordings") / "run")
    assert main(["run", model, "The keeper", "--tokens", "30", "-q", "--record", path]) == 0
    return path


def refused(capsys, *argv: object) -> tuple[int, list[str]]:
    code = main([str(item) for item in argv])
    return code, capsys.readouterr().err.strip().split("\n")


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_of_a_model_is_drawn(view, model, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    out = tmp_path / "x.svg"
    assert main(["show", model, "The keeper of the lamp", "--spikes", "--view", view, "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out) and "</svg>" in out.read_text(encoding="utf-8")
    code, lines = refused(capsys, "show", model, "--spikes", "--view", view, "--out", tmp_path / "y.png")
    if view in ("weights", "surrogate"):  # what there is to see without a text
        assert code == 0 and (tmp_path / "y.png").read_bytes()[:4] == b"\x89PNG"
    else:
        assert (code, lines[0]) == (2, "neuro show --spikes: no text to run.")


@pytest.mark.parametrize("view", ["raster", "rates", "membrane"])
def test_a_recording_is_drawn(view, recording, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    out = tmp_path / "x.svg"
    argv = ["show", recording, "--spikes", "--view", view, "--out", str(out), "--steps", "3:20", "--json"]
    assert main(argv) == 0
    assert json.loads(capsys.readouterr().out) == {"schema": "neuro.show/1", "picture": str(out)}
    assert "cortex.layers.0.feedforward" in out.read_text(encoding="utf-8")


def test_a_recording_of_a_simulation_is_drawn_in_milliseconds(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    spikes = np.random.default_rng(0).random((40, 2, 9)) < 0.2
    with Recorder(tmp_path / "run", {"spikes": "spikes", "membrane": "values"}, dt_ms=0.5) as writer:
        writer.add({"spikes": spikes, "membrane": spikes * 1.5})
    out = tmp_path / "x.svg"
    for view in ([], ["--view", "membrane"], ["--view", "rates"]):
        assert main(["show", str(tmp_path / "run"), "--spikes", *view, "--out", str(out)]) == 0
        text = out.read_text(encoding="utf-8")
        assert "time (ms)" in text or "firing rate (Hz)" in text
        if not view:  # the raster is that of the first row
            assert f"spikes  (9 neurons, {1000 * spikes[:, 0].mean() / 0.5:.1f} Hz)" in text
        if "rates" in view:
            assert f"mean {2000 * spikes.mean():.3g}" in text


def test_recording_changes_nothing_and_keeps_every_spike(model, tmp_path, capsys):
    texts, done = [], []
    for extra in ([], ["--record", str(tmp_path / "run")]):
        assert main(["run", model, "The", "--tokens", "20", "--json", *extra]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.split("\n") if line]
        texts.append([line["id"] for line in lines if line["event"] == "token"])
        done.append(lines[-1]["spikes_per_token"])
    assert texts[0] == texts[1] and done[0] == done[1]
    reader = Recording(tmp_path / "run")
    counted = reader.read("raster").sum((0, 1, 3)) / reader.steps
    assert [round(float(x), 2) for x in counted] == list(done[0].values())
    assert reader.about["model"] == model


def test_run_says_how_to_draw_what_it_recorded(model, tmp_path, capsys):
    path = tmp_path / "run"
    assert main(["run", model, "The", "--tokens", "3", "--record", str(path)]) == 0
    assert f"tokens in {path}; draw them with: neuro show {path} --spikes" in capsys.readouterr().err


def test_a_folder_that_is_not_empty_is_refused_before_anything_is_read(model, recording, capsys):
    code, lines = refused(capsys, "run", model, "The", "--record", recording)
    assert (code, lines) == (
        2,
        [
            f"recorder: got {recording}, which is not empty, expected an empty or a new folder.",
            "Give another folder; from Python, Recorder(..., resume=True) goes on with a recording of the same signals.",
        ],
    )


def test_without_a_spiking_layer_there_is_nothing_to_look_at(saved_model, tmp_path, capsys):
    dense = saved_model(TEXT.split("\n"), "cortex.feedforwards=dense,dense")
    for argv in (
        ["run", dense, "The", "--record", tmp_path / "run"],
        *(["show", dense, "The", "--spikes", "--view", view] for view in VIEWS),
    ):
        code, lines = refused(capsys, *argv)
        assert (code, lines) == (2, ["brain: record_raster without a spiking layer.", "Make a feed-forward 'spiking'."])
    assert not (tmp_path / "run").exists()


def test_wrong_views_and_names_are_refused(model, recording, tmp_path, capsys):
    listed = "overview, raster, rates, membrane, weights, surrogate"
    for argv, first, second in (
        (
            [model, "x", "--view", "rastre"],
            f"--view: got 'rastre', expected one of {listed}.",
            "Did you mean 'raster'?",
        ),
        (
            [model, "x", "--out", "x.pdf"],
            "picture: got 'x.pdf', expected a name that ends in .png or .svg.",
            "Rename it.",
        ),
        (
            [model, "x", "--steps", "0:5"],
            "--steps has no effect without a recording.",
            "Leave it out, or give a folder of --record.",
        ),
        (
            [recording, "x"],
            "neuro show --spikes: got a recording and a text.",
            "Leave out the text: the run is over.",
        ),
        (
            [recording, "--view", "weights"],
            "--view: got 'weights' of a recording, expected one of raster, rates, membrane.",
            "Give the model instead, and a text where one is needed.",
        ),
        (
            [recording, "--backend", "cpu"],
            "neuro show RECORDING: --backend has no effect here.",
            "Leave out --backend.",
        ),
    ):
        assert refused(capsys, "show", *argv, "--spikes") == (2, [first, second])
    steps = Recording(recording).steps
    for given in ("5", "9:3", f"0:{steps + 1}", "-1:4", "a:b", "4:4"):
        code, lines = refused(capsys, "show", recording, "--spikes", f"--steps={given}")
        assert (code, lines) == (
            2,
            [f"--steps: got '{given}', expected A:B with A < B <= {steps}, the steps recorded.",
             f"For example --steps 0:{steps}."],
        )  # fmt: skip
    for option in (["--view", "raster"], ["--steps", "0:5"]):
        code, lines = refused(capsys, "show", model, *option)
        assert (code, lines) == (
            2,
            [f"neuro show: {option[0]} has no effect without --spikes.", "Add --spikes, or leave it out."],
        )


@pytest.mark.parametrize("name", ["recordings/gone", "empty", "The fox"])
def test_what_is_neither_a_recording_nor_a_model_is_named(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert refused(capsys, "show", name, "--spikes") == (
        3,
        [
            f"{name}: no recording and no model here.",
            'Give the folder of a --record, or a model and a text: neuro show small "Once upon a time" --spikes',
        ],
    )


def test_a_model_without_a_text_has_nothing_to_show(model, capsys):
    assert refused(capsys, "show", model, "--spikes") == (
        2,
        ["neuro show --spikes: no text to run.", 'Give one: neuro show small "Once upon a time" --spikes'],
    )


def test_a_recording_without_spikes_or_membranes_says_so(tmp_path, capsys):
    with Recorder(tmp_path / "a", {"u": "values"}) as writer:
        writer.add({"u": np.ones((4, 1, 2))})
    assert refused(capsys, "show", tmp_path / "a", "--spikes") == (
        2,
        [f"{tmp_path / 'a'}: no signal of spikes [T, B, N] in it, only u.",
         "Record one, or read the others with neuro.recorder.Recording."],
    )  # fmt: skip
    with Recorder(tmp_path / "b", {"s": "spikes"}) as writer:
        writer.add({"s": np.ones((4, 1, 2))})
    assert refused(capsys, "show", tmp_path / "b", "--spikes", "--view", "membrane") == (
        2,
        [f"{tmp_path / 'b'}: no signal 'membrane' of the shape of 's' in it.", "Record one, or draw the raster."],
    )


def test_a_damaged_chunk_is_named(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    path, out = tmp_path / "run", tmp_path / "x.png"
    with Recorder(path, {"spikes": "spikes"}, chunk_steps=8) as writer:
        writer.add({"spikes": np.ones((20, 1, 5))})
    chunk = path / "chunk-000001.npz"
    chunk.write_bytes(chunk.read_bytes()[:100])
    code, lines = refused(capsys, "show", path, "--spikes", "--out", out)
    assert code == 1 and lines[0].startswith(f"{chunk}: not a whole chunk (")
    assert lines[1] == "Steps 8 to 16 are lost: put the file back, or read other ranges; they are whole."
    chunk.unlink()
    code, lines = refused(capsys, "show", path, "--spikes", "--view", "rates", "--out", out)
    assert (code, lines[0]) == (1, f"{chunk}: missing.") and not out.exists()
    assert main(["show", str(path), "--spikes", "--steps", "16:20", "--out", str(out)]) == 0


@pytest.mark.parametrize("view", VIEWS)
def test_without_matplotlib_a_view_says_how_to_get_it(view, model, tmp_path, capsys, monkeypatch):
    for module in (plots, spikes):
        monkeypatch.setattr(module, "_pyplot", lambda: None)
    code, lines = refused(capsys, "show", model, "The", "--spikes", "--view", view, "--out", tmp_path / "x.png")
    assert (code, lines) == (
        3,
        ["neuro show --spikes needs matplotlib.", "pip install 'neuro-hybrid[plots]'"],
    )
