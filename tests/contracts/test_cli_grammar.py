"""The grammar of the command line: verbs, options, nearest matches, exit codes, two-line errors."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from neuro import cli
from neuro.cli import main
from neuro.errors import CheckError, FormatError, MissingError, NeuroError, UsageError

ROOT = Path(__file__).resolve().parents[2]


def neuro(*argv: str, stdout: int | None = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    """A process of its own, with the buffering a user has."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"} | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-P", "-m", "neuro", *argv],
        stdout=stdout,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        encoding="utf-8",
        env=env,
        check=False,
        timeout=120,
    )


def complaint(capsys, argv: list[str]) -> tuple[int, list[str]]:
    code = main(argv)
    return code, capsys.readouterr().err.strip().split("\n")


def test_help_lists_every_verb_and_every_verb_has_its_module(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for verb in cli.VERBS:
        assert f"  {verb} " in text
        module = importlib.import_module(f"neuro.cli.{verb}")
        assert callable(module.run) and callable(module.add_arguments)


@pytest.mark.parametrize(
    ("typed", "meant"), [("rnu", "run"), ("trian", "train"), ("energi", "energy"), ("docter", "doctor")]
)
def test_an_unknown_verb_gets_the_nearest(capsys, typed, meant):
    assert complaint(capsys, [typed]) == (2, [f"neuro: unknown verb '{typed}'.", f"Did you mean '{meant}'?"])


def test_an_unknown_option_gets_the_nearest(capsys):
    code, lines = complaint(capsys, ["version", "--jsno"])
    assert code == 2 and lines[1] == "Did you mean '--json'?"


def test_options_may_stand_between_the_model_and_its_argument(capsys):
    """argparse alone gives up on `neuro config --json show tiny`."""
    assert main(["config", "--json", "show", "--set", "train.seed=1", "tiny"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_an_unknown_backend_gets_the_nearest(capsys):
    assert complaint(capsys, ["version", "--backend", "cdua"])[1] == ["--backend: got 'cdua'.", "Did you mean 'cuda'?"]


def test_an_option_before_the_verb_is_explained(capsys):
    code, lines = complaint(capsys, ["--json", "version"])
    assert code == 2 and "The verb comes first" in lines[1]


def test_without_arguments_it_helps(capsys):
    assert main([]) == 0
    assert "neuro VERB [MODEL]" in capsys.readouterr().out


def test_the_version_is_that_of_the_package(capsys):
    assert main(["version", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record == {"schema": "neuro.version/1", "version": importlib.import_module("neuro").__version__}
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"neuro {record['version']}\n"


def test_bad_values_are_two_lines_with_code_2(capsys):
    for argv in (["version", "--seed", "x"], ["version", "--backend", "gpu"], ["config"]):
        code, lines = complaint(capsys, argv)
        assert code == 2 and len(lines) == 2, lines


def test_common_options_are_everywhere(capsys):
    for verb in cli.VERBS:
        with pytest.raises(SystemExit) as stop:
            main([verb, "--help"])
        assert stop.value.code == 0
        text = capsys.readouterr().out
        for option in ("--backend", "--seed", "--set", "--out", "--json", "-q", "-v"):
            assert option in text, (verb, option)


GIVEN = {"backend": "cpu", "seed": "1", "set": "brain.d_model=8", "out": "somewhere"}


@pytest.mark.parametrize("option", cli.COMMON)
def test_a_common_option_without_effect_is_refused_by_name(option, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    given = [f"--{option}", GIVEN[option]]
    arguments = {"verify": ["x"], "config": ["show"], "remember": ["small", "x", "--memory", "m"]}
    arguments |= {"recall": ["small", "--memory", "m"], "memory": ["ls", "small", "--memory", "m"]}
    arguments |= {"sleep": ["small", "--memory", "m"]}
    refusing = [verb for verb in cli.VERBS if option not in importlib.import_module(f"neuro.cli.{verb}").COMMON]
    assert {"verify", "doctor", "version"} <= set(refusing)
    cases = [(verb, [verb, *arguments.get(verb, [])]) for verb in refusing]
    cases.append(("energy why", ["energy", "why", "loihi1.synop"]))
    if option in ("backend", "set"):
        cases.append(("energy x.json", ["energy", "x.json"]))
    if option == "out":
        cases.append(("config check", ["config", "check", "tiny"]))
    for where, argv in cases:
        assert complaint(capsys, [*argv, *given]) == (
            2,
            [f"neuro {where}: --{option} has no effect here.", f"Leave out --{option}."],
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "code"),
    [(NeuroError, 1), (FormatError, 1), (UsageError, 2), (MissingError, 3), (CheckError, 4)],
)
def test_each_error_has_its_exit_code(capsys, monkeypatch, error, code):
    version = importlib.import_module("neuro.cli.version")

    def fail(args):
        raise error("where: got X, expected Y.", "Do Z.")

    monkeypatch.setattr(version, "run", fail)
    assert complaint(capsys, ["version"]) == (code, ["where: got X, expected Y.", "Do Z."])


def test_interrupts_full_disks_and_our_own_mistakes(capsys, monkeypatch):
    version = importlib.import_module("neuro.cli.version")
    for problem, code, word in (
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "No space left on device", "f.json"), 1, "f.json: No space left"),
        (OSError(5, "Input/output error"), 1, "a file: Input/output error"),
        (PermissionError(13, "Permission denied", "f.json"), 1, "f.json: Permission denied"),
        (OSError("a library's own words"), 1, "internal error: OSError"),
        (ValueError("several\nlines"), 1, "internal error: ValueError: several lines"),
        (ZeroDivisionError("x"), 1, "internal error: ZeroDivisionError"),
    ):

        def fail(args, problem=problem):
            raise problem

        monkeypatch.setattr(version, "run", fail)
        got, lines = complaint(capsys, ["version"])
        assert (got, len(lines)) == (code, 2) and word in lines[0]


def test_v_adds_the_traceback_above_the_two_lines(capsys, monkeypatch):
    version = importlib.import_module("neuro.cli.version")

    def fail(args):
        raise CheckError("where: got X, expected Y.", "Do Z.")

    monkeypatch.setattr(version, "run", fail)
    code, lines = complaint(capsys, ["version", "-v"])
    assert code == 4 and lines[0].startswith("Traceback") and lines[-2:] == ["where: got X, expected Y.", "Do Z."]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("argv", [("config", "show", "tiny"), ("show", "tiny", "--format", "svg")])
def test_a_full_disk_behind_standard_output_is_two_lines(argv):
    """Found when the process ends, or, with more than a buffer of text, when it is printed."""
    with open("/dev/full", "w") as full:
        done = neuro(*argv, stdout=full.fileno())
    assert done.returncode == 1
    assert done.stderr.strip().split("\n") == [
        "standard output: No space left on device.",
        "Check the path, its permissions and the free space.",
    ]


@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGPIPE to ignore")
def test_a_reader_that_leaves_is_no_error():
    read, write = os.pipe()
    os.close(read)
    try:
        done = neuro("config", "show", "tiny", stdout=write)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_unavailable_backend_is_missing_not_broken(capsys):
    code, lines = complaint(capsys, ["show", "tiny", "--backend", "directml"])
    assert code == 3 and lines[0].startswith("backend directml")


def test_doctor_reports_every_section(capsys):
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["schema"] == "neuro.doctor/1"
    assert {"system", "packages", "backends", "extras", "energy", "models"} < set(report)
    assert all({"name", "ok", "says"} == set(row) for rows in report.values() if isinstance(rows, list) for row in rows)
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    assert {row["name"] for row in report["extras"]} == set(extras)
    assert all(row["ok"] for row in report["packages"])


@pytest.mark.parametrize("built", [True, False])
@pytest.mark.parametrize("library", ["cpu", "spikes"])
def test_doctor_says_whether_the_kernels_are_here_and_what_they_save(library, built, capsys, monkeypatch):
    name = {"cpu": "kernels", "spikes": "event kernels"}[library]
    monkeypatch.setattr(importlib.import_module(f"backends.kernels.{library}"), "status", lambda: (built, "the reason"))
    assert main(["doctor", "--json"]) == 0
    (row,) = [row for row in json.loads(capsys.readouterr().out)["backends"] if row["name"] == name]
    assert row["ok"] == built and "the reason" in row["says"]
    assert ("times slower" in row["says"] and "C++ compiler" in row["says"]) != built


@pytest.mark.parametrize(
    ("built", "numba", "ok", "text"),
    [(True, True, True, "in C++"), (False, True, True, "in numba"), (False, False, False, "as torch operators")],
)
def test_doctor_names_the_way_spiking_layers_run_and_what_it_costs(built, numba, ok, text, capsys, monkeypatch):
    from backends.kernels import cpu, lif_numba

    monkeypatch.setattr(cpu, "status", lambda: (built, "the reason"))
    monkeypatch.setattr(lif_numba, "here", lambda: numba)
    assert main(["doctor", "--json"]) == 0
    (row,) = [row for row in json.loads(capsys.readouterr().out)["backends"] if row["name"] == "spiking"]
    assert row["ok"] == ok and f"run {text}" in row["says"]
    assert ("times slower than in C++" in row["says"]) != built


@pytest.mark.parametrize("active", [True, False])
def test_doctor_says_whether_triton_is_active(active, capsys, monkeypatch):
    from backends.kernels import cuda

    monkeypatch.setattr(cuda, "status", lambda: (active, "the reason"))
    assert main(["doctor", "--json"]) == 0
    (row,) = [row for row in json.loads(capsys.readouterr().out)["backends"] if row["name"] == "triton"]
    assert row["ok"] == active and "the reason" in row["says"]
    assert ("run in Triton" in row["says"]) == active and ("run as torch operators" in row["says"]) != active


def test_a_probe_that_fails_becomes_a_row(capsys, monkeypatch):
    import backends

    def fail():
        raise RuntimeError("driver says\nno")

    monkeypatch.setattr(backends, "available", fail)
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["backends"] == [{"name": "backends", "ok": False, "says": "RuntimeError: driver says no"}]
    assert len(report["system"]) > 5


def test_doctor_names_the_cost_of_what_is_missing_and_of_nothing_else(capsys, monkeypatch):
    doctor = importlib.import_module("neuro.cli.doctor")
    monkeypatch.setattr(doctor, "installed", lambda package: package != "datasets")
    assert main(["doctor", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["extras"]}
    assert rows["hf"]["says"] == (
        "without datasets: no training on Hugging Face datasets (pip install 'neuro-hybrid[hf]')"
    )
    assert all(row["ok"] for name, row in rows.items() if name != "hf")


def test_config_show_prints_what_config_load_reads(capsys, tmp_path):
    assert main(["config", "show", "tiny", "--set", "train.steps=7"]) == 0
    text = capsys.readouterr().out
    path = tmp_path / "run.toml"
    assert main(["config", "show", "tiny", "--set", "train.steps=7", "--out", str(path)]) == 0
    assert capsys.readouterr().out.strip() == str(path)
    assert path.read_text() == text
    assert "steps = 7" in text
    assert main(["config", "check", str(path)]) == 0
    path.write_text(text.replace("steps = 7", "stepz = 7"))
    code, lines = complaint(capsys, ["config", "check", str(path)])
    assert code == 2 and "Did you mean 'steps'?" in lines[1]


@pytest.mark.parametrize(
    ("problem", "asked"),
    [
        (RuntimeError("x.cpp:127] can't allocate memory: you tried to allocate 64000 bytes."), "64,000 bytes more."),
        (MemoryError(), "memory."),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory."), "memory."),
    ],
    ids=["cpu", "python", "accelerator"],
)  # fmt: skip
def test_too_little_memory_is_no_internal_error(capsys, monkeypatch, problem, asked):
    version = importlib.import_module("neuro.cli.version")

    def fail(args):
        raise problem

    monkeypatch.setattr(version, "run", fail)
    code, lines = complaint(capsys, ["version"])
    assert code == 1 and lines[0].startswith("neuro version: not enough memory") and lines[0].endswith(asked)
    assert lines[1:] == ["Make it smaller: the batch, the model, or what --set and the options ask for."]


def test_a_closed_standard_output_is_no_error(monkeypatch):
    """As `neuro run >&-` or a program without a console has it."""
    version = importlib.import_module("neuro.cli.version")
    monkeypatch.setattr(version, "run", lambda args: sys.stdout.write("x") and 0)
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["version"]) == 0 and sys.stdout is None


@pytest.mark.parametrize("verb", ["run", "eval", "energy", "train", "map"])
def test_a_file_where_a_folder_is_to_be_is_refused_before_the_work(capsys, tmp_path, verb):
    (tmp_path / "notes.txt").write_text("mine")
    code, lines = complaint(capsys, [verb, "small", "--out", str(tmp_path / "notes.txt")])
    assert code == 1 and len(lines) == 2
    assert lines[0].startswith(f"{tmp_path / 'notes.txt'}: cannot write (") and "expected a folder" in lines[0]
