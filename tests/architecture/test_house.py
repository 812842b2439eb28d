"""The house rules a script can see: what imports what, who prints, what the wheel holds."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from neuro import _siblings
from neuro.errors import MissingError

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("neuro", "backends", "export", "sims")


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    full = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=full, check=False, timeout=120
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


def test_nothing_prints_outside_the_command_line():
    found = []
    for path in sources():
        if (ROOT / "neuro" / "cli") in path.parents or path.name == "run.py" and path.parent.name == "export":
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


def test_a_package_that_hides_a_sibling_is_named(tmp_path, monkeypatch):
    decoy = tmp_path / "export"
    decoy.mkdir()
    (decoy / "__init__.py").write_text("")
    done = python(
        "from neuro.cli import main; raise SystemExit(main(['version']))", PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}"
    )
    assert done.returncode == 3
    assert str(decoy) in done.stderr and "Remove or rename" in done.stderr
    monkeypatch.setattr(_siblings, "origins", lambda: {"neuro": str(ROOT / "neuro"), "sims": ""})
    with pytest.raises(MissingError, match="'sims' is not installed"):
        _siblings.check()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("wheel")
    # A copy, so that a build folder left in the checkout cannot leak into the wheel.
    for name in (*PACKAGES, "pyproject.toml", "LICENSE", "README.md"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, out / name)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(out),
        str(out),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(next(out.glob("*.whl")))


def test_the_wheel_holds_the_four_packages_the_data_and_nothing_else(wheel):
    names = wheel.namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == set(PACKAGES)
    for needed in (
        "sims/energy/tables/loihi1.json",
        "sims/chips/loihi1.json",
        "neuro/cli/run.py",
        "export/__init__.py",
    ):
        assert needed in names
    corpora = ("wikitext", "warpeace", "shakespeare", "emobank", "conllu", ".txt.gz", ".idx")
    assert not [name for name in names if any(word in name.lower() for word in corpora) or name.endswith(".txt.gz")]
    metadata = wheel.read(next(n for n in names if n.endswith("METADATA"))).decode()
    assert "Name: neuro-hybrid" in metadata and "License-Expression: Apache-2.0" in metadata
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_holds_the_shipped_model_with_its_own_licence(wheel):
    names = wheel.namelist()
    for file in ("config.json", "model.safetensors", "tokenizer.json", "README.md", "LICENSE"):
        assert f"neuro/models/small/{file}" in names
    assert sum(i.file_size for i in wheel.infolist() if i.filename.startswith("neuro/models/small/")) <= 20_000_000
