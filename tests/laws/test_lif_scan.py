"""Law: every way to run the spiking time loop gives the plainest loop's spikes and membranes bit for bit, and its gradients.

The reference's own gradients are checked against differences: with a spike that is the integral of its surrogate the loop is
a smooth function, and the backward pass is the same.
"""

from __future__ import annotations

import itertools
import math
import resource
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from backends import BackendError, LifRule, Surrogate, lif, native, portable, reference, surrogate
from backends.kernels import cpu, lif_numba

BOUND = 1e-12
WAYS = ("cpp", "numba", "torch")
# What numba compiles apart is kept to four: a delayed reset or not, and gradients through the reset or not.
RULES = [
    LifRule(),
    LifRule(strict=True, detach_reset=False),
    LifRule("hard", v_reset=-0.2, surrogate=Surrogate("arctan", 2.0)),
    LifRule("hard", delayed=True, strict=True, v_reset=0.1),
    LifRule("soft", delayed=True),
    LifRule("none"),
]


@pytest.fixture(params=WAYS)
def scan(request) -> Callable[..., tuple[Tensor, Tensor]]:
    if request.param == "cpp" and cpu.library() is None:
        pytest.skip("the C++ library is not here")
    if request.param == "numba" and not lif_numba.here():
        pytest.skip("numba is not installed")
    return {"cpp": cpu, "numba": lif_numba, "torch": lif}[request.param].lif_scan


def draw(t: int, b: int, n: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, dtype=dtype, generator=generator) for shape in ((t, b, n), (b, n))]


