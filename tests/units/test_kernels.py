"""What the C++ time loops, the product of decoding and the Triton kernels accept."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from backends import LifRule, devices, native, portable, reference
from backends.kernels import cpu, cuda, team

ROOT = Path(__file__).resolve().parents[2]


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


def test_a_product_runs_in_it_only_for_one_row_without_a_graph(monkeypatch):
    monkeypatch.setattr(cpu, "library", lambda: object())
    x, weight, bias = torch.zeros(1, 1, 3), torch.zeros(2, 3), torch.zeros(2)
    assert cpu.multiplies(x, weight, bias) and cpu.multiplies(x[0, 0], weight, None)
    assert cpu.multiplies(x.double(), weight.double(), None)
    refused = [
        (torch.zeros(1, 2, 3), weight, None),
        (x.double(), weight, None),
        (x, weight, bias.double()),
        (x.bfloat16(), weight.bfloat16(), None),
        (x, torch.zeros(3, 2).T, None),
        (torch.zeros(6)[::2], weight, None),
        (x.to("meta"), weight.to("meta"), None),
        (x, weight.requires_grad_(), None),
    ]
    assert not any(cpu.multiplies(*given) for given in refused)
    with torch.no_grad():
        assert cpu.multiplies(x, weight, None)
        with torch.autocast("cpu", torch.bfloat16):
            assert not cpu.multiplies(x, weight, None)


@pytest.mark.skipif(cpu.library() is None, reason="the C++ library is not here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("columns", [1, 63, 64, 65, 200])
def test_a_product_of_many_rows_is_the_same_on_every_number_of_threads(columns, dtype):
    """Enough rows that helpers are started; 9,001 is no multiple of their number."""
    generator = torch.Generator().manual_seed(0)
    weight, x, bias = (
        torch.randn(*shape, generator=generator, dtype=dtype) for shape in ((9001, columns), (columns,), (9001,))
    )
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(cpu.product(x, weight, bias))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)
    truth = weight.double() @ x.double() + bias.double()
    assert float((found[0].double() - truth).abs().max()) <= (1e-12 if dtype == torch.float64 else 1e-4)


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def large_product():
    """(x [64], weight [9001, 64], bias [9001]): enough for several threads."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator) for shape in ((64,), (9001, 64), (9001,))]


@pytest.mark.skipif(cpu.library() is None, reason="the C++ library is not here")
def test_threads_of_its_own_give_what_those_of_torch_give(three_threads, large_product):
    lent = team._pool()
    if sys.platform == "linux":
        assert lent is not None  # torch's wheels bring GNU OpenMP
    found = cpu.product(*large_product)
    cpu.library().neuro_lend_team(None)
    try:
        assert torch.equal(cpu.product(*large_product), found)
    finally:
        cpu.library().neuro_lend_team(lent)


