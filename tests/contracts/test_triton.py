"""The Triton kernels are the plainest loops: in Triton's interpreter on the CPU, and on a CUDA device where there is one.

`TRITON_INTERPRET=1 pytest tests/contracts/test_triton.py` runs them without a device. What the interpreter cannot show, that
they compile and into what, the last tests ask of Triton's compiler, which needs no device either.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from backends import LifRule, Surrogate, native, reference, surrogate
from backends.kernels import cuda

INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")
if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)
if not INTERPRETED and not cuda.status()[0]:
    pytest.skip(f"no kernel runs here ({cuda.status()[1]}) and TRITON_INTERPRET=1 is not set", allow_module_level=True)

from backends.kernels import affine_triton, lif_triton  # noqa: E402 - they import triton

ROOT = Path(__file__).resolve().parents[2]
DEVICE = "cpu" if INTERPRETED else "cuda"
BOUND = 1e-12
# Around the sixteen steps that are read at a time and the 64 channels of a program; rows in one and in several pieces.
SHAPES = [(1, 1, 1), (16, 2, 5), (17, 1, 65)]


def draw(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Tensor]:
    """Two tensors [T,B,D], the first within [0, 1), and one [B,D]."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.rand(shape, dtype=torch.float64, generator=generator)
    rest = [torch.randn(s, dtype=torch.float64, generator=generator) for s in (shape, shape[1:])]
    return [x.to(DEVICE, dtype) for x in (a, *rest)]


def everything(scan, inputs: list, *constants) -> list[Tensor]:
    """The outputs, then the gradients of a random projection of all of them by every tensor among the inputs."""
    inputs = [x.detach().requires_grad_() if isinstance(x, Tensor) else x for x in inputs]
    outputs = scan(*inputs, *constants)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    generator, total = torch.Generator().manual_seed(1), 0.0
    for x in outputs:
        total = total + (x * torch.randn(x.shape, dtype=torch.float64, generator=generator).to(x)).sum()
    leaves = [x for x in inputs if isinstance(x, Tensor)]
    return [*(x.detach() for x in outputs), *torch.autograd.grad(total, leaves)]


