"""Choosing a backend: names, reasons, refusals, and a probe that cannot crash this process."""

from __future__ import annotations

import ast
import dataclasses
import re
import subprocess
import sys
import types
import warnings
from pathlib import Path

import pytest
import torch

import backends
from backends import BackendError, available, devices, directml, native, portable, select
from backends.guard import OperatorGuard
from neuro import presets


def refused(match: str, call, *args) -> BackendError:
    with pytest.raises(BackendError, match=match) as error:
        call(*args)
    assert error.value.exit_code == 3
    assert str(error.value) == f"{error.value.what}\n{error.value.do}"
    assert len(str(error.value).split("\n")) == 2
    return error.value


def test_the_package_has_what_it_names_and_nothing_else():
    assert all(getattr(backends, name) is not None for name in backends.__all__)
    with pytest.raises(AttributeError, match="module 'backends' has no attribute 'opencl'"):
        backends.opencl  # noqa: B018


def here(monkeypatch, **kinds: tuple[str, ...]) -> None:
    """As if torch found these devices and no others."""
    absent = devices.Found((), "no such thing")

    def find(kind: str) -> devices.Found:
        return devices.Found(kinds[kind], f"{kinds[kind][0]} answers") if kind in kinds else absent

    monkeypatch.setattr(devices, "find", find)


