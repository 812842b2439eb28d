"""The doors: each third-party package is imported in one place, pickles nowhere, and the import contracts miss no module.

ruff's banned-api and import-linter hold most of this; ruff's exception is per file and not per package, so a door would
let every banned package through.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("neuro", "backends", "export", "sims", "benchmarks")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# package -> the files and folders that may import it
DOORS = {
    # GPT-2 and Llama are the peers in the benchmarks, not a part of ours
    "transformers": ("neuro/hf", "benchmarks/adapter_base.py", "benchmarks/decode.py", "benchmarks/counting.py"),
    "datasets": ("neuro/hf",),
    "peft": ("neuro/hf",),
    "huggingface_hub": ("neuro/hf",),
    "tokenizers": ("neuro/tokenizer.py", "export/runtime.py"),  # the copied runner reads tokenizer.json without neuro
    "matplotlib": ("neuro/plots",),
    "onnx": ("export", "benchmarks/int8_agreement.py", "benchmarks/quantization.py"),
    "onnxruntime": ("export", "benchmarks/quantization.py"),
    "onnxscript": ("export",),
    "brian2": ("sims/circuits",),
    "torch_directml": ("backends/directml.py",),
    "numba": ("backends/kernels",),
    "triton": ("backends/kernels",),
    "fastapi": ("neuro/serve",),
    "uvicorn": ("neuro/serve",),
    "sqlite3": ("neuro/store",),
    "faiss": ("neuro/store", "benchmarks/centroid_index.py"),  # a peer
    # peers in the benchmarks
    "snntorch": (
        "neuro/neurons/interop.py",
        "benchmarks/counting.py",
        "benchmarks/lif.py",
        "benchmarks/neuron_parity.py",
        "benchmarks/nir_conformance.py",
        "benchmarks/spike_linear.py",
    ),
    "spikingjelly": (
        "benchmarks/cuda_scans.py",
        "benchmarks/lif.py",
        "benchmarks/make_neuron_fixtures.py",
        "benchmarks/nir_conformance.py",
    ),
    "norse": (
        "neuro/neurons/interop.py",
        "benchmarks/lif.py",
        "benchmarks/make_neuron_fixtures.py",
        "benchmarks/nir_conformance.py",
    ),
    "neurobench": ("benchmarks/make_neurobench_fixtures.py",),
    "nir": ("neuro/nir_files.py", "benchmarks/nir_conformance.py"),
    "h5py": ("neuro/nir_files.py", "neuro/nir_hdf5.py"),
    "librosa": ("neuro/sensors/prosody.py",),
    "pickle": (),
}


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """(top-level package, line) of everything a file imports, by statement or by a literal name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module.split(".")[0], node.lineno
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in ("import_module", "require", "__import__") and isinstance(node.args[0].value, str):
                yield node.args[0].value.split(".")[0], node.lineno


def sources() -> list[Path]:
    return sorted(path for name in FOLDERS for path in (ROOT / name).rglob("*.py"))


def may_import(path: Path, package: str) -> bool:
    inside = path.relative_to(ROOT)
    return any(inside == Path(door) or Path(door) in inside.parents for door in DOORS[package])


def test_each_third_party_package_has_one_door():
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {package}"
        for path in sources()
        for package, line in imports(path)
        if package in DOORS and not may_import(path, package)
    ]
    assert found == []


def test_nothing_is_unpickled():
    found = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr == "load" and getattr(node.value, "id", "") == "torch":
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


def test_the_scan_sees_every_way_to_import(tmp_path):
    path = tmp_path / "probe.py"
    path.write_text(
        "import a.b\nfrom c.d import e\nfrom . import f\nrequire('g.h', 'x')\nimportlib.import_module('i')\n"
    )
    assert set(imports(path)) == {("a", 1), ("c", 2), ("g", 4), ("i", 5)}


def test_every_banned_package_has_a_door_here():
    banned = set(PYPROJECT["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"])
    assert banned - {"torch.load", "torch.inference_mode"} <= set(DOORS)


@pytest.mark.parametrize("package", ["transformers", "fastapi", "brian2", "nir", "pickle", "torch_directml"])
def test_the_doors_are_shut_elsewhere(package):
    assert not may_import(ROOT / "neuro" / "brain.py", package)


def test_the_contract_on_regions_lists_every_region():
    contracts = PYPROJECT["tool"]["importlinter"]["contracts"]
    listed = next(set(c["modules"]) for c in contracts if c["name"] == "regions meet on the bus only")
    here = {path.stem for path in (ROOT / "neuro" / "regions").glob("*.py")} - {"__init__", "base"}
    assert listed == {f"neuro.regions.{name}" for name in here}


def test_the_contract_on_torch_lists_every_part_of_sims_but_the_counter():
    contracts = PYPROJECT["tool"]["importlinter"]["contracts"]
    listed = next(set(c["source_modules"]) for c in contracts if c["name"].startswith("sims runs without torch"))
    here = {path.stem for path in (ROOT / "sims").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert listed == {f"sims.{name}" for name in here - {"counting"}}


def test_torch_is_imported_in_the_counter_alone():
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sorted((ROOT / "sims").rglob("*.py"))
        for package, line in imports(path)
        if package == "torch" and path.relative_to(ROOT).parts[1] != "counting"
    ]
    assert found == []


def test_sims_reaches_its_counter_only_when_asked():
    """`import sims.energy` must not load torch: what imports the counter does so inside a function."""
    found = []
    for path in sorted((ROOT / "sims").rglob("*.py")):
        if path.relative_to(ROOT).parts[1] == "counting":
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [str(path.relative_to(ROOT)) for name in names if name.startswith("sims.counting")]
    assert found == []


def test_every_package_file_is_in_a_package():
    """A folder without ``__init__.py`` is left out of the wheel without a word."""
    missing = {path.parent for path in sources() if path.relative_to(ROOT).parts[0] != "benchmarks"}
    assert [folder for folder in missing if not (folder / "__init__.py").is_file()] == []