def everything(scan, inputs: list[Tensor], *constants) -> list[Tensor]:
    """Spikes, membrane, and the gradients of random projections of both by current and v0."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    spikes, v = scan(*inputs, *constants)
    weights = draw(*spikes.shape, spikes.dtype, seed=1)
    total = (spikes * weights[0]).sum() + (v * weights[1]).sum()
    return [spikes.detach(), v.detach(), *torch.autograd.grad(total, inputs)]


def apart(found: list[Tensor], truth: list[Tensor]) -> float:
    """The largest difference over the largest value of each tensor."""
    pairs = zip(found, truth, strict=True)
    return max(float(((x - y).abs() / (1 + y.abs().max())).nan_to_num(nan=9.0).max()) for x, y in pairs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "rule", RULES, ids=lambda r: f"{r.reset}{'-delayed' * r.delayed}{'-attached' * (not r.detach_reset)}"
)
def test_it_is_the_plainest_loop_bit_for_bit(rule, dtype, scan, measured):
    """Lengths around the steps between two checkpoints, widths around the strips of a row."""
    for shape in ((2, 1, 1), (15, 2, 63), (16, 1, 64), (17, 3, 65), (33, 2, 129), (50, 1, 7)):
        inputs = draw(*shape, dtype)
        found, truth = (everything(f, inputs, 0.9, 0.8, rule) for f in (scan, reference.lif_scan))
        assert torch.equal(found[0], truth[0]) and torch.equal(found[1], truth[1])
        with torch.no_grad():
            assert all(map(torch.equal, scan(*inputs, 0.9, 0.8, rule), truth[:2]))
        worst = apart(found[2:], truth[2:])
        measured(str(dtype), worst)
        assert worst <= (BOUND if dtype == torch.float64 else 1e-5)
    assert 0 < float(found[0].mean()) < 1


@pytest.mark.parametrize(
    "rule", [LifRule(), LifRule("hard", delayed=True, strict=True, v_reset=0.1)], ids=["soft", "hard"]
)
def test_rows_that_pass_the_caches_are_written_whole(rule, scan):
    """5 MiB of an odd width: no row begins at a line of the cache."""
    inputs = draw(40, 2, 16_501, torch.float32)
    found, truth = (everything(f, inputs, 0.9, 0.8, rule) for f in (scan, lif.lif_scan))
    assert torch.equal(found[0], truth[0]) and torch.equal(found[1], truth[1])
    assert apart(found[2:], truth[2:]) <= 1e-5


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "batch first": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "channels first": lambda x: x.permute(2, 0, 1).contiguous().permute(1, 2, 0),
    "every other channel": lambda x: x.repeat_interleave(2, -1)[..., ::2],
    "one drive for all rows": lambda x: x[:, :1].expand_as(x),
    "one drive for all steps": lambda x: x[:1].expand_as(x),
    "one of three projections": lambda x: torch.cat([x, x, x], -1).chunk(3, -1)[1],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tensors_may_lie_in_memory_as_they_like(layout, scan):
    current, v0 = draw(19, 3, 70)
    current = LAYOUTS[layout](current)
    truth = everything(reference.lif_scan, [current.contiguous(), v0], 0.9, 0.8, LifRule())
    assert apart(everything(scan, [current, v0.T.contiguous().T], 0.9, 0.8, LifRule()), truth) <= BOUND


@pytest.mark.parametrize("rule", RULES[:4:3], ids=["soft", "hard-delayed"])
def test_a_scan_may_be_cut_anywhere(rule, scan):
    """The membrane is handed on, and the gradients come back through it."""
    inputs = draw(50, 2, 9)
    truth = everything(scan, inputs, 0.9, 0.8, rule)

    def in_pieces(cuts: list[int]):
        def run(current: Tensor, v: Tensor, *constants) -> tuple[Tensor, Tensor]:
            pieces = []
            for start, stop in itertools.pairwise([0, *cuts, 50]):
                spikes, v = scan(current[start:stop], v, *constants)
                pieces.append(spikes)
            return torch.cat(pieces), v

        return run

    for cuts in ([1], [49], [16], [15, 16, 33], list(range(1, 50))):
        assert apart(everything(in_pieces(cuts), inputs, 0.9, 0.8, rule), truth) <= BOUND


@pytest.mark.parametrize("way", ["cpp", "torch"])
@pytest.mark.parametrize("shape", [(), (1,), (66,)], ids=["one", "one-in-a-row", "each"])
@pytest.mark.parametrize("rule", RULES, ids=lambda r: f"{r.reset}{'-delayed' * r.delayed}")
def test_learned_constants_learn_as_in_the_plainest_loop(rule, shape, way):
    if way == "cpp" and cpu.library() is None:
        pytest.skip("the C++ library is not here")
    generator = torch.Generator().manual_seed(2)
    given = [*draw(35, 2, 66), *(torch.rand(shape, dtype=torch.float64, generator=generator) + x for x in (0.0, 0.5))]
    results = []
    for f in (cpu.lif_scan if way == "cpp" else lif.lif_scan, reference.lif_scan):
        for chosen in (given, [*given[:2], given[2], 0.8], [*given[:2], 0.9, given[3]]):
            inputs = [x.clone().requires_grad_() if isinstance(x, Tensor) else x for x in chosen]
            spikes, v = f(*inputs, rule)
            leaves = [x for x in inputs if isinstance(x, Tensor)]
            weights = draw(*spikes.shape, seed=1)
            total = (spikes * weights[0]).sum() + (v * weights[1]).sum()
            results.append([spikes.detach(), v.detach(), *torch.autograd.grad(total, leaves)])
    for found, truth in zip(results[:3], results[3:], strict=True):
        assert [x.shape for x in found] == [x.shape for x in truth]
        assert torch.equal(found[0], truth[0]) and apart(found, truth) <= BOUND


INTEGRALS = {
    "fast_sigmoid": lambda x, k: x / (1 + k * x.abs()),
    "arctan": lambda x, k: torch.atan(math.pi / 2 * k * x) / math.pi,
    "triangular": lambda x, k: x.clamp(-1 / k, 1 / k) * (1 - k * x.clamp(-1 / k, 1 / k).abs() / 2),
    "straight_through": lambda x, k: x.clamp(-1 / k, 1 / k),
}


@pytest.mark.parametrize("kind", surrogate.KINDS)
@pytest.mark.parametrize(("reset", "delayed"), [("soft", False), ("soft", True), ("hard", False), ("hard", True)])
def test_the_plainest_loop_is_differentiated_as_its_soft_twin(kind, reset, delayed, monkeypatch):
    def soft(ctx, x: Tensor, surrogate: Surrogate, strict: bool) -> Tensor:
        ctx.save_for_backward(x)
        ctx.surrogate = surrogate
        return INTEGRALS[surrogate.kind](x, surrogate.slope)

    monkeypatch.setattr(surrogate._Spike, "forward", staticmethod(soft))
    rule = LifRule(reset, delayed, detach_reset=False, surrogate=Surrogate(kind, 1.5))
    constants = [torch.tensor([0.7, 0.9], dtype=torch.float64), torch.tensor([0.6, 0.9], dtype=torch.float64)]
    inputs = [x.requires_grad_() for x in [*draw(5, 2, 2, seed=4), *constants]]
    assert torch.autograd.gradcheck(lambda *x: reference.lif_scan(*x, rule), inputs)


def test_threads_change_nothing(scan):
    """Large enough that the kernels start them; 1,100 channels are no whole number of strips for 3 threads."""
    inputs = draw(800, 2, 550, torch.float32)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(everything(scan, inputs, 0.9, 0.8, LifRule()))
    assert all(torch.equal(x, y) for other in found[1:] for x, y in zip(found[0], other, strict=True))


def test_inputs_are_left_as_they_were(scan):
    inputs = draw(20, 2, 70)
    copies = [x.clone() for x in inputs]
    everything(scan, inputs, 0.9, 0.8, LifRule())
    assert all(map(torch.equal, inputs, copies))


@pytest.mark.parametrize("way", ["cpp", "numba"])
def test_training_keeps_a_membrane_in_sixteen_beside_its_input(way):
    module = {"cpp": cpu, "numba": lif_numba}[way]
    if not (cpu.library() if way == "cpp" else lif_numba.here()):
        pytest.skip(f"{way} is not here")
    current, v0 = draw(160, 2, 50)
    current.requires_grad_()
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        kept[x.data_ptr()] = x.numel()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        module.lif_scan(current, v0, 0.9, 0.8, LifRule())
    assert kept.pop(current.data_ptr()) == current.numel()
    assert sum(kept.values()) == current.numel() // 16


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only")
def test_scans_that_are_made_and_dropped_leave_nothing(scan):
    inputs = draw(40, 2, 500, torch.float32)  # 160 kB: a stream that stays would make 160 MB
    for _ in range(50):
        everything(scan, inputs, 0.9, 0.8, LifRule())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(1000):
        everything(scan, inputs, 0.9, 0.8, LifRule())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 << 10


def test_the_gradient_of_a_gradient_is_refused_and_not_wrong(scan):
    inputs = [x.requires_grad_() for x in draw(5, 2, 3)]
    spikes, v = scan(*inputs, 0.9, 0.8, LifRule())
    first = torch.autograd.grad(spikes.sum() + v.square().sum(), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first[0].sum().backward()


def test_native_takes_the_quickest_way_that_is_here(monkeypatch):
    """And the ones after it where a library is missing or a rule is none of theirs."""
    used = []
    for name, module in (("cpp", cpu), ("numba", lif_numba), ("torch", lif)):
        monkeypatch.setattr(
            module, "lif_scan", lambda *x, name=name, scan=reference.lif_scan: used.append(name) or scan(*x)
        )
    inputs = draw(3, 1, 2)
    decays = torch.full((2,), 0.9, dtype=torch.float64)
    attached = LifRule(delayed=True, detach_reset=False)
    monkeypatch.setattr(cpu, "library", lambda: object())
    native.lif_scan(*inputs, decays, 0.8, LifRule())
    monkeypatch.setattr(cpu, "library", lambda: None)
    monkeypatch.setattr(lif_numba, "here", lambda: True)
    for decay, rule in ((0.9, LifRule()), (decays, LifRule()), (0.9, attached)):
        native.lif_scan(*inputs, decay, 0.8, rule)
    monkeypatch.setattr(lif_numba, "here", lambda: False)
    native.lif_scan(*inputs, 0.9, 0.8, LifRule())
    assert used == ["cpp", "numba", "torch", "torch", "torch"]


@pytest.mark.parametrize("ops", [native, portable], ids=["native", "portable"])
def test_what_does_not_fit_is_refused_with_what_to_do(ops):
    current, v0 = draw(4, 2, 3)
    shaped = r"got current \[4, 2, 3\] and v0"
    first_axis = r"got current \[2, 4, 3\] and v0 \[2, 3\], whose rows match the first axis"
    wrong: list[tuple[list, str]] = [
        ([current.transpose(0, 1), v0, 0.9, 1.0], first_axis + r".*\nThe current looks batch-first: transpose\(0, 1\)"),
        ([current, v0.repeat(3, 1), 0.9, 1.0], shaped + r" \[6, 3\], expected a state of batch 2.\nStart a state for"),
        ([current, v0[:, :2], 0.9, 1.0], shaped + r" \[2, 2\], expected \[T,B,N\] and \[B,N\].\nGive a membrane for"),
        ([current[:0], v0, 0.9, 1.0], r"shape \[0, 2, 3\], expected \[T,B,N\] with T >= 1.\nGive it at least one step"),
        ([current[0], v0, 0.9, 1.0], r"got current of shape \[2, 3\]"),
        ([current.float(), v0, 0.9, 1.0], r"torch.float32 and v0 torch.float64, expected one floating.*\nConvert them"),
        ([current, v0, torch.ones(2).double(), 1.0], r"got decay \[2\] of torch.float64, expected \[3\].*\nGive one n"),
        ([current, v0, 0.9, torch.ones(3)], r"got threshold \[3\] of torch.float32, expected \[3\] of torch.float64"),
    ]
    for inputs, text in wrong:
        with pytest.raises(BackendError, match=text) as error:
            ops.lif_scan(*inputs, LifRule())
        assert len(str(error.value).split("\n")) == 2


def test_the_law_can_fail(scan):
    """A wrong decay, and a gradient that does not flow through time, are caught."""
    inputs = draw(20, 2, 9)
    truth = everything(reference.lif_scan, inputs, 0.9, 0.8, LifRule())
    assert apart(everything(scan, inputs, 0.89, 0.8, LifRule()), truth) > 1e-3

    def cut(current: Tensor, v: Tensor, *constants) -> tuple[Tensor, Tensor]:
        early, v = scan(current[:9], v, *constants)
        late, v = scan(current[9:], v.detach(), *constants)
        return torch.cat([early, late]), v

    found = everything(cut, inputs, 0.9, 0.8, LifRule())
    assert torch.equal(found[0], truth[0]) and apart(found, truth) > 1e-3
