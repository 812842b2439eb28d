"""Loading the library of event-driven products, and what it takes."""

from __future__ import annotations

import importlib.machinery
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from backends.kernels import spikes as kernels

NAME = f"_spikes{importlib.machinery.EXTENSION_SUFFIXES[0]}"


def test_a_library_that_was_not_built_is_named(tmp_path):
    assert kernels._load(tmp_path) == (None, "it was not built when neuro-hybrid was installed")


def test_a_file_that_is_no_library_is_named_and_not_loaded(tmp_path):
    (tmp_path / NAME).write_bytes(b"not a library")
    library, why = kernels._load(tmp_path)
    assert library is None and why.startswith(f"{NAME} does not load")


def compiled(folder: Path, source: str) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler here")
    (folder / "other.c").write_text(source)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / NAME, folder / "other.c"], check=True)
    return folder


def test_a_library_of_another_version_is_named_and_not_used(tmp_path):
    folder = compiled(tmp_path, "long long neuro_spikes_version(void) { return 99; }")
    assert kernels._load(folder) == (None, f"{NAME} has interface 99, expected {kernels._VERSION}")


def test_a_library_without_our_functions_is_named_and_not_used(tmp_path):
    folder = compiled(tmp_path, f"long long neuro_spikes_version(void) {{ return {kernels._VERSION}; }}")
    library, why = kernels._load(folder)
    assert library is None and "neuro_spikes_panel" in why


def test_status_agrees_with_what_runs():
    here, says = kernels.status()
    x = torch.zeros(2, 3)
    assert says and kernels.runs(x, x, None) == here


def test_only_what_it_was_written_for_runs_in_it(monkeypatch):
    monkeypatch.setattr(kernels, "library", lambda: object())
    x, weight, bias = torch.zeros(4, 3), torch.zeros(2, 3), torch.zeros(2)
    assert kernels.runs(x, weight, bias) and kernels.runs(x, weight, None)
    refused = [
        (x.double(), weight.double(), None),
        (x.bfloat16(), weight.bfloat16(), None),
        (x, weight, bias.double()),
        (x.to("meta"), weight.to("meta"), None),
        (x[:, :0], weight[:, :0], None),
    ]
    assert not any(kernels.runs(*given) for given in refused)
    with torch.autocast("cpu", torch.bfloat16):
        assert not kernels.runs(x, weight, bias)
