"""Loading the C++ libraries: what is not there, not ours or of another version is named and left alone."""

from __future__ import annotations

import importlib.machinery
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from backends.kernels import cpu, spikes
from sims.mapping import native as mapping
from sims.networks import native as networks

ROOT = Path(__file__).parents[2]
LIBRARIES = [
    ("scan", cpu, "neuro_affine_scan_float32"),
    ("spikes", spikes, "neuro_spikes_panel"),
    ("network", networks, "neuro_network_cuba_float32_uint16"),
    ("mapping", mapping, "neuro_mapping_refine"),
]
each = pytest.mark.parametrize(("stem", "module", "first"), LIBRARIES, ids=[row[0] for row in LIBRARIES])


def name(stem: str) -> str:
    return f"_{stem}{importlib.machinery.EXTENSION_SUFFIXES[0]}"


def compiled(folder: Path, stem: str, version: int) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler here")
    (folder / "other.c").write_text(f"long long neuro_{stem}_version(void) {{ return {version}; }}")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / name(stem), folder / "other.c"], check=True)
    return folder


@each
def test_a_library_that_was_not_built_is_named(stem, module, first, tmp_path):
    assert module._load(tmp_path) == (None, "it was not built when neuro-hybrid was installed")


@each
def test_a_file_that_is_no_library_is_named_and_not_loaded(stem, module, first, tmp_path):
    (tmp_path / name(stem)).write_bytes(b"not a library")
    library, why = module._load(tmp_path)
    assert library is None and why.startswith(f"{name(stem)} does not load")


@each
def test_a_library_of_another_version_is_named_and_not_used(stem, module, first, tmp_path):
    folder = compiled(tmp_path, stem, 99)
    assert module._load(folder) == (None, f"{name(stem)} has interface 99, expected {module._VERSION}")


@each
def test_a_library_without_our_functions_is_named_and_not_used(stem, module, first, tmp_path):
    library, why = module._load(compiled(tmp_path, stem, module._VERSION))
    assert library is None and first in why


@pytest.mark.parametrize("module", ["backends.kernels.shared_library", "sims.networks.native", "sims.mapping.native"])
def test_loading_a_library_does_not_load_torch(module):
    code = f"import sys, {module}; assert {module}; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
