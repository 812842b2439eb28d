"""Law: every way to run the two time loops is the plainest loop: any length, layout and cut, values and gradients.

The C++ kernels round as the plainest loop does: their values are its values, bit for bit.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from backends import BackendError, LifRule, Surrogate, native, portable, reference
from backends.kernels import cpu
from neuro.config import CortexConfig
from neuro.layers.affine_recurrence import AffineRecurrence

ROOT = Path(__file__).resolve().parents[2]
LENGTHS = (2, 3, 4, 11, 12, 13, 26, 27, 47, 48, 49, 100, 129, 257)  # two-level chunks of 1, 2, 3, 4, 5, 6 and 9 tokens
WAYS = ("cpp", "two_level", "per_token")
BOUND = 1e-12


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The installed library; in a checkout where nobody built it, one made for these tests."""
    if cpu.library() is not None:
        return cpu.library()
    out = tmp_path_factory.mktemp("kernels")
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", out, "--build-temp", out / "objects"]
    done = subprocess.run([str(x) for x in command], cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)
    library, why = cpu._load(out / "backends" / "kernels")
    if library is None:
        pytest.skip(f"the C++ kernels cannot be built here: {done.stderr.strip()[-300:] or why}")
    return library


@pytest.fixture
def kernels(built, monkeypatch) -> None:
    monkeypatch.setattr(cpu, "library", lambda: built)


@pytest.fixture
def no_kernels(monkeypatch) -> None:
    monkeypatch.setattr(cpu, "library", lambda: None)


@pytest.fixture(params=WAYS)
def scan(request) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    if request.param == "cpp":
        request.getfixturevalue("kernels")
    return {
        "cpp": native.affine_scan,
        "two_level": portable.affine_scan,
        "per_token": native.per_token_affine_scan,
    }[request.param]


