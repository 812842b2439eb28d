"""What a stranger types wrong at first: what would be ignored is refused, and the answer says what to type."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import pytest

from neuro.cli import doctor, main

WAITING = (
    "standard input: got a text and no prompt, expected '-' as the prompt.\n"
    "Give '-' to continue what is piped in, or a prompt to leave it alone.\n"
)


@pytest.fixture(scope="module")
def model(saved_model) -> Path:
    return saved_model(["Nobody knows the colour of the old boat."] * 30)


def refused(capsys, *argv: object) -> tuple[int, str]:
    code = main([str(item) for item in argv])
    return code, capsys.readouterr().err


@pytest.fixture
def pipe(monkeypatch):
    """Makes a pipe that already holds these bytes standard input; its other end is closed."""

    with contextlib.ExitStack() as opened:

        def make(held: bytes) -> None:
            out, into = os.pipe()
            os.write(into, held)
            os.close(into)
            monkeypatch.setattr(sys, "stdin", opened.enter_context(os.fdopen(out, encoding="utf-8")))

        yield make


@pytest.mark.skipif(sys.platform == "win32", reason="nobody can ask there whether a pipe holds anything")
def test_a_text_that_is_piped_in_is_not_passed_over(model, capsys, pipe):
    for verb in (["run", model, "--tokens", "1"], ["energy", model]):
        pipe(b"the old boat")
        assert refused(capsys, *verb) == (2, WAITING)
    pipe(b"the old boat")
    assert main(["run", str(model), "-", "--tokens", "0", "-q"]) == 0
    assert capsys.readouterr().out == "the old boat\n"


def test_an_empty_pipe_and_one_beside_a_prompt_disturb_nobody(model, capsys, pipe, monkeypatch):
    pipe(b"")
    assert main(["run", str(model), "--tokens", "0", "-q"]) == 0
    pipe(b"a list that a loop reads\n")
    assert main(["run", str(model), "Nobody", "--tokens", "0", "-q"]) == 0
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["run", str(model), "--tokens", "0", "-q"]) == 0
    assert "Nobody" in capsys.readouterr().out


def test_a_speed_of_nothing_is_not_told(model, capsys):
    main(["run", str(model), "Nobody", "--tokens", "0"])
    assert "wrote" not in capsys.readouterr().err.split("speed")[1].split("\n")[0]
    main(["run", str(model), "Nobody", "--tokens", "2"])
    assert ", wrote 2 at " in capsys.readouterr().err


def test_what_is_known_already_is_read_at_no_speed(model, capsys, tmp_path):
    (tmp_path / "a.txt").write_text("Nobody knows the colour.\n", encoding="utf-8")
    told = []
    for _ in range(2):
        assert main(["remember", str(model), str(tmp_path / "a.txt"), "--memory", str(tmp_path / "m")]) == 0
        told.append(capsys.readouterr())
    assert "tokens/s" in told[0].err and told[1].err == "" and "(1 known already)" in told[1].out


def test_the_columns_of_the_doctor_stand_below_one_another(capsys, monkeypatch):
    probes = {
        "_system": "ok",
        "_packages": "p",
        "_backends": "event kernels",
        "_extras": "x",
        "_energy": "e",
        "_models": "m",
    }
    for probe, name in probes.items():
        monkeypatch.setattr(doctor, probe, lambda name=name: [{"name": name, "ok": True, "says": "SAYS"}])
    assert main(["doctor"]) == 0
    rows = [line for line in capsys.readouterr().out.split("\n") if line.startswith("  ")]
    assert len(rows) == 6 and {row.index("SAYS") for row in rows} == {len("  ok  event kernels ")}


@pytest.mark.parametrize("text", ["= Once upon a time =\n", "\x00"])
def test_a_text_is_no_configuration(text, capsys, tmp_path):
    path = tmp_path / "book.txt"
    path.write_text(text, encoding="utf-8")
    for verb in (["config", "check", path], ["train", path, "--out", tmp_path / "run"]):
        code, err = refused(capsys, *verb)
        assert code == 2 and f"config '{path}': got a file that is no TOML (" in err
        assert "Give a TOML file; 'neuro config show' prints a full one." in err
    code, err = refused(capsys, "config", "check", tmp_path)
    assert code == 2 and err.startswith(f"config '{tmp_path}': got a folder, expected a preset or a TOML file.\n")


def test_a_run_folder_and_a_text_in_the_place_of_the_model(model, capsys, tmp_path):
    (tmp_path / "model").symlink_to(model, target_is_directory=True)
    assert refused(capsys, "run", tmp_path, "x") == (
        3,
        f"model '{tmp_path}': the folder has no config.json.\nGive {tmp_path / 'model'}.\n",
    )
    assert refused(capsys, "run", "Once upon a time") == (
        3,
        "model 'Once upon a time': neither a shipped model nor a folder.\n"
        "The model comes before the text, for example: neuro run small 'Once upon a time'.\n",
    )


def test_show_refuses_what_it_would_ignore(model, capsys):
    assert refused(capsys, "show", model, "Once") == (
        2,
        "neuro show: a text has no effect without --spikes or --limbic.\nAdd one of them, or leave the text out.\n",
    )
    for picture in ("--spikes", "--limbic"):
        assert refused(capsys, "show", model, "Once", picture, "--format", "svg") == (
            2,
            "neuro show: --format is of the wiring, not of a picture.\nName the picture: --out FILE.svg\n",
        )
