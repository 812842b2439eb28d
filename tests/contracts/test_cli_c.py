"""neuro export --to c and neuro verify on what it wrote: folders whole or not at all, two-line errors, exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from export.c import board, package
from export.c.quantized import check
from neuro import folder
from neuro.cli import main
from neuro.config import apply_sets
from neuro.errors import CheckError, MissingError, NeuroError, UsageError
from neuro.presets import tiny
from neuro.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def model(tiny_brain, tmp_path_factory) -> Path:
    tokenizer = Tokenizer.train(["The keeper counted the boats twice, and the boats counted him. "] * 30, 300)
    brain = tiny_brain([f"vocab_size={tokenizer.vocab_size}"])
    brain.tokenizer = tokenizer
    return folder.save(brain, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory) -> tuple[Path, dict]:
    """A folder and its manifest, by way of the function; without a cross compiler, so that it is quick."""
    out = tmp_path_factory.mktemp("export") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(board, "missing", _only_host)
        return out, package.export_c(model, out, "cortex-m4")


_missing = board.missing


def _only_host(name: str, running: bool = True) -> str | None:
    return _missing(name, running) if name == board.HOST else "arm-none-eabi-gcc"


@pytest.fixture
def no_compilers(monkeypatch):
    monkeypatch.setattr(board, "missing", lambda name, running=True: "make")


def test_the_manifest_says_what_it_takes(exported):
    out, manifest = exported
    assert manifest == json.loads((out / "manifest.json").read_text())
    assert manifest["target"] == "cortex-m4" and manifest["memory"] is True
    for part in ("flash", "ram"):
        assert manifest[part]["total"] == sum(manifest[part]["terms"].values()) <= manifest[part]["limit"]
    assert any("episodic" in term for term in manifest["ram"]["terms"])
    assert manifest["parity"]["host"] == ("equal" if _missing(board.HOST) is None else "not run: no make here")
    assert manifest["parity"]["board"] == "not run: no arm-none-eabi-gcc here" and manifest["instructions"] is None
    assert manifest["energy"]["joules"] is None and "no published energy" in manifest["energy"]["unpriced"]
    assert {"neuro.c", "neuro_model.c", "Makefile", "golden/expected.bin", "README.md", "tokenizer.json"} <= set(
        manifest["files"]
    )
    assert "make check" in (out / "README.md").read_text()


def test_verify_says_it_is_fine(exported, capsys):
    out, manifest = exported
    assert main(["verify", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] and said["target"] == "cortex-m4" and said["files"] == len(manifest["files"])


def test_the_command_line_writes_the_same_folder(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(board, "missing", lambda name, running=True: "make")
    out = tmp_path / "out"
    command = ["export", str(model), "--to", "c", "--target", "cortex-m7", "--out", str(out)]
    assert main(command) == 0
    assert "every memory on" in capsys.readouterr().out
    off = ["--set", "hippocampus.enabled=false", "--set", "procedural.enabled=false"]
    assert main([*command, *off, "--json"]) == 0  # replaces the folder
    said = json.loads(capsys.readouterr().out)
    assert said["memory"] is False and not any("episodic" in term for term in said["ram"]["terms"])
    assert "WITHOUT its episodic and procedural memory" in (out / "README.md").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ([], 2, "no target, expected one of cortex-m4, cortex-m7, cortex-m55.\nName one with --target."),
        (["--target", "cortex-m3"], 2, "--target: got 'cortex-m3', expected one of cortex-m4, cortex-m7, cortex-m55."),
        (["--target", "cortex-m4", "--quantize", "int4"], 2, "--quantize: got 'int4', expected int8 with --to c."),
        (["--target", "cortex-m4", "--set", "hippocampus.slots=4096"], 4, "bytes of RAM (episodic memory: slots"),
    ],
    ids=["no_target", "unknown_target", "other_bits", "too_small"],
)
def test_what_is_refused_and_leaves_nothing_behind(arguments, code, text, model, tmp_path, capsys, no_compilers):
    assert main(["export", str(model), "--to", "c", "--out", str(tmp_path / "out"), *arguments]) == code
    said = capsys.readouterr().err
    assert text in said and len(said.strip().splitlines()) == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("sets", "key"),
    [
        (["thalamus.enabled=false"], "brain.thalamus.enabled false"),
        (["amygdala.enabled=false"], "brain.amygdala.enabled false"),
        (["endocrine.enabled=false"], "brain.endocrine.enabled false"),
        (["hippocampus.enabled=false"], "brain.hippocampus.enabled false"),
        (["procedural.rule=delta"], "brain.procedural.rule 'delta'"),
        (["hippocampus.contiguity=0.5"], "brain.hippocampus.contiguity 0.5"),
        (["hippocampus.contiguity=0.5", "hippocampus.segments=true"], "brain.hippocampus.contiguity 0.5"),
        (["procedural.through_dense=true"], "brain.procedural.through_dense true"),
        (["procedural.natural=true"], "brain.procedural.natural true"),
        (["procedural.outward_half_life_tokens=9"], "brain.procedural.outward_half_life_tokens 9.0"),
        (["procedural.bias_rate=0.01"], "brain.procedural.bias_rate 0.01"),
        (["hippocampus.rebind=true"], "brain.hippocampus.rebind true"),
        (["hippocampus.key_trace=0.5"], "brain.hippocampus.key_trace 0.5"),
        (["hippocampus.key_direct=true"], "brain.hippocampus.key_direct true"),
        (["hippocampus.learned_sparsity=true"], "brain.hippocampus.learned_sparsity true"),
        (["hippocampus.time_cells=6"], "brain.hippocampus.time_cells 6"),
        (["hippocampus.pointer=true"], "brain.hippocampus.pointer true"),
        (["hippocampus.phrase=0.4"], "brain.hippocampus.phrase 0.4"),
        (["hippocampus.controller=learned"], "brain.hippocampus.controller 'learned'"),
        (["vocab_size=40000"], "brain.vocab_size 40000"),
        (["hippocampus.key_width=18"], "brain.hippocampus.key_width 18"),
        (["cortex.heads=16"], "brain.d_model / cortex.heads 2"),
        (
            [
                "cortex.encoding=spikes",
                "cortex.mixers=recurrence",
                "cortex.feedforwards=spiking",
                "procedural.enabled=false",
            ],
            "brain.procedural.enabled false",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_part_that_the_runner_lacks_is_named(sets, key):
    with pytest.raises(UsageError) as caught:
        check(apply_sets(tiny().brain, sets))
    assert caught.value.what.startswith(f"export --to c: got {key}, expected ")
    assert caught.value.do == "Export another model, or use --to onnx."


def test_too_small_a_flash_says_what_does_not_fit(model, tmp_path, monkeypatch, no_compilers):
    small = board.Target("mps2-an386", 40_000, 64_000, "a part of the test")
    monkeypatch.setitem(board.TARGETS, "cortex-m4", small)
    with pytest.raises(CheckError) as caught:
        package.export_c(model, tmp_path / "out", "cortex-m4")
    assert caught.value.what.startswith("export --to c: cortex-m4: got ")
    assert "bytes of flash (int8 weights " in caught.value.what
    assert caught.value.what.endswith("expected at most 40,000 (a part of the test).")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_else_is_left_alone(model, tmp_path):
    (tmp_path / "letter.txt").write_text("dear reader")
    with pytest.raises(UsageError, match="holds something that is no C export"):
        package.export_c(model, tmp_path, "cortex-m4")
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_an_export_that_cannot_be_put_in_place_leaves_the_one_before(
    exported, model, tmp_path, monkeypatch, no_compilers
):
    out = tmp_path / "out"
    shutil.copytree(exported[0], out)
    real = package.Path.rename

    def fails(self, target):
        if self.name == "new":
            raise OSError(28, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(package.Path, "rename", fails)
    with pytest.raises(NeuroError, match="cannot write .No space left on device.") as caught:
        package.export_c(model, out, "cortex-m7")
    assert caught.value.do == "Choose a folder you may write to, with free space."
    assert package.verify(out)["target"] == "cortex-m4" and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_code_that_says_something_else_is_never_written(model, tmp_path, monkeypatch):
    if _missing(board.HOST):
        pytest.skip("no make and C compiler here")
    real = board.run

    def wrong(path, name, work, orders):
        outcome = real(path, name, work, orders)
        return board.Outcome(outcome.output + 1, outcome.report)

    monkeypatch.setattr(board, "missing", _only_host)
    monkeypatch.setattr(board, "run", wrong)
    with pytest.raises(CheckError) as caught:
        package.export_c(model, tmp_path / "out", "cortex-m4")
    assert "the program on host does not say what the reference says" in caught.value.what
    assert not list(tmp_path.iterdir())


def test_verify_refuses_what_is_not_as_exported(exported, tmp_path, no_compilers):
    def broken(change) -> NeuroError:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(exported[0], copy)
        change(copy)
        with pytest.raises(NeuroError) as caught:
            package.verify(copy)
        return caught.value

    error = broken(lambda copy: (copy / "neuro.c").unlink())
    assert isinstance(error, CheckError) and "neuro.c: is not as exported: got nothing" in error.what
    error = broken(lambda copy: (copy / "neuro_model.h").write_text("#define NEURO_WIDTH 1\n"))
    assert "neuro_model.h: is not as exported" in error.what and error.do == "Copy or export the folder again."

    def another_version(copy):
        manifest = json.loads((copy / "manifest.json").read_text()) | {"schema": "neuro.export.c/0"}
        (copy / "manifest.json").write_text(json.dumps(manifest))

    error = broken(another_version)
    assert "got schema 'neuro.export.c/0', expected 'neuro.export.c/1'" in error.what
    assert broken(lambda copy: (copy / "manifest.json").write_text("{")).what.startswith(
        f"{tmp_path}/copy/manifest.json"
    )
    with pytest.raises(MissingError, match="no such folder"):
        package.verify(tmp_path / "nowhere")


def test_a_missing_tool_is_named_with_its_package(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(board, "missing", lambda name, running=True: "qemu-system-arm")
    with pytest.raises(MissingError) as caught:
        board.run(exported[0], "cortex-m4", tmp_path, [])
    assert caught.value.what == "cortex-m4: got no qemu-system-arm, expected one on the path."
    assert caught.value.do == "Install it (Debian: apt install qemu-system-arm)."


def test_a_program_that_does_not_compile_is_an_error_with_the_compilers_word(exported, tmp_path):
    if _missing(board.HOST):
        pytest.skip("no make and C compiler here")
    copy = tmp_path / "copy"
    shutil.copytree(exported[0], copy)
    (copy / "neuro_model.h").write_text("#error broken\n")
    with pytest.raises(NeuroError, match="make program for host failed"):
        board.build(copy, board.HOST, tmp_path / "work")


def test_a_folder_without_a_c_export_is_none(tmp_path):
    assert not package.carries(tmp_path)
    (tmp_path / "manifest.json").write_text('{"schema": "neuro.export/1"}')
    assert not package.carries(tmp_path)
