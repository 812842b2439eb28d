"""Loading the C++ library: what is not there, not ours or of another version is named and left alone."""

from __future__ import annotations

import importlib.machinery
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from backends.kernels import cpu

NAME = f"_scan{importlib.machinery.EXTENSION_SUFFIXES[0]}"


def test_a_library_that_was_not_built_is_named(tmp_path):
    assert cpu._load(tmp_path) == (None, "it was not built when neuro-hybrid was installed")


def test_a_file_that_is_no_library_is_named_and_not_loaded(tmp_path):
    (tmp_path / NAME).write_bytes(b"not a library")
    library, why = cpu._load(tmp_path)
    assert library is None and why.startswith(f"{NAME} does not load")


def compiled(folder: Path, source: str) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler here")
    (folder / "other.c").write_text(source)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / NAME, folder / "other.c"], check=True)
    return folder


def test_a_library_of_another_version_is_named_and_not_used(tmp_path):
    folder = compiled(tmp_path, "long long neuro_scan_version(void) { return 99; }")
    assert cpu._load(folder) == (None, f"{NAME} has interface 99, expected {cpu._VERSION}")


def test_a_library_without_our_functions_is_named_and_not_used(tmp_path):
    folder = compiled(tmp_path, f"long long neuro_scan_version(void) {{ return {cpu._VERSION}; }}")
    library, why = cpu._load(folder)
    assert library is None and "neuro_affine_scan_float32" in why


def test_status_agrees_with_what_runs():
    here, says = cpu.status()
    x = torch.zeros(2, 1, 1)
    assert says and cpu.runs(x, x) == here


def test_only_what_it_was_written_for_runs_in_it(monkeypatch):
    monkeypatch.setattr(cpu, "library", lambda: object())
    x = torch.zeros(2, 1, 1)
    assert cpu.runs(x, x) and cpu.runs(x.double(), x.double())
    refused = [(x.bfloat16(), x.bfloat16()), (x, x.double()), (x[0], x[0]), (x.to("meta"), x.to("meta"))]
    assert not any(cpu.runs(*pair) for pair in refused)
