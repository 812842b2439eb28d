"""What an installed wheel holds: four packages, their data, the shipped model, the licences, and nothing else."""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("neuro", "backends", "export", "sims")
CORPORA = (
    "wikitext",
    "warpeace",
    "war_and_peace",
    "shakespeare",
    "grimm",
    "alice",
    "emobank",
    "conllu",
    "goemotions",
    "clinc150",
    "babi",
    "cmudict",
    "vader",
    "omniglot",
    "mnist",
)


@pytest.fixture(scope="module")
def wheel_path(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    # A copy, so that a build folder left in the checkout cannot leak into the wheel, and none is left there.
    ignore = shutil.ignore_patterns("__pycache__")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, out / name, ignore=ignore)
    for name in ("pyproject.toml", "setup.py", "LICENSE", "README.md"):
        shutil.copy2(ROOT / name, out / name)  # with its time: what the checkout has built is taken over
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", out, out]
    done = subprocess.run([str(item) for item in command], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def wheel(wheel_path):
    with zipfile.ZipFile(wheel_path) as opened:
        yield opened


def metadata(wheel: zipfile.ZipFile) -> email.message.Message:
    return email.message_from_bytes(wheel.read(next(n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))))


def test_it_holds_the_four_packages_and_nothing_else(wheel):
    names = [name for name in wheel.namelist() if ".dist-info/" not in name]
    assert {name.split("/")[0] for name in names} == set(PACKAGES)
    assert not [name for name in names if {"tests", "benchmarks", "__pycache__", "build"} & set(name.split("/"))]


def test_it_holds_every_module_and_data_file_of_the_tree(wheel):
    files = [
        path
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.suffix in (".py", ".json", ".toml", ".cpp", ".hpp")
    ]
    files += [path for path in (ROOT / "neuro" / "models").glob("*/*") if path.is_file()]
    expected = {path.relative_to(ROOT).as_posix() for path in files if not path.name.startswith(".")}
    assert expected - set(wheel.namelist()) == set()


def test_it_holds_the_kernels_where_there_is_a_compiler(wheel):
    libraries = (
        "backends/kernels/_scan.",
        "backends/kernels/_spikes.",
        "sims/networks/_network.",
        "sims/mapping/_mapping.",
    )
    built = [name for name in wheel.namelist() if name.startswith(libraries)]
    compiler = os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "c++"
    assert len(built) == (4 if shutil.which(compiler.split()[0]) else 0)


def test_without_a_compiler_the_build_succeeds_and_holds_no_kernels(tmp_path):
    command = [
        sys.executable,
        "setup.py",
        "-q",
        "build_ext",
        "--force",
        "--build-lib",
        tmp_path,
        "--build-temp",
        tmp_path / "o",
    ]
    env = os.environ | {"CC": "no-such-compiler", "CXX": "no-such-compiler"}
    done = subprocess.run([str(x) for x in command], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "no-such-compiler" in done.stdout + done.stderr
    assert not [*tmp_path.rglob("_s*"), *tmp_path.rglob("_network*"), *tmp_path.rglob("_mapping*")]


def test_it_holds_no_corpus(wheel):
    names = wheel.namelist()
    data = [name for name in names if not name.endswith(".py")]  # a module may be named after what it reads
    assert not [name for name in data if any(word in name.lower() for word in CORPORA)]
    assert not [name for name in names if name.endswith((".txt.gz", ".idx", ".parquet", ".csv", ".tsv"))]


def test_it_is_small(wheel_path):
    assert wheel_path.stat().st_size < 25_000_000


def test_it_says_what_it_is(wheel):
    about = metadata(wheel)
    assert about["Name"] == "neuro-hybrid" and about["License-Expression"] == "Apache-2.0"
    assert set(about.get_all("Provides-Extra")) >= {"hf", "nir", "sims", "directml", "serve", "dev"}
    licence = next(name for name in wheel.namelist() if name.endswith(".dist-info/licenses/LICENSE"))
    assert "Apache License" in wheel.read(licence).decode()
    entries = wheel.read(next(n for n in wheel.namelist() if n.endswith("entry_points.txt"))).decode()
    assert "neuro = neuro.cli:main" in entries


def test_it_holds_the_shipped_model_with_its_own_licence(wheel):
    names = wheel.namelist()
    for file in ("config.json", "model.safetensors", "tokenizer.json", "README.md", "LICENSE"):
        assert f"neuro/models/small/{file}" in names
    assert sum(i.file_size for i in wheel.infolist() if i.filename.startswith("neuro/models/small/")) <= 20_000_000


def test_it_holds_the_model_for_microcontrollers_and_the_c_it_is_exported_with(wheel):
    names = wheel.namelist()
    for file in ("config.json", "model.safetensors", "tokenizer.json", "README.md", "LICENSE"):
        assert f"neuro/models/micro/{file}" in names
    assert sum(i.file_size for i in wheel.infolist() if i.filename.startswith("neuro/models/micro/")) <= 600_000
    sources = {path.name for path in (ROOT / "export" / "c" / "sources").iterdir()}
    assert {name.rsplit("/", 1)[1] for name in names if name.startswith("export/c/sources/")} == sources


def test_it_holds_the_affect_heads_with_their_credits_and_nothing_share_alike(wheel):
    names = [name for name in wheel.namelist() if name.startswith("neuro/models/affect/")]
    assert {Path(name).name for name in names} == {
        "affect.safetensors",
        "prominence.safetensors",
        "README.md",
        "LICENSE",
    }
    assert b"EmoBank" not in wheel.read("neuro/models/affect/LICENSE")
