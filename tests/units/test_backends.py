"""Choosing a backend: names, reasons, refusals, and a probe that cannot crash this process."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

import backends
from backends import BackendError, available, directml, native, portable, select


def refused(match: str, call, *args) -> BackendError:
    with pytest.raises(BackendError, match=match) as error:
        call(*args)
    assert error.value.exit_code == 3
    assert str(error.value) == f"{error.value.what}\n{error.value.do}"
    assert len(str(error.value).split("\n")) == 2
    return error.value


def test_auto_prefers_cuda_and_says_why_not(monkeypatch):
    monkeypatch.setattr(backends, "_probe_torch", lambda name: (False, "", "no such thing"))
    chosen = select("auto")
    assert (chosen.name, str(chosen.device), chosen.ops) == ("cpu", "cpu", native.OPS)
    assert chosen.reason == "auto: no CUDA device (no such thing); the CPU is always here"
    monkeypatch.setattr(backends, "_probe_torch", lambda name: (True, "cuda", "a test card answers"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    chosen = select("auto")
    assert (chosen.name, str(chosen.device), chosen.ops) == ("cuda", "cuda", native.OPS)
    assert chosen.reason == "auto: a test card answers" and chosen.autocast is torch.bfloat16
    assert select("cpu").name == "cpu"


def test_cpu_is_what_was_asked_for():
    chosen = select("cpu")
    assert chosen.reason == "cpu was asked for"
    assert chosen.dtype is torch.float32 and not chosen.scatter_free
    assert select("cpu", dtype=torch.float64).dtype is torch.float64
    assert select().reason.startswith("auto: ")


@pytest.mark.parametrize("name", ["", "CPU", "gpu", "rocm", "cuda:0"])
def test_unknown_names_are_refused_with_the_known_ones(name):
    error = refused("expected one of auto, cpu, cuda, xpu, mps, directml", select, name)
    assert error.what.startswith(f"backend: got '{name}'")


@pytest.mark.parametrize("name", ["cuda", "xpu", "mps"])
def test_devices_that_are_not_here_are_refused_with_the_reason(name, monkeypatch):
    monkeypatch.setattr(backends, "_probe_torch", lambda name: (False, "", "nothing answers"))
    error = refused(f"backend {name}: nothing answers", select, name)
    assert error.do == "Use --backend auto; 'neuro doctor' lists what is here."


@pytest.mark.parametrize("name", ["xpu", "mps"])
def test_other_devices_run_the_portable_operators(name, monkeypatch):
    monkeypatch.setattr(backends, "_probe_torch", lambda name: (True, name, "it answers"))
    chosen = select(name)
    assert (chosen.ops, chosen.device.type) == (portable.OPS, name)
    assert chosen.reason == f"{name} was asked for; it answers"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64, torch.complex64])
def test_weights_are_float32_or_float64(dtype):
    """Half-precision weights meet float32 activations in every matrix product: refused here, not deep inside a scan."""
    refused(r"backend cpu: got torch\.\w+ weights, expected float32 or float64", select, "cpu", dtype)


def test_every_backend_has_a_row_and_a_reason():
    rows = available()
    assert [row.name for row in rows] == ["cpu", "cuda", "xpu", "mps", "directml"]
    assert rows[0].ok and "threads" in rows[0].reason
    assert {row.name for row in rows} | {"auto"} == set(backends.NAMES)
    for row in rows:
        assert row.reason and bool(row.device) == row.ok
        if row.name != "directml":
            assert row.ok == (not isinstance(outcome(row.name), BackendError))


def outcome(name: str):
    try:
        return select(name)
    except BackendError as error:
        return error


def test_backends_are_frozen():
    for frozen in (select("cpu"), available()[0], native.OPS):
        with pytest.raises(dataclasses.FrozenInstanceError):
            frozen.name = "other"


# DirectML


def test_directml_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr(directml.importlib.util, "find_spec", lambda name: None)
    assert directml.probe() == (
        False,
        "the package torch_directml is not installed (pip install 'neuro-hybrid[directml]')",
    )
    error = refused(r"backend directml: the package torch_directml is not installed", select, "directml")
    assert "Windows" in error.do


@pytest.fixture
def installed(monkeypatch):
    """As if the package were there, on a machine that could run it."""
    monkeypatch.setattr(directml.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(directml.sys, "platform", "win32")


def test_directml_off_windows_and_wsl_is_not_even_probed(installed, monkeypatch):
    monkeypatch.setattr(directml.sys, "platform", "linux")
    monkeypatch.setattr(directml.Path, "exists", lambda self: False)
    monkeypatch.setattr(directml.subprocess, "run", lambda *a, **k: pytest.fail("probed"))
    assert directml.probe() == (False, "DirectML needs Windows, or WSL with /dev/dxg")


@pytest.mark.parametrize(("code", "ok", "why"), [
    (0, True, "a DirectX 12 device answers"),
    (9, False, "its probe ended with exit code 9"),
    (-11, False, "its probe ended with exit code -11"),
])  # fmt: skip
def test_the_probe_is_a_process_of_its_own_whatever_becomes_of_it(code, ok, why, installed, monkeypatch):
    asked = []

    def run(command, **options):
        asked.append(command)
        assert options["timeout"] <= 60
        return types.SimpleNamespace(returncode=code)

    monkeypatch.setattr(directml.subprocess, "run", run)
    assert directml.probe() == (ok, why)
    assert asked[0][0] == sys.executable and "torch_directml" in asked[0][2]
    assert "torch_directml" not in sys.modules


@pytest.mark.parametrize("error", [subprocess.TimeoutExpired("probe", 60), OSError(8, "Exec format error")])
def test_a_probe_that_hangs_or_cannot_start_is_a_reason(error, installed, monkeypatch):
    def run(*args, **options):
        raise error

    monkeypatch.setattr(directml.subprocess, "run", run)
    ok, why = directml.probe()
    assert not ok and why.startswith("its probe did not answer (")


def test_probing_never_imports_torch_directml_here(tmp_path, monkeypatch):
    """A real package of that name that kills whoever imports it: the probe dies in its own process, we go on."""
    (tmp_path / "torch_directml.py").write_text("import os\nos.abort()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(directml.sys, "platform", "win32")
    ok, why = directml.probe()
    assert (ok, why.startswith("its probe ended with exit code")) == (False, True)
    rows = {row.name: row for row in available()}
    assert not rows["directml"].ok and rows["directml"].reason == why
    assert "torch_directml" not in sys.modules
    refused("backend directml: its probe ended", select, "directml")


def test_directml_when_it_answers(installed, monkeypatch):
    monkeypatch.setattr(directml, "probe", lambda: (True, "a DirectX 12 device answers"))
    monkeypatch.setitem(sys.modules, "torch_directml", types.SimpleNamespace(device=lambda: torch.device("cpu")))
    chosen = select("directml")
    assert (chosen.name, chosen.ops, chosen.dtype) == ("directml", portable.OPS, torch.float32)
    assert chosen.scatter_free
    assert chosen.autocast is None
    assert chosen.reason == "directml was asked for and a DirectX 12 device answers; its operators need no scatter"
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        refused(r"backend directml: got torch\.\w+ weights, expected float32", select, "directml", dtype)


def test_importing_backends_probes_nothing():
    root = str(Path(backends.__file__).parents[1])
    code = (
        f"import sys; sys.path.insert(0, {root!r}); import subprocess; subprocess.run = None; import backends; "
        "assert 'torch_directml' not in sys.modules and 'neuro' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# The brain on a backend


def test_the_vocabulary_matrix_stays_tied_when_a_device_needs_new_parameters(tiny_brain):
    """Moving to a device whose tensors cannot take a parameter's place (DirectML) makes new parameters, one a module."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        brain = tiny_brain(dtype=torch.float64)
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
    assert brain.regions["readout"].weight is brain.embedding
    assert sum(brain.parameter_counts().values()) == sum(p.numel() for p in brain.parameters())


def test_a_training_step_mixes_no_devices(tiny_brain, monkeypatch):
    """Every tensor that training makes comes from the brain's device: run with tensors that are elsewhere (meta)."""
    from neuro.state import leaves, tree_map
    from neuro.train import objective

    brain = tiny_brain().to("meta")
    state = tree_map(lambda x: x.to("meta") if x.dim() else x, brain.init_state(2))
    state = objective.fresh_rows(state, state, torch.zeros(2, dtype=torch.bool, device="meta"))
    out = brain._scan(torch.zeros(2, 5, dtype=torch.int64, device="meta"), state)
    after, _ = brain.commit(out.state)
    assert {x.device.type for _, x in leaves(after) if x.dim()} == {"meta"}