def apart(found: list[Tensor], truth: list[Tensor]) -> float:
    """The largest difference, over the largest value of each tensor."""
    assert [x.shape for x in found] == [x.shape for x in truth]
    pairs = zip(found, truth, strict=True)
    return max(
        float(((x.double() - y.double()).abs() / (1 + y.abs().max())).nan_to_num(nan=9.0).max()) for x, y in pairs
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_recurrence_is_the_plainest_loop_bit_for_bit(shape, dtype, measured):
    inputs = draw(*shape, dtype=dtype)
    found, truth = (everything(scan, inputs) for scan in (affine_triton.affine_scan, reference.affine_scan))
    assert torch.equal(found[0], truth[0])
    worst = apart(found[1:], truth[1:])
    measured(str(dtype), worst)
    assert worst <= (BOUND if dtype == torch.float64 else 1e-5)


RULES = [
    LifRule(reset, delayed, strict, -0.2 if reset == "hard" else 0.0, detach, Surrogate(kind, 2.0))
    for (reset, delayed), (i, kind) in itertools.product(
        (("soft", False), ("soft", True), ("hard", False), ("hard", True), ("none", False)),
        enumerate(surrogate.KINDS),
    )
    for strict, detach in (((False, True), (True, False)) if i == 0 else ((i % 2 == 0, i == 2),))
]


@pytest.mark.parametrize(
    "rule", RULES, ids=lambda r: f"{r.reset}-{r.delayed}-{r.strict}-{r.detach_reset}-{r.surrogate.kind}"
)
def test_the_neuron_is_the_plainest_loop_under_every_rule(rule, measured):
    """With one number for all neurons and with constants that learn; float64, a ragged end."""
    _, current, v0 = draw(17, 2, 5, seed=5)
    generator = torch.Generator().manual_seed(2)
    learned = [(torch.rand(5, dtype=torch.float64, generator=generator) + x).to(DEVICE) for x in (0.0, 0.5)]
    for constants in ([0.9, 0.8], learned):
        found, truth = (
            everything(scan, [current, v0, *constants], rule) for scan in (lif_triton.lif_scan, reference.lif_scan)
        )
        assert torch.equal(found[0], truth[0]) and torch.equal(found[1], truth[1])
        assert 0 < float(found[0].mean()) < 1
        worst = apart(found[2:], truth[2:])
        measured(f"{len(constants)} {type(constants[0]).__name__}", worst)
        assert worst <= BOUND


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_neuron_is_the_same_in_float32(shape):
    """Also where no gradient is asked for, and no membrane kept."""
    _, *inputs = draw(*shape, dtype=torch.float32)
    for rule in (LifRule(), LifRule("hard", delayed=True, strict=True, v_reset=0.1, detach_reset=False)):
        found, truth = (everything(scan, inputs, 0.9, 0.8, rule) for scan in (lif_triton.lif_scan, reference.lif_scan))
        assert torch.equal(found[0], truth[0]) and torch.equal(found[1], truth[1])
        assert apart(found[2:], truth[2:]) <= 1e-5
        with torch.no_grad():
            assert all(map(torch.equal, lif_triton.lif_scan(*inputs, 0.9, 0.8, rule), truth[:2]))


def test_the_neuron_is_that_of_the_other_forms():
    _, *inputs = draw(33, 2, 9, dtype=torch.float32)
    host = [x.cpu() for x in inputs]
    found, other = lif_triton.lif_scan(*inputs, 0.9, 0.8, LifRule()), native.lif_scan(*host, 0.9, 0.8, LifRule())
    assert all(torch.equal(x.cpu(), y) for x, y in zip(found, other, strict=True))


@pytest.mark.parametrize("shape", [(), (1,), (5,)], ids=["one", "one-in-a-row", "each"])
def test_constants_may_learn_alone(shape):
    _, current, v0 = draw(18, 2, 5)
    for chosen in ([torch.full(shape, 0.7), 0.8], [0.9, torch.full(shape, 0.6)]):
        constants = [x.to(current) if isinstance(x, Tensor) else x for x in chosen]
        found, truth = (
            everything(scan, [current, v0, *constants], LifRule(delayed=True, detach_reset=False))
            for scan in (lif_triton.lif_scan, reference.lif_scan)
        )
        assert torch.equal(found[0], truth[0]) and apart(found, truth) <= BOUND


def rounds_as_torch(found: Tensor, truth: Tensor) -> bool:
    """Triton's interpreter cuts the last bits of a bfloat16 off where hardware and torch round."""
    if INTERPRETED and found.dtype == torch.bfloat16:
        return bool(((found.float() - truth).abs() <= truth.abs() * torch.finfo(found.dtype).eps).all())
    return torch.equal(found, truth.to(found.dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_has_a_float32_state(dtype):
    """What comes back is the float32 result of the same inputs, rounded; spikes are its spikes."""
    bound = torch.finfo(dtype).eps
    inputs = draw(17, 2, 5, dtype=dtype)
    single = [x.float() for x in inputs]
    found, truth = everything(affine_triton.affine_scan, inputs), everything(reference.affine_scan, single)
    assert all(x.dtype == dtype for x in found)
    assert rounds_as_torch(found[0], truth[0]) and apart(found, truth) <= 2 * bound
    for decay in (0.9, torch.full((5,), 0.75, device=DEVICE)):
        mine, theirs = ([x.to(t) if isinstance(x, Tensor) else x for x in (*inputs[1:], decay, 0.8)] for t in
                        (dtype, torch.float32))  # fmt: skip
        found, truth = (
            everything(lif_triton.lif_scan, mine, LifRule()),
            everything(reference.lif_scan, theirs, LifRule()),
        )
        assert all(x.dtype == dtype for x in found)
        assert torch.equal(found[0].float(), truth[0]) and torch.equal(found[1], truth[1].to(dtype))
        assert apart(found, truth) <= 2 * bound


LAYOUTS = {
    "batch first": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "channels first": lambda x: x.permute(2, 0, 1).contiguous().permute(1, 2, 0),
    "every other channel": lambda x: x.repeat_interleave(2, -1)[..., ::2],
    "one drive for all rows": lambda x: x[:, :1].expand_as(x),
    "one drive for all steps": lambda x: x[:1].expand_as(x),
    "one of three projections": lambda x: torch.cat([x, x, x], -1).chunk(3, -1)[1],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tensors_may_lie_in_memory_as_they_like(layout):
    a, b, state = draw(18, 3, 7)
    odd, turned = [LAYOUTS[layout](x) for x in (a, b)], state.T.contiguous().T
    found = everything(affine_triton.affine_scan, [*odd, turned])
    truth = everything(reference.affine_scan, [*(x.contiguous() for x in odd), state])
    assert torch.equal(found[0], truth[0]) and apart(found, truth) <= BOUND
    learned = torch.stack([state[0].sigmoid()] * 2, -1)[:, 0]  # a decay a neuron, two apart in memory
    found = everything(lif_triton.lif_scan, [odd[1], turned, learned], 0.8, LifRule())
    truth = everything(reference.lif_scan, [odd[1].contiguous(), state, learned], 0.8, LifRule())
    assert torch.equal(found[0], truth[0]) and apart(found, truth) <= BOUND


def test_outputs_lie_as_the_inputs_do():
    a, b, h0 = draw(5, 3, 4)
    a, b = (LAYOUTS["batch first"](x) for x in (a, b))
    h, (spikes, _) = affine_triton.affine_scan(a, b, h0), lif_triton.lif_scan(b, h0, 0.9, 0.8, LifRule())
    assert h.transpose(0, 1).is_contiguous() and spikes.transpose(0, 1).is_contiguous()


def test_expanded_gradients_and_a_state_of_one_row_are_taken():
    a, b, state = (x.requires_grad_() for x in draw(17, 3, 5))
    found, truth = (
        torch.autograd.grad(scan(a, b, state).sum(), [a, b, state])
        for scan in (affine_triton.affine_scan, reference.affine_scan)
    )
    assert apart(list(found), list(truth)) <= BOUND
    row = state[:1].detach().requires_grad_()
    found, truth = (
        torch.autograd.grad(sum(x.sum() for x in scan(b, row, 0.9, 0.8, LifRule())), [b, row])
        for scan in (lif_triton.lif_scan, reference.lif_scan)
    )
    assert found[1].shape == row.shape and apart(list(found), list(truth)) <= BOUND


def test_a_scan_may_be_cut_anywhere():
    """The state is handed on bit for bit, and the gradients come back through it."""
    a, b, state = draw(34, 2, 3)
    rule = LifRule("hard", delayed=True, v_reset=0.1, detach_reset=False)
    whole = everything(affine_triton.affine_scan, [a, b, state])
    spiking = everything(lif_triton.lif_scan, [b, state], 0.9, 0.8, rule)
    for cuts in ([1], [16, 33]):
        ends = list(itertools.pairwise([0, *cuts, 34]))

        def recurrence(a: Tensor, b: Tensor, h: Tensor, ends=ends) -> Tensor:
            pieces = []
            for start, stop in ends:
                pieces.append(affine_triton.affine_scan(a[start:stop], b[start:stop], h))
                h = pieces[-1][-1]
            return torch.cat(pieces)

        def neuron(current: Tensor, v: Tensor, *constants, ends=ends) -> tuple[Tensor, Tensor]:
            pieces = []
            for start, stop in ends:
                spikes, v = lif_triton.lif_scan(current[start:stop], v, *constants)
                pieces.append(spikes)
            return torch.cat(pieces), v

        found = everything(recurrence, [a, b, state])
        assert torch.equal(found[0], whole[0]) and apart(found, whole) <= BOUND
        found = everything(neuron, [b, state], 0.9, 0.8, rule)
        assert all(map(torch.equal, found[:2], spiking[:2])) and apart(found, spiking) <= BOUND


def test_inputs_are_left_as_they_were_and_second_gradients_refused():
    a, b, state = draw(5, 2, 3)
    copies = [x.clone() for x in (a, b, state)]
    for scan, inputs, constants in (
        (affine_triton.affine_scan, [a, b, state], ()),
        (lif_triton.lif_scan, [b, state], (0.9, 0.8, LifRule())),
    ):
        leaves = [x.detach().requires_grad_() for x in inputs]
        out = scan(*leaves, *constants)
        total = out[0].square().sum() + out[1].square().sum()
        first = torch.autograd.grad(total, leaves, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            first[0].sum().backward()
    assert all(map(torch.equal, copies, (a, b, state)))


def test_training_keeps_a_membrane_in_sixteen_beside_its_input():
    _, current, v0 = draw(32, 2, 50)
    current.requires_grad_()
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        kept[x.data_ptr()] = x.numel()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        lif_triton.lif_scan(current, v0, 0.9, 0.8, LifRule())
    assert kept.pop(current.data_ptr()) == current.numel()
    assert sum(kept.values()) == current.numel() // 16


def test_a_whole_brain_runs_on_the_kernels(tiny_brain, tokens, monkeypatch):
    """Logits and gradients of a span of the hybrid brain, with every time loop of it in Triton."""
    calls = []
    for name, module in (("affine_scan", affine_triton), ("lif_scan", lif_triton)):
        kernel = getattr(module, name)
        monkeypatch.setattr(cuda, name, lambda *x, kernel=kernel, name=name: calls.append(name) or kernel(*x))
    monkeypatch.setattr(cuda, "runs", lambda *x: True)
    monkeypatch.setattr(native.cpu, "runs", lambda *x: False)
    monkeypatch.setattr(native.lif_numba, "runs", lambda *x: False)
    found = []
    for ops in (native.OPS, reference.OPS):
        brain = tiny_brain(ops=ops, dtype=torch.float64)
        out = brain.scan(tokens(2, 16), brain.init_state(2))
        (out.aux.surprise.sum() + 100 * out.aux.layer_rates.sum()).backward()
        found.append([out.logits.detach(), *(p.grad for p in brain.parameters() if p.grad is not None)])
    assert set(calls) == {"affine_scan", "lif_scan"}
    assert apart(*found) <= 1e-9


def test_the_laws_can_fail():
    """A wrong decay, and a gradient that does not flow through time, are caught."""
    _, *inputs = draw(20, 2, 9)
    truth = everything(reference.lif_scan, inputs, 0.9, 0.8, LifRule())
    assert apart(everything(lif_triton.lif_scan, inputs, 0.89, 0.8, LifRule()), truth) > 1e-3

    def cut(current: Tensor, v: Tensor, *constants) -> tuple[Tensor, Tensor]:
        early, v = lif_triton.lif_scan(current[:9], v, *constants)
        late, v = lif_triton.lif_scan(current[9:], v.detach(), *constants)
        return torch.cat([early, late]), v

    found = everything(cut, inputs, 0.9, 0.8, LifRule())
    assert torch.equal(found[0], truth[0]) and apart(found, truth) > 1e-3


COMPILES = """
import contextlib, json, pathlib, re, subprocess, sys, tempfile
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import ASTSource, make_backend
from triton.runtime.jit import create_function_from_signature
from backends import LifRule, Surrogate
from backends.kernels import affine_triton, lif_triton, triton_rows

target = GPUTarget("cuda", int(sys.argv[1]), 32)
backend, found = make_backend(target), {}

def launch(kernel, like, rows, width, *arguments, **known):
    # What a launch on the device would compile, and no launch.
    known = {**known, **triton_rows.FIXED, "debug": False}
    bind = create_function_from_signature(kernel.signature, kernel.params, backend)
    bound, special, options = bind(*arguments, len(like), width, 3, **known)
    key = f"{kernel.fn.__module__}.{kernel.fn.__name__} {special}"
    if key in found:
        return
    options, signature, constants, attributes = kernel._pack_args(backend, known, bound, special, options)
    made = triton.compile(ASTSource(kernel, signature, constants, attributes), target, options.__dict__)
    found[key] = {"ptx": made.asm["ptx"]}
    tool = pathlib.Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        cubin = pathlib.Path(folder, "cubin")
        cubin.write_bytes(made.asm["cubin"])
        found[key]["usage"] = subprocess.run([tool, "-res-usage", cubin], capture_output=True, text=True).stdout

affine_triton.launch = lif_triton.launch = launch

def run(scan, *given):
    leaves = [x.detach().requires_grad_() for x in given if isinstance(x, torch.Tensor)]
    out = scan(*leaves, *given[len(leaves):])
    torch.autograd.grad(sum(x.sum() for x in out), leaves)

hard = LifRule("hard", True, True, 0.1, False, Surrogate("arctan", 2.0))
for shape in ((20, 2, 64), *(json.loads(sys.argv[2]))):
    x = torch.zeros(shape)
    for y in (x, x.transpose(0, 1).contiguous().transpose(0, 1), x.transpose(1, 2).contiguous().transpose(1, 2)):
        run(affine_triton.affine_scan, y, y, y[0])
        run(lif_triton.lif_scan, y, y[0], 0.9, 0.8, LifRule())
        lif_triton.lif_scan(y, y[0], 0.9, 0.8, LifRule())
        if len(sys.argv) > 3:
            y = y.bfloat16()
            run(lif_triton.lif_scan, y, y[0], y[0, 0], y[0, 0], hard)
print(json.dumps(found))
"""


def compiled(*arguments: str, folder: Path) -> dict[str, dict[str, str]]:
    if importlib.import_module("triton").__version__ < "3.7":
        pytest.skip("how a launch is made ready is asked of Triton 3.7")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(folder)}
    command = [sys.executable, "-c", COMPILES, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_kernels_compile_for_an_h100_without_fused_sums_or_spills(tmp_path):
    """A product and a sum are two roundings, subnormal numbers stay, and no register goes to memory. What is compiled
    depends on no length, width, batch or layout."""
    shapes = json.dumps([[1, 2, 3], [16, 1, 1], [17, 1, 65], [33, 3, 16]])
    found = compiled("90", shapes, "more", folder=tmp_path)
    assert len(found) == 7
    for made in found.values():
        assert "mul.f32" in made["ptx"] or "mul.rn.f32" in made["ptx"]
        assert "fma." not in made["ptx"] and ".ftz" not in made["ptx"] and ".local" not in made["ptx"]
        assert "STACK:0" in made["usage"] and "LOCAL:0" in made["usage"]


def test_kernels_compile_for_an_a100(tmp_path):
    found = compiled("80", "[]", folder=tmp_path)
    assert len(found) == 5 and all("fma." not in made["ptx"] and "sm_80" in made["ptx"] for made in found.values())
