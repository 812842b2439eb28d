"""The house rules a script can see: what is imported when, who prints, what hides a sibling."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from neuro import _siblings

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("neuro", "backends", "export", "sims")


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    full = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    return subprocess.run(  # -P: the current folder is not on the path, wherever pytest was started
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, env=full, check=False, timeout=120
    )


def sources() -> list[Path]:
    return [path for name in PACKAGES for path in (ROOT / name).rglob("*.py")]


@pytest.mark.parametrize(
    "first", ["import neuro", "import neuro.config", "import neuro.workload", "import sims.energy.report"]
)
def test_light_imports_do_not_import_torch(first):
    done = python(f"import sys; {first}; print('torch' in sys.modules)")
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize(
    "argv", [["--help"], ["run", "--help"], ["train", "--help"], ["version"], ["energy", "why", "loihi1.synop"]]
)
def test_help_answers_without_importing_torch(argv):
    done = python(
        "import sys\nfrom neuro.cli import main\n"
        f"try: main({argv!r})\nexcept SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    assert done.stdout.strip().split("\n")[-1] == "False", done.stdout + done.stderr


def test_help_imports_no_verb():
    done = python(
        "import sys\nfrom neuro import cli\ncli.main(['--help'])\n"
        "print([verb for verb in cli.VERBS if f'neuro.cli.{verb}' in sys.modules])"
    )
    assert done.stdout.strip().split("\n")[-1] == "[]", done.stderr


def test_nothing_prints_outside_the_command_line():
    found = []
    for path in sources():
        # export/runtime.py is copied into every export as its runner: a program of its own, with a command line.
        if (ROOT / "neuro" / "cli") in path.parents or path == ROOT / "export" / "runtime.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print":
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


def test_there_are_no_forward_hooks():
    banned = {"register_forward_hook", "register_forward_pre_hook"}
    for path in sources():
        names = {
            node.attr
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Attribute)
        }
        assert not names & banned, path


def test_tests_are_no_packages():
    assert not list((ROOT / "tests").rglob("__init__.py"))
    assert not {path.name for path in (ROOT / "tests").iterdir()} & set(PACKAGES)


def hide(folder: Path, name: str) -> str:
    """A package of that name that must never be imported -> a PYTHONPATH on which it comes first."""
    decoy = folder / name
    decoy.mkdir()
    (decoy / "__init__.py").write_text("raise SystemExit('a stranger was imported')")
    return f"{folder}{os.pathsep}{ROOT}"


@pytest.mark.parametrize("name", _siblings.SIBLINGS)
def test_a_package_that_hides_a_sibling_is_named(tmp_path, name):
    path = hide(tmp_path, name)
    done = python("from neuro.cli import main; raise SystemExit(main(['version']))", PYTHONPATH=path)
    assert done.returncode == 3
    assert str(tmp_path / name) in done.stderr and "Remove or rename" in done.stderr


@pytest.mark.parametrize("name", _siblings.SIBLINGS)
def test_doctor_reports_what_hides_a_sibling_without_importing_it(tmp_path, name):
    path = hide(tmp_path, name)
    done = python("from neuro.cli import main; raise SystemExit(main(['doctor', '--json']))", PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)["packages"]}
    assert not rows[name]["ok"] and str(tmp_path / name) in rows[name]["says"]
    assert all(row["ok"] for other, row in rows.items() if other != name)