@pytest.mark.skipif(cpu.library() is None or not hasattr(os, "fork"), reason="no C++ library, or no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # that it has threads is what is asked about
def test_a_forked_process_does_not_wait_for_threads_it_has_not(three_threads, large_product):
    found = cpu.product(*large_product)
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os._exit(0 if torch.equal(cpu.product(*large_product), found) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_triton_takes_what_lies_on_one_cuda_device_in_one_type(monkeypatch):
    """Asked with tensors that have no values, as if there were a CUDA device that starts kernels."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(cuda, "status", lambda index=None: (True, "triton 0"))
    with FakeTensorMode():

        def make(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cuda:0") -> torch.Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        x, state, each = make(2, 1, 3), make(1, 3), make(3)
        assert cuda.runs(x, x, state) and cuda.runs(x, state, 0.9, 1.0) and cuda.runs(x, state, each, 1.0)
        for dtype in (torch.float64, torch.bfloat16, torch.float16):
            assert cuda.runs(make(2, 1, 3, dtype=dtype), make(1, 3, dtype=dtype))
        refused = [
            (x, make(1, 3, dtype=torch.float64)),
            (x, make(1, 3, device="cpu")),
            (x, make(1, 3, device="cuda:1")),
            (x, state, make(3, device="cpu"), 1.0),
            (make(2, 0, 3), make(0, 3)),
            (make(2, 1, 3, dtype=torch.float8_e5m2), make(1, 3, dtype=torch.float8_e5m2)),
            (make(2, 1, 3, device="cpu"), make(1, 3, device="cpu")),
        ]
        assert not any(cuda.runs(*given) for given in refused)
        monkeypatch.setattr(cuda, "status", lambda index=None: (False, "no"))
        assert not cuda.runs(x, state)


def test_native_runs_triton_where_it_is_active_and_torch_operators_where_it_is_not(monkeypatch):
    """A recurrence of one token is a product and a sum anywhere."""
    used = []
    for name in ("affine_scan", "lif_scan"):
        scan = getattr(reference, name)
        monkeypatch.setattr(cuda, name, lambda *x, name=name, scan=scan: used.append(name) or scan(*x))
    monkeypatch.setattr(cpu, "library", lambda: None)
    monkeypatch.setattr(native.lif_numba, "here", lambda: False)
    x = torch.rand(3, 2, 4)
    truth = portable.affine_scan(x, x, x[0])
    assert torch.allclose(native.affine_scan(x, x, x[0]), truth) and used == []
    native.lif_scan(x, x[0], 0.9, 1.0, LifRule())
    assert used == []
    monkeypatch.setattr(cuda, "runs", lambda *x: True)
    native.affine_scan(x, x, x[0])
    native.lif_scan(x, x[0], 0.9, 1.0, LifRule())
    native.affine_scan(x[:1], x[:1], x[0])
    assert used == ["affine_scan", "lif_scan"]


def test_triton_says_why_it_is_not_active(monkeypatch):
    cuda._started.cache_clear()
    here = SimpleNamespace(is_available=lambda: False, current_device=lambda: 0)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert cuda.status() == (False, "triton is not installed")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(torch, "cuda", here)
    assert cuda.status() == (False, "triton is installed, and there is no CUDA device")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    here.is_available, here.get_device_capability = lambda: True, lambda index: (7, 5)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert cuda.status() == (False, "TRITON_INTERPRET is set: kernels would run on the CPU")
    cuda._started.cache_clear()
    monkeypatch.delenv("TRITON_INTERPRET")
    assert cuda.status() == (False, "the device has compute capability 7.5, older than 8.0")
    here.get_device_capability = lambda index: (9, 0)
    for version, says in (("2.1.0", "triton 2.1.0 is older than 3.3"), ("3.7.1", "a kernel does not start: ")):
        cuda._started.cache_clear()
        monkeypatch.setitem(sys.modules, "triton", SimpleNamespace(__version__=version))
        active, why = cuda.status()
        assert not active and why.startswith(says)
    for value, says in ((3.0, (True, "triton 3.7.1")), (4.0, (False, "triton 3.7.1 computes something else"))):
        cuda._started.cache_clear()
        ones = torch.ones
        monkeypatch.setattr(torch, "ones", lambda *shape, device, ones=ones: ones(*shape))
        monkeypatch.setattr(cuda, "_affine", lambda a, b, h0, value=value: torch.tensor([2.0, value]))
        assert cuda.status() == says
        monkeypatch.setattr(torch, "ones", ones)
    cuda._started.cache_clear()


@pytest.mark.skipif(bool(devices.find("cuda").names), reason="a CUDA device is here")
def test_the_benchmark_of_cuda_says_that_there_is_no_device():
    command = [sys.executable, "benchmarks/cuda_scans.py"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 3 and done.stdout == ""
    assert done.stderr.startswith("cuda_scans: got no CUDA device (") and done.stderr.count("\n") == 2


@pytest.mark.skipif(cpu.library() is None, reason="the C++ library is not here")
@pytest.mark.parametrize(("tokens", "asked"), [(3, 0), (5, 2)])
def test_outputs_of_fresh_memory_are_asked_for_in_huge_pages(tokens, asked, monkeypatch):
    """The spikes and the gradient, where they are larger than the bound and not otherwise."""
    found = []
    monkeypatch.setattr(cpu, "_FRESH", 4 * 4 * 64)
    monkeypatch.setattr(cpu.pages, "prefer", found.append)
    current = torch.ones(tokens, 1, 64, requires_grad=True)
    spikes, _ = cpu.lif_scan(current, torch.zeros(1, 64), 0.9, 1.0, LifRule())
    spikes.sum().backward()
    assert len(found) == asked and all(x.shape == current.shape for x in found)