def draw(t: int, b: int, d: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a = torch.rand(t, b, d, dtype=dtype, generator=generator)
    return [a, *(torch.randn(shape, dtype=dtype, generator=generator) for shape in ((t, b, d), (b, d)))]


def values_and_gradients(scan, inputs: list[Tensor], seed: int = 1) -> list[Tensor]:
    """h, then the gradients of a random projection of it by every input."""
    h = scan(*inputs)
    weight = torch.randn(h.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return [h.detach(), *torch.autograd.grad((h * weight.to(h.dtype)).sum(), inputs)]


def leaves(inputs: list[Tensor], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [x.detach().to(dtype).clone().requires_grad_() for x in inputs]


def worst(found: list[Tensor], truth: list[Tensor]) -> float:
    """The largest difference, over the largest value of each tensor."""
    assert [x.shape for x in found] == [x.shape for x in truth]
    pairs = zip(found, truth, strict=True)
    return max(
        float(((x.double() - y.double()).abs() / (1 + y.abs().max())).nan_to_num(nan=9.0).max()) for x, y in pairs
    )


@pytest.mark.parametrize("t", LENGTHS)
def test_values_and_gradients_are_those_of_the_plainest_loop(t, scan, measured):
    inputs = draw(t, 3, 70)
    truth = values_and_gradients(reference.affine_scan, leaves(inputs))
    apart = worst(values_and_gradients(scan, leaves(inputs)), truth)
    measured("float64", apart)
    assert apart <= BOUND
    single = [x.float() for x in inputs]
    truth = values_and_gradients(reference.affine_scan, leaves(single))
    apart = worst(values_and_gradients(scan, leaves(single, torch.float32)), truth)
    measured("float32", apart)
    assert apart <= 1e-5


@pytest.mark.parametrize("t", [2, 7, 13, 29])
def test_gradients_are_those_of_finite_differences(t, scan):
    assert torch.autograd.gradcheck(scan, tuple(leaves(draw(t, 2, 3))))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("b", "d"), [(1, 1), (5, 1), (3, 70), (2, 129)])
def test_the_kernels_round_as_one_product_and_one_sum(b, d, dtype, kernels):
    inputs = draw(40, b, d, dtype)
    truth = reference.affine_scan(*inputs)
    assert torch.equal(native.affine_scan(*inputs), truth)
    state = inputs[2]
    for t in range(40):  # and a step is the same as its place in the scan
        state = native.affine_scan(inputs[0][t : t + 1], inputs[1][t : t + 1], state)[0]
        assert torch.equal(state, truth[t])


def test_a_span_may_be_cut_anywhere(scan):
    """The state is handed on through h0, and the gradients come back through it."""
    inputs = draw(50, 2, 9)
    truth = values_and_gradients(scan, leaves(inputs))

    def in_pieces(cuts: list[int]):
        def run(a: Tensor, b: Tensor, h: Tensor) -> Tensor:
            pieces = []
            for start, stop in zip([0, *cuts], [*cuts, 50], strict=True):
                pieces.append(scan(a[start:stop], b[start:stop], h))
                h = pieces[-1][-1]
            return torch.cat(pieces)

        return run

    for cuts in ([1], [49], [25], [13, 14, 37], list(range(1, 50))):
        assert worst(values_and_gradients(in_pieces(cuts), leaves(inputs)), truth) <= BOUND


def layouts(t: int, b: int, d: int) -> dict[str, list[Tensor]]:
    def make(views: Callable[[Tensor], Tensor], *shape: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(0)
        return [views(torch.rand(*shape, dtype=torch.float64, generator=generator)) for _ in range(2)]

    h0 = torch.rand(b, d, dtype=torch.float64)
    return {
        "batch first": [*make(lambda x: x.transpose(0, 1), b, t, d), h0],
        "channels first": [*make(lambda x: x.permute(2, 0, 1), b, d, t), h0],
        "every other channel": [*make(lambda x: x[..., ::2], t, b, 2 * d), h0],
        "one of three projections": [*make(lambda x: x.transpose(0, 1).chunk(3, -1)[1], b, t, 3 * d), h0],
        "one decay for all": [torch.tensor(0.7, dtype=torch.float64).expand(t, b, d), torch.rand(t, b, d).double(), h0],
        "a decay a channel": [torch.rand(d).double().expand(t, b, d), torch.rand(t, b, d).double(), h0],
        "one drive for all rows": [*make(lambda x: x.expand(t, b, d), t, 1, d), h0[:1].expand(b, d)],
        "a state of another layout": [*make(lambda x: x, t, b, d), torch.rand(d, b, dtype=torch.float64).T],
    }


@pytest.mark.parametrize("layout", layouts(2, 2, 2))
@pytest.mark.parametrize("shape", [(17, 3, 5), (9, 4, 70)], ids=str)
def test_tensors_may_lie_in_memory_as_they_like(layout, shape, scan):
    views = layouts(*shape)[layout]
    # Autograd by the views themselves: nothing is copied into another layout before the call.
    found = values_and_gradients(scan, [x.detach().requires_grad_() for x in views])
    truth = values_and_gradients(reference.affine_scan, leaves([x.contiguous() for x in views]))
    assert worst(found, truth) <= BOUND


def test_an_expanded_gradient_is_taken(scan):
    inputs = leaves(draw(14, 2, 5))
    found = torch.autograd.grad(scan(*inputs).sum(), inputs)
    truth = torch.autograd.grad(reference.affine_scan(*inputs).sum(), inputs)
    assert worst(list(found), list(truth)) <= BOUND


def test_the_kernels_give_back_the_layout_they_were_given(kernels):
    a, b, h0 = layouts(6, 3, 5)["batch first"]
    assert native.affine_scan(a, b, h0).transpose(0, 1).is_contiguous()
    assert native.affine_scan(a.contiguous(), b.contiguous(), h0).is_contiguous()


def test_a_decay_of_zero_forgets_and_of_one_adds_up(scan):
    a, b, h0 = draw(37, 2, 6)
    for decay, truth in ((0.0, b), (1.0, b.cumsum(0) + h0)):
        inputs = leaves([torch.full_like(a, decay), b, h0])
        h, *grads = values_and_gradients(scan, inputs)
        assert float((h - truth).abs().max()) <= BOUND
        assert worst(grads, values_and_gradients(reference.affine_scan, leaves(inputs))[1:]) <= BOUND
    assert not torch.equal(h[-1], b[-1])


@pytest.mark.parametrize("shape", [(5, 0, 3), (5, 2, 0)], ids=str)
def test_an_empty_batch_is_an_empty_answer(shape, scan):
    found = values_and_gradients(scan, leaves(draw(*shape)))
    assert [x.shape for x in found] == [shape, shape, shape, shape[1:]]


@pytest.mark.parametrize("ops", [native, portable], ids=["native", "portable"])
@pytest.mark.parametrize("t", [1, 6])
def test_what_does_not_fit_is_refused(t, ops):
    a, b, h0 = draw(t, 2, 3)
    wrong = {
        "expected one floating-point type": [(a, b.float(), h0), (a.bfloat16(), b, h0), (a, b, h0.float())],
        r"expected \[T,B,D\], \[T,B,D\] and \[B,D\]": [(a, b, h0[:1]), (a[:, :1], b, h0), (a, b[..., :2], h0)],
        "with T >= 1": [(a[:0], b[:0], h0), (a[0], b[0], h0)],
        "one floating-point": [(a.long(), b.long(), h0.long())],
    }
    for match, calls in wrong.items():
        for inputs in calls:
            with pytest.raises(BackendError, match=match) as error:
                ops.affine_scan(*inputs)
            assert len(str(error.value).split("\n")) == 2


def test_the_gradient_of_a_gradient_is_refused_and_not_wrong(scan):
    inputs = leaves(draw(5, 2, 3))
    first = torch.autograd.grad(scan(*inputs).square().sum(), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first[0].sum().backward()


def test_the_state_is_float32_under_autocast(scan):
    inputs = draw(13, 2, 8, torch.float32)
    truth = values_and_gradients(scan, leaves(inputs, torch.float32))
    with torch.autocast("cpu", torch.bfloat16):
        found = values_and_gradients(scan, leaves(inputs, torch.float32))
    assert all(x.dtype == torch.float32 for x in found)
    assert all(torch.equal(x, y) for x, y in zip(found, truth, strict=True))


@pytest.mark.parametrize("ops", [native, portable], ids=["native", "portable"])
def test_the_recurrent_layer_hands_float32_to_it_under_autocast(ops):
    layer = AffineRecurrence(8, 16, 0, CortexConfig(), ops.OPS)
    with torch.autocast("cpu", torch.bfloat16):
        before = layer.init_state(2, torch.device("cpu"))
        y, _, _, state = layer.scan(torch.randn(2, 5, 8), torch.ones(2, 5), before)
    assert y.dtype == torch.bfloat16 and state.h.dtype == torch.float32


@pytest.mark.parametrize("layout", ["time first", "batch first"])
def test_threads_change_nothing(layout, kernels):
    """Large enough that the kernels start them; 1,100 channels are no whole number of strips for 3 threads."""
    inputs = draw(800, 2, 550, torch.float32)
    if layout == "batch first":
        inputs = [*(x.transpose(0, 1).contiguous().transpose(0, 1) for x in inputs[:2]), inputs[2]]
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        fresh = [x.detach().requires_grad_() for x in inputs]
        spikes, v = native.lif_scan(fresh[1], fresh[2], 0.6, 1.0, LifRule())
        lif = torch.autograd.grad(spikes.sum() + v.sum(), fresh[1:])
        h = native.affine_scan(*fresh)
        found.append([spikes, v, *lif, h, *torch.autograd.grad(h.sum(), fresh)])
    assert all(torch.equal(x, y) for x, y in zip(*found, strict=True))
    assert torch.equal(found[0][4], reference.affine_scan(*inputs))


@pytest.mark.parametrize("b", [1, 3])
def test_rows_wider_than_what_is_carried_at_a_time(b, scan):
    inputs = draw(5, b, (1 << 14) + 65)
    truth = values_and_gradients(reference.affine_scan, leaves(inputs))
    assert worst(values_and_gradients(scan, leaves(inputs)), truth) <= BOUND


@pytest.mark.parametrize("shape", [(9, 2, 3), (9, 4, 700)], ids=["two levels", "a loop"])
def test_without_the_library_torch_operators_do_it(shape, no_kernels, monkeypatch):
    monkeypatch.setattr(cpu, "affine_scan", None)
    monkeypatch.setattr(cpu, "lif_scan", None)
    inputs = draw(*shape)
    truth = values_and_gradients(reference.affine_scan, leaves(inputs))
    assert worst(values_and_gradients(native.affine_scan, leaves(inputs)), truth) <= BOUND
    constants = (0.6, 1.0, LifRule())
    assert torch.equal(native.lif_scan(*inputs[1:], *constants)[0], reference.lif_scan(*inputs[1:], *constants)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(2, 1, 1), (7, 3, 5), (33, 2, 129)], ids=str)
def test_the_spiking_kernel_is_the_plainest_loop_bit_for_bit(shape, dtype, kernels):
    """Spikes and membranes, also where no gradient is asked for; gradients to rounding."""
    current, v0 = (x.to(dtype) for x in draw(*shape)[1:])
    transposed = current.transpose(0, 1).contiguous().transpose(0, 1)
    for decay, threshold, slope in ((0.6, 1.0, 4.0), (0.0, 0.3, 25.0), (0.9, 1.5, 1.0)):
        constants = (decay, threshold, LifRule(surrogate=Surrogate(slope=slope)))
        for x in (current, transposed):
            found, truth = [], []
            for ops, into in ((native, found), (reference, truth)):
                inputs = [y.detach().requires_grad_() for y in (x, v0)]
                spikes, v = ops.lif_scan(*inputs, *constants)
                weight = torch.randn(spikes.shape, dtype=dtype, generator=torch.Generator().manual_seed(2))
                into += [spikes, v, *torch.autograd.grad((spikes * weight).sum() + v.square().sum(), inputs)]
            assert torch.equal(found[0], truth[0]) and torch.equal(found[1], truth[1])
            assert worst(found[2:], truth[2:]) <= (BOUND if dtype == torch.float64 else 1e-5)
            with torch.no_grad():
                assert all(map(torch.equal, native.lif_scan(x, v0, *constants), truth[:2]))
    untouched = v0.clone()
    native.lif_scan(current, v0, 0.6, 1.0, LifRule())
    assert torch.equal(v0, untouched)


def test_one_membrane_for_all_rows_is_spread(kernels):
    current, v0 = draw(6, 4, 5)[1], torch.full((1, 5), 0.8, dtype=torch.float64, requires_grad=True)
    found, truth = (ops.lif_scan(current, v0, 0.6, 1.0, LifRule()) for ops in (native, reference))
    assert torch.equal(found[0], truth[0])
    (x,), (y,) = (torch.autograd.grad(out[1].sum() + out[0].sum(), v0) for out in (found, truth))
    assert x.shape == v0.shape and float((x - y).abs().max()) <= BOUND


def test_the_law_can_fail(kernels):
    """A state that is not carried, and a gradient that does not flow through it, are caught."""
    inputs = draw(9, 2, 3)
    truth = values_and_gradients(reference.affine_scan, leaves(inputs))
    forgetful = lambda a, b, h0: native.affine_scan(a, b, h0 * 0.99)  # noqa: E731
    assert worst(values_and_gradients(forgetful, leaves(inputs)), truth) > 1e-3

    def cut(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
        first = native.affine_scan(a[:4], b[:4], h0)
        return torch.cat([first, native.affine_scan(a[4:], b[4:], first[-1].detach())])

    found = values_and_gradients(cut, leaves(inputs))
    assert worst(found[:1], truth[:1]) <= BOUND < worst(found, truth)