def test_auto_takes_cuda_then_xpu_then_mps_then_the_cpu_and_says_why(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    kinds = {"cuda": ("a card",), "xpu": ("an XPU",), "mps": ("Metal",)}
    for kind in ("cuda", "xpu", "mps"):
        here(monkeypatch, **kinds)
        chosen = select("auto")
        assert (chosen.name, str(chosen.device)) == (kind, kind)
        assert chosen.reason == f"auto: {kinds[kind][0]} answers" and chosen.hardware == kinds[kind][0]
        assert (chosen.autocast is torch.bfloat16) == (kind == "cuda")
        del kinds[kind]
    here(monkeypatch)
    chosen = select("auto")
    assert (chosen.name, str(chosen.device), chosen.ops) == ("cpu", "cpu", native.OPS)
    assert chosen.reason == "auto: no CUDA device (no such thing); the CPU is always here"
    assert select("cpu").name == "cpu"


def test_auto_passes_over_a_device_without_the_type_that_was_asked_for(monkeypatch):
    here(monkeypatch, mps=("Metal",))
    assert select("auto").name == "mps"
    chosen = select("auto", torch.float64)
    assert chosen.name == "cpu" and "; mps has no float64; " in chosen.reason
    refused(
        "backend mps: got torch.float64 weights, expected float32: the device has no float64",
        select,
        "mps",
        torch.float64,
    )


def test_auto_never_takes_directml(monkeypatch):
    here(monkeypatch)
    monkeypatch.setattr(directml, "probe", lambda *args: pytest.fail("probed"))
    assert select("auto").name == "cpu"


def test_a_device_is_chosen_by_its_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    here(monkeypatch, cuda=("first", "second"))
    for name, device, hardware in (
        ("cuda", "cuda", "first"),
        ("cuda:0", "cuda:0", "first"),
        ("cuda:1", "cuda:1", "second"),
    ):
        chosen = select(name)
        assert (str(chosen.device), chosen.hardware, chosen.name) == (device, hardware, "cuda")
        assert chosen.reason.startswith(f"{name} was asked for")
    error = refused("backend cuda:2: got device 2, expected at most 1: first answers", select, "cuda:2")
    assert error.do == "Use cuda:0 to cuda:1."
    here(monkeypatch, cuda=("only",))
    assert refused("got device 1, expected at most 0", select, "cuda:1").do == "Use cuda:0."


@pytest.mark.parametrize(("name", "says"), [
    ("cuda:", "expected a device's number after the colon"),
    ("cuda:x", "expected a device's number after the colon"),
    ("cuda:-1", "expected a device's number after the colon"),
    ("directml:1:2", "expected a device's number after the colon"),
    ("cpu:0", "expected cpu without a number"),
    ("auto:1", "expected auto without a number"),
    ("mps:0", "expected mps without a number"),
])  # fmt: skip
def test_numbers_that_name_no_device_are_refused(name, says):
    assert refused(says, select, name).what.startswith(f"backend: got '{name}'")


# What torch finds


class Driver:
    """A module like `torch.cuda` with some devices, or one that fails as it is told."""

    def __init__(self, count: int = 0, error: Exception | None = None, warning: str = "") -> None:
        self.count, self.error, self.warning = count, error, warning

    def is_available(self) -> bool:
        if self.warning:
            warnings.warn(self.warning, stacklevel=2)
        if self.error:
            raise self.error
        return self.count > 0

    def device_count(self) -> int:
        return self.count

    def get_device_name(self, index: int) -> str:
        return f"card {index}"


def test_devices_are_found_without_torch_accelerator(monkeypatch):
    """As on torch 2.4."""
    monkeypatch.setattr(torch, "accelerator", None, raising=False)
    monkeypatch.setattr(torch, "xpu", Driver(2), raising=False)
    assert devices.find("xpu") == (("card 0", "card 1"), "card 0, card 1 answer")
    monkeypatch.setattr(torch, "xpu", Driver(1), raising=False)
    assert devices.find("xpu") == (("card 0",), "card 0 answers")
    monkeypatch.delattr(torch, "xpu")
    assert devices.find("xpu") == ((), "torch does not find an XPU")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert devices.find("mps") == (("Metal",), "Metal answers")


def test_devices_are_found_by_torch_accelerator(monkeypatch):
    class Accelerator:
        current_accelerator = staticmethod(lambda: torch.device("xpu"))
        is_available = staticmethod(lambda: True)
        device_count = staticmethod(lambda: 3)

    monkeypatch.setattr(torch, "accelerator", Accelerator, raising=False)
    monkeypatch.setattr(torch, "xpu", Driver(), raising=False)
    assert devices.find("xpu").names == ("card 0", "card 1", "card 2")
    monkeypatch.setattr(Accelerator, "is_available", lambda: False)
    assert devices.find("xpu").names == ()


@pytest.mark.parametrize("error", [RuntimeError("driver too old"), OSError("no library"), AttributeError("what?")])
def test_a_driver_that_fails_is_a_reason(error, monkeypatch):
    monkeypatch.setattr(torch, "accelerator", None, raising=False)
    monkeypatch.setattr(torch, "xpu", Driver(error=error), raising=False)
    assert devices.find("xpu") == ((), f"asking for an XPU failed ({error})")
    refused("asking for an XPU failed", select, "xpu")
    assert select("auto").name != "xpu"


def test_a_driver_that_warns_is_a_reason(monkeypatch):
    monkeypatch.setattr(torch, "accelerator", None, raising=False)
    monkeypatch.setattr(torch, "xpu", Driver(warning="the driver\nis older than this torch"), raising=False)
    assert devices.find("xpu") == ((), "torch does not find an XPU (the driver is older than this torch)")


# Capabilities


def test_what_a_device_cannot_do_is_said_by_its_backend(monkeypatch):
    here(monkeypatch, xpu=("an XPU",), mps=("Metal",))
    for name in ("xpu", "mps"):
        chosen = select(name)
        assert not chosen.fp64 and chosen.torch_optimizers and not chosen.scatter_free and chosen.autocast is None
    chosen = select("cpu")
    assert chosen.fp64 and chosen.torch_optimizers and chosen.hardware == devices.cpu_name()


def test_a_device_without_scatter_needs_operators_without(tiny_brain):
    error = refused("backend cpu: got the native operators, expected some that do not scatter", replaced, native.OPS)
    assert error.do == "Use backends.portable.OPS there."
    assert replaced(portable.OPS).scatter_free


def replaced(ops):
    return dataclasses.replace(select("cpu"), ops=ops, scatter_free=True)


def test_training_asks_what_the_device_can_do_and_does_nothing_else(tiny_brain, tokens, monkeypatch):
    """Without autocast, torch's optimizers, float64 or inference mode nothing of them is called, step or evaluation."""
    from neuro.train import loop, objective, optimizer

    limited = dataclasses.replace(
        select("cpu"), ops=portable.OPS, scatter_free=True, autocast=None, fp64=False, torch_optimizers=False
    )
    brain = tiny_brain(ops=portable.OPS)
    brain.backend = limited
    for module, name in (
        (torch, "autocast"),
        (torch, "inference_mode"),
        (torch.optim, "AdamW"),
        (torch.Tensor, "double"),
    ):
        monkeypatch.setattr(module, name, lambda *args, name=name, **kwargs: pytest.fail(f"used {name}"))
    adam = optimizer.make(brain, limited, 1e-3, 0.1)
    config = presets.tiny().train
    assert config.mixed_precision
    with OperatorGuard() as guard:
        loss = objective.window_loss(brain, tokens(2, 20), brain.init_state(2), config)
        loss.total.backward()
        assert loop.clip_gradient(brain.parameters(), 1.0) > 0
        adam.step()
        assert loop.held_out_nats(brain, tokens(1, 80)[0].numpy(), 80) > 0
    assert not any(name.startswith("_foreach") or "lerp" in name for name in guard.seen)


def test_each_capability_changes_what_is_done(tiny_brain, tokens, monkeypatch):
    from neuro.train import loop, objective, optimizer

    brain, seen = tiny_brain(), []
    whole = dataclasses.replace(select("cpu"), autocast=torch.bfloat16)
    assert isinstance(optimizer.make(brain, whole, 1e-3, 0.1), torch.optim.AdamW)
    autocast, double = torch.autocast, torch.Tensor.double
    monkeypatch.setattr(torch, "autocast", lambda *args: seen.append(args) or autocast(*args))
    monkeypatch.setattr(torch.Tensor, "double", lambda self: seen.append("double") or double(self))
    brain.backend = whole
    objective.window_loss(brain, tokens(2, 8), brain.init_state(2), presets.tiny().train)
    loop.held_out_nats(brain, tokens(1, 40)[0].numpy(), 40)
    assert ("cpu", torch.bfloat16) in seen and "double" in seen


def test_run_reads_and_writes_within_the_guard(tiny_brain, tokens):
    """A session and its sampler, as `neuro run` drives them; the logits go to the host before anything is sorted."""
    from neuro.sampling import Sampler
    from neuro.session import Session

    brain = tiny_brain(ops=portable.OPS)
    brain.backend = dataclasses.replace(brain.backend, scatter_free=True, fp64=False, torch_optimizers=False)
    session = Session(brain)
    with OperatorGuard() as guard:
        session.feed(tokens(1, 20))
        assert len(list(session.generate(Sampler(temperature=0.0), 20))) == 20
    assert guard.seen["mm"] > 0


def test_nobody_asks_the_name_of_a_backend():
    """Code that must differ by device asks a capability; the spiking layer alone looks where its numbers lie, for free."""
    root, found = Path(backends.__file__).parents[1], []
    for path in sorted([*root.glob("neuro/**/*.py"), *root.glob("export/**/*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare) and re.search(
                r"(device\.type|backend\.name|\.is_cuda)\b", ast.unparse(node)
            ):
                found.append(path.relative_to(root).as_posix())
    assert found == ["neuro/layers/spiking_linear.py"]


def test_cpu_is_what_was_asked_for():
    chosen = select("cpu")
    assert chosen.reason == "cpu was asked for"
    assert chosen.dtype is torch.float32 and not chosen.scatter_free
    assert select("cpu", dtype=torch.float64).dtype is torch.float64
    assert select().reason.startswith("auto: ")


@pytest.mark.parametrize("name", ["", "CPU", "gpu", "rocm", ":0"])
def test_unknown_names_are_refused_with_the_known_ones(name):
    error = refused("expected one of auto, cpu, cuda, xpu, mps, directml", select, name)
    assert error.what.startswith(f"backend: got '{name}'")


@pytest.mark.parametrize("name", ["cuda", "xpu", "mps"])
def test_devices_that_are_not_here_are_refused_with_the_reason(name, monkeypatch):
    here(monkeypatch)
    error = refused(f"backend {name}: no such thing", select, name)
    assert error.do == "Use --backend auto; 'neuro doctor' lists what is here."


@pytest.mark.parametrize("name", ["xpu", "mps"])
def test_other_devices_run_the_portable_operators(name, monkeypatch):
    here(monkeypatch, **{name: ("it",)})
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
    assert directml.probe() == ((), "the package torch_directml is not installed (docs/backends.md says how)")
    error = refused(r"backend directml: the package torch_directml is not installed", select, "directml")
    assert "Windows" in error.do


def test_a_module_put_in_place_by_hand_is_no_package(monkeypatch):
    """find_spec raises for a module without a spec."""
    monkeypatch.setitem(sys.modules, "torch_directml", types.ModuleType("torch_directml"))
    sys.modules["torch_directml"].__spec__ = None
    assert directml.probe().names == ()


@pytest.fixture
def installed(monkeypatch):
    """As if the package were there, on a machine that could run it."""
    monkeypatch.setattr(directml.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(directml.sys, "platform", "win32")


def test_directml_off_windows_and_wsl_is_not_even_probed(installed, monkeypatch):
    monkeypatch.setattr(directml.sys, "platform", "linux")
    monkeypatch.setattr(directml.Path, "exists", lambda self: False)
    monkeypatch.setattr(directml.subprocess, "run", lambda *a, **k: pytest.fail("probed"))
    assert directml.probe() == ((), "DirectML needs Windows, or WSL with /dev/dxg")


@pytest.mark.parametrize(("code", "told", "names", "why"), [
    (0, b'["a card"]', ("a card",), "a card answers"),
    (0, b"[]", (), "it finds no DirectX 12 device"),
    (0, b"a driver's greeting", (), "its probe gave no list of devices"),
    (0, b"3", (), "its probe gave no list of devices"),
    (1, b"", (), "its probe ended with exit code 1"),
    (-11, b"", (), "its probe ended with exit code -11"),
])  # fmt: skip
def test_the_probe_is_a_process_of_its_own_whatever_becomes_of_it(code, told, names, why, installed, monkeypatch):
    asked = []

    def run(command, **options):
        asked.append(command)
        assert options["timeout"] <= 60
        return types.SimpleNamespace(returncode=code, stdout=told)

    monkeypatch.setattr(directml.subprocess, "run", run)
    assert directml.probe() == (names, why)
    assert asked[0][0] == sys.executable and "torch_directml" in asked[0][2]
    assert "torch_directml" not in sys.modules


@pytest.mark.parametrize(("error", "says"), [
    (subprocess.TimeoutExpired("probe", 60), "its probe did not answer within 60 s"),
    (OSError(8, "Exec format error"), "its probe did not start ("),
])  # fmt: skip
def test_a_probe_that_hangs_or_cannot_start_is_a_reason(error, says, installed, monkeypatch):
    def run(*args, **options):
        raise error

    monkeypatch.setattr(directml.subprocess, "run", run)
    found = directml.probe()
    assert not found.names and found.reason.startswith(says)


def test_a_survey_gives_a_probe_that_hangs_less_than_two_seconds(installed, monkeypatch):
    asked = []

    def run(command, timeout, **options):
        asked.append(timeout)
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(directml.subprocess, "run", run)
    row = available()[-1]
    assert asked == [directml.GLANCE_S] and asked[0] < 2
    assert row.reason == "its probe did not answer within 1.5 s; --backend directml waits longer"


def test_probing_never_imports_torch_directml_here(tmp_path, monkeypatch):
    """A real package of that name that kills whoever imports it: the probe dies in its own process, we go on."""
    (tmp_path / "torch_directml.py").write_text("import os\nos.abort()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(directml.sys, "platform", "win32")
    names, why = directml.probe()
    assert (names, why.startswith("its probe ended with exit code")) == ((), True)
    monkeypatch.setattr(directml, "GLANCE_S", 60.0)  # a crowded machine is slow to start a process
    rows = {row.name: row for row in available()}
    assert not rows["directml"].ok and rows["directml"].reason == why
    assert "torch_directml" not in sys.modules
    refused("backend directml: its probe ended", select, "directml")


def test_directml_when_it_answers(installed, monkeypatch):
    monkeypatch.setattr(directml, "probe", lambda: devices.Found(("a card", "another"), "a card, another answers"))
    asked = []
    fake = types.SimpleNamespace(device=lambda index: asked.append(index) or torch.device("cpu"))
    monkeypatch.setitem(sys.modules, "torch_directml", fake)
    chosen = select("directml")
    assert (chosen.name, chosen.ops, chosen.dtype) == ("directml", portable.OPS, torch.float32)
    assert chosen.scatter_free and not chosen.fp64 and not chosen.torch_optimizers
    assert chosen.autocast is None and chosen.hardware == "a card"
    assert chosen.reason == "directml was asked for; a card, another answers; its operators need no scatter"
    assert select("directml:1").hardware == "another" and asked == [0, 1]
    refused("backend directml:2: got device 2, expected at most 1", select, "directml:2")
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
