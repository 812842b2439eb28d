"""Law: every operator of every backend equals the plainest loops, values and gradients, at odd sizes, in float64.

``torch.empty`` is poisoned with NaN throughout: a buffer that is not written whole shows.
"""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from torch import Tensor

from backends import LifRule, Ops, Surrogate, native, portable, reference, surrogate
from backends.kernels.spikes import PackedWeight

BOUND = 1e-10
TABLES = {"native": native.OPS, "portable": portable.OPS}
SIZES = [(tokens, batch, width) for tokens, batch in itertools.product((1, 2, 7, 33), (1, 5)) for width in (1, 6)]
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]

pytestmark = pytest.mark.usefixtures("poisoned")


@pytest.fixture
def poisoned(monkeypatch) -> None:
    """torch.empty and torch.empty_like give NaN (integers: their largest value)."""

    def fill(function):
        def poisoned_function(*args, **kwargs):
            out = function(*args, **kwargs)
            return out.fill_(float("nan") if out.is_floating_point() else torch.iinfo(out.dtype).max)

        return poisoned_function

    for name in ("empty", "empty_like"):
        monkeypatch.setattr(torch, name, fill(getattr(torch, name)))
    assert torch.empty(3).isnan().all()


@pytest.fixture(params=list(TABLES))
def ops(request) -> Ops:
    return TABLES[request.param]


@pytest.fixture(params=DEVICES)
def device(request) -> str:
    return request.param


class Draw:
    """Random float64 tensors of a seed, on a device."""

    def __init__(self, device: str, seed: int = 0) -> None:
        self.device, self.generator = device, torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=self.generator).to(self.device)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, dtype=torch.float64, generator=self.generator).to(self.device)

    def integers(self, high: int, *shape: int) -> Tensor:
        return torch.randint(0, high, shape, generator=self.generator).to(self.device)

    def distinct(self, high: int, batch: int, count: int) -> Tensor:
        rows = [torch.randperm(high, generator=self.generator)[:count] for _ in range(batch)]
        return torch.stack(rows).to(self.device)


def gap(a: Tensor, b: Tensor) -> float:
    """The largest difference; infinite where one of them is not a number (``max`` would overlook it)."""
    return float((a - b).detach().abs().nan_to_num(nan=torch.inf).max())


def compare(name: str, ops: Ops, inputs: list, differentiable: list[int], exact: tuple[int, ...] = ()) -> float:
    """Run the operator and the reference; values and gradients of a random projection of every output must agree."""
    results = []
    for table in (ops, reference.OPS):
        fresh = [x.detach().clone().requires_grad_(i in differentiable) if isinstance(x, Tensor) and x.is_floating_point()
                 else x for i, x in enumerate(inputs)]  # fmt: skip
        outputs = getattr(table, name)(*fresh)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        grads = []
        for chosen in [(o,) for o in outputs] + [outputs]:  # each output alone, then together
            draw, total = Draw(str(outputs[0].device), 1), 0.0
            for output in chosen:
                total = total + (output * draw.normal(*output.shape)).sum()
            leaves = [fresh[i] for i in differentiable]
            found = torch.autograd.grad(total, leaves, retain_graph=True, allow_unused=True)
            grads += [torch.zeros_like(x) if g is None else g for g, x in zip(found, leaves, strict=True)]
        results.append((outputs, grads))
    (mine, my_grads), (truth, true_grads) = results
    worst = 0.0
    for i, (a, b) in enumerate(zip(mine, truth, strict=True)):
        assert a.shape == b.shape and a.dtype == b.dtype
        assert i not in exact or torch.equal(a, b)
        worst = max(worst, gap(a, b))
    return max(worst, *(gap(a, b) for a, b in zip(my_grads, true_grads, strict=True)))


@pytest.mark.parametrize(("t", "b", "d"), SIZES)
def test_affine_scan(t, b, d, ops, device, measured):
    draw = Draw(device)
    inputs = [draw.uniform(t, b, d), draw.normal(t, b, d), draw.normal(b, d)]
    worst = compare("affine_scan", ops, inputs, [0, 1, 2])
    measured("max_difference", worst)
    assert worst <= BOUND


def test_affine_scan_takes_expanded_transposed_and_frozen_inputs(ops, device):
    """As the regions call it: time is a transposed axis, a decay is one number, a state needs no gradient."""
    draw = Draw(device)
    b, h0 = draw.normal(5, 9, 4).transpose(0, 1).requires_grad_(), draw.normal(5, 4)
    a = torch.tensor(0.7, dtype=torch.float64, device=device).expand(9, 5, 4)
    found = []
    for table in (ops, reference.OPS):
        h = table.affine_scan(a, b, h0)
        found.append((h, *torch.autograd.grad(h.sum(), [b])))  # an expanded gradient
    for x, y in zip(*found, strict=True):
        assert gap(x, y) <= BOUND


def test_affine_scan_of_a_long_span_neither_overflows_nor_vanishes(ops, device):
    """Products of 4,096 decays underflow; the state must not."""
    draw = Draw(device)
    inputs = [draw.uniform(4096, 1, 3) * 0.9, draw.normal(4096, 1, 3), draw.normal(1, 3)]
    out, truth = ops.affine_scan(*inputs), reference.affine_scan(*inputs)
    assert gap(out, truth) <= BOUND
    assert float(out[-1].abs().max()) > 1e-3


@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("shape", [(1, 1, 600, 2100), (3, 150, 64, 96)], ids=str)
def test_spike_linear(density, shape, ops, device, measured):
    """In float64, and in float32, where the native operator lists the spikes: one row and many."""
    draw, (*rows, outputs, width) = Draw(device), shape
    for dtype, bound in ((torch.float64, BOUND), (torch.float32, 1e-3)):
        spikes = (draw.uniform(*rows, width) < density).to(dtype)
        inputs = [spikes, draw.normal(outputs, width).to(dtype), PackedWeight()]
        worst = compare("spike_linear", ops, inputs, [0, 1])
        with torch.no_grad():
            worst = max(worst, gap(ops.spike_linear(*inputs), reference.spike_linear(*inputs)))
        measured(f"max_difference_{dtype}", worst)
        assert worst <= bound


@pytest.mark.parametrize(("t", "b", "d"), SIZES)
@pytest.mark.parametrize(("decay", "threshold", "slope"), [(0.6, 1.0, 4.0), (0.0, 0.3, 25.0), (1.0, 2.0, 1.0)], ids=str)
def test_lif_scan(t, b, d, decay, threshold, slope, ops, device, measured):
    draw = Draw(device, seed=t)
    inputs = [draw.normal(t, b, d), draw.normal(b, d), decay, threshold, LifRule(surrogate=Surrogate(slope=slope))]
    worst = compare("lif_scan", ops, inputs, [0, 1], exact=(0,))
    measured("max_difference", worst)
    assert worst <= BOUND
    spikes, _ = ops.lif_scan(*inputs)
    assert set(spikes.unique().tolist()) <= {0.0, 1.0}


RULES = [
    LifRule(reset, delayed, strict, 0.25 if reset == "hard" else 0.0, detach, Surrogate(kind, 2.0))
    for reset, delayed in (("soft", False), ("soft", True), ("hard", False), ("hard", True), ("none", False))
    for strict, detach, kind in itertools.product((False, True), (False, True), surrogate.KINDS)
]


@pytest.mark.parametrize(
    "rule", RULES, ids=lambda r: f"{r.reset}-{r.delayed}-{r.strict}-{r.detach_reset}-{r.surrogate.kind}"
)
@pytest.mark.parametrize("learned", [False, True])
def test_lif_scan_under_every_rule(rule, learned, ops, device, measured):
    """Resets, thresholds and surrogates; decays and thresholds that are numbers or learn, a neuron each."""
    draw = Draw(device, seed=5)
    constants = [draw.uniform(7), draw.uniform(7) + 0.5] if learned else [0.8, 0.75]
    inputs = [draw.normal(19, 3, 7), draw.normal(3, 7), *constants, rule]
    worst = compare("lif_scan", ops, inputs, [0, 1, 2, 3] if learned else [0, 1], exact=(0,))
    measured("max_difference", worst)
    assert worst <= BOUND
    assert 0 < float(ops.lif_scan(*inputs)[0].mean()) < 1


def test_lif_scan_fires_at_exactly_the_threshold_and_keeps_the_rest(ops):
    current = torch.tensor([[1.0], [0.5], [2.25], [0.0]], dtype=torch.float64).unsqueeze(1)
    spikes, v = ops.lif_scan(current, torch.zeros(1, 1, dtype=torch.float64), 0.5, 1.0, LifRule())
    # u_1 = 1 -> v 0;  u_2 = 0.5;  u_3 = 0.25 + 2.25 = 2.5 -> v 1.5;  u_4 = 0.75: no spike
    assert spikes.flatten().tolist() == [1.0, 0.0, 1.0, 0.0]
    assert v.item() == 0.75


@pytest.mark.parametrize("t", [2, 33])
def test_lif_scan_in_float32_fires_identically(t, ops, device, measured):
    """Millions of float32 updates of equal input: what differs lies within rounding of the threshold."""
    draw = Draw(device, seed=3)
    current, v0 = draw.normal(t, 40, 1000).float(), draw.normal(40, 1000).float()
    spikes, v = ops.lif_scan(current, v0, 0.6, 1.0, LifRule())
    wrong = 0
    for step in range(t):  # forced: every step of the truth starts from the membrane of the operator under test
        before = v0 if step == 0 else ops.lif_scan(current[:step], v0, 0.6, 1.0, LifRule())[1]
        truth, _ = reference.lif_scan(current[step : step + 1], before, 0.6, 1.0, LifRule())
        differ = truth[0] != spikes[step]
        wrong += int(differ.sum())
        u = 0.6 * before.double() + current[step].double()
        assert not differ.any() or float((u - 1.0).abs()[differ].max()) <= 1e-5
    measured("spikes_that_differ", wrong)
    assert wrong <= t * 40_000 / 100_000 + 1
    assert v.dtype == spikes.dtype == torch.float32


@pytest.mark.parametrize(("t", "b", "d"), SIZES)
def test_attention(t, b, d, ops, device, measured):
    draw, heads, window = Draw(device), 3, 4
    q, k, v = (draw.normal(b, heads, n, d) for n in (t, t + window, t + window))
    bias = draw.normal(b, heads, t, t + window)
    hidden = draw.uniform(b, heads, t, t + window) < 0.5
    hidden[..., 0] = False
    bias = torch.where(hidden, torch.full_like(bias, -torch.inf), bias)
    for chosen in (bias, bias[:1, :1]):  # broadcast over batch and heads
        worst = compare("attention", ops, [q, k, v, chosen], [0, 1, 2])
        measured("max_difference", worst)
        assert worst <= BOUND


def test_attention_does_not_see_what_is_hidden(ops, device):
    draw = Draw(device)
    q, k, v = (draw.normal(2, 1, 5, 4) for _ in range(3))
    bias = torch.full((5, 5), -torch.inf, dtype=torch.float64, device=device).triu(1)
    other_k, other_v = k.clone(), v.clone()
    other_k[:, :, 3:], other_v[:, :, 3:] = 1e3, -1e3
    a, b = ops.attention(q, k, v, bias), ops.attention(q, other_k, other_v, bias)
    assert torch.equal(a[:, :, :3], b[:, :, :3])
    assert not torch.equal(a[:, :, 3:], b[:, :, 3:])


@pytest.mark.parametrize(("t", "b", "d"), SIZES)
def test_embed_sums_the_gradient_of_repeated_ids(t, b, d, ops, device, measured):
    draw = Draw(device)
    worst = compare("embed", ops, [draw.integers(3, b, t), draw.normal(7, d)], [1])
    measured("max_difference", worst)
    assert worst <= BOUND


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("t", "b", "d"), [*SIZES, (1, 1, 64), (1, 1, 200)])
def test_linear(t, b, d, bias, ops, device, measured):
    """With and without a graph: a single row without one is the C++ library's where that was built."""
    draw = Draw(device)
    inputs = [draw.normal(b, t, d), draw.normal(5, d), draw.normal(5) if bias else None]
    worst = compare("linear", ops, inputs, [0, 1, 2][: 2 + bias])
    with torch.no_grad():
        found = ops.linear(*inputs)
    assert found.shape == (b, t, 5) and found.dtype == torch.float64
    worst = max(worst, gap(found, reference.linear(*inputs)))
    measured("max_difference", worst)
    assert worst <= BOUND


@pytest.mark.parametrize(("t", "b", "d"), SIZES)
def test_take_rows(t, b, d, ops, device, measured):
    draw = Draw(device)
    worst = compare("take_rows", ops, [draw.normal(b, 9, d), draw.integers(9, b, t)], [0], exact=(0,))
    measured("max_difference", worst)
    assert worst <= BOUND


@pytest.mark.parametrize(("t", "b", "d"), SIZES)
def test_write_rows(t, b, d, ops, device, measured):
    draw, slots = Draw(device), 35
    inputs = [draw.normal(b, slots, d), draw.distinct(slots, b, t), draw.normal(b, t, d), draw.uniform(b, t) < 0.6]
    worst = compare("write_rows", ops, inputs, [0, 2], exact=(0,))
    measured("max_difference", worst)
    assert worst <= BOUND


@pytest.mark.parametrize(("t", "b", "d"), SIZES)
def test_tally(t, b, d, ops, device, measured):
    draw = Draw(device)
    worst = compare("tally", ops, [draw.normal(b, t, 9), draw.integers(d, b, 9).double(), d], [0])
    measured("max_difference", worst)
    assert worst <= BOUND


@pytest.mark.parametrize("rows", [1, 511, 512, 513, 1030])
def test_weighted_rows(rows, ops, device, measured):
    draw = Draw(device)
    worst = compare("weighted_rows", ops, [draw.normal(2, 3, rows), draw.normal(rows, 5)], [0, 1])
    measured("max_difference", worst)
    assert worst <= BOUND


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_native_weighted_rows_round_little_over_a_vocabulary(batch, device, measured):
    """float32, shares and rows as a language model has them: what is always a little wrong, a precision multiplies."""
    draw = Draw(device)
    shares = torch.softmax(3 * draw.normal(batch, 1, 8192), -1).float()
    weight = ((draw.normal(8192, 256) + 0.5) / 16).float()
    truth = shares.double() @ weight.double()
    worst = gap(native.OPS.weighted_rows(shares, weight).double(), truth) / float(truth.abs().max())
    measured("max_relative", worst)
    assert worst <= 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_write_rows_leaves_other_slots_bit_identical(dtype, ops, device):
    """Also NaN, infinity, subnormals and minus zero; the memory handed in is not touched."""
    draw = Draw(device)
    odd = torch.tensor([float("nan"), -0.0, float("inf"), 1e-42, -float("inf"), 1 / 3], dtype=dtype, device=device)
    memory = odd.expand(3, 8, 6).contiguous()
    before = memory.clone()
    index, keep = draw.distinct(8, 3, 4), torch.tensor([[True, False, True, False]] * 3, device=device)
    rows = draw.normal(3, 4, 6).to(dtype)
    out = ops.write_rows(memory, index, rows, keep)
    bits = torch.int32 if dtype == torch.float32 else torch.int64
    assert torch.equal(memory.view(bits), before.view(bits))
    for b in range(3):
        written = set(index[b, keep[b]].tolist())
        for slot in range(8):
            if slot in written:
                assert torch.equal(out[b, slot], rows[b, index[b].tolist().index(slot)])
            else:
                assert torch.equal(out[b, slot].view(bits), before[b, slot].view(bits))


def test_write_rows_ignores_what_is_not_kept(ops, device):
    """A row that is not kept may hold anything."""
    draw = Draw(device)
    memory, rows = draw.normal(1, 5, 2), draw.normal(1, 3, 2)
    rows[0, 1] = float("nan")
    index, keep = torch.tensor([[4, 0, 2]], device=device), torch.tensor([[True, False, True]], device=device)
    out = ops.write_rows(memory, index, rows, keep)
    assert not out.isnan().any()
    assert torch.equal(out, reference.write_rows(memory, index, rows, keep))


def test_gradcheck_where_smooth(ops, device):
    """Against finite differences, so that an error shared with the reference shows."""
    draw = Draw(device)

    def leaf(*shape: int) -> Tensor:
        return draw.normal(*shape).requires_grad_()

    check = torch.autograd.gradcheck
    for t in (1, 2, 5):
        a = draw.uniform(t, 2, 3).requires_grad_()
        assert check(ops.affine_scan, (a, leaf(t, 2, 3), leaf(2, 3)))
        bias = torch.full((t, t), -torch.inf, dtype=torch.float64, device=device).triu(1)
        assert check(lambda q, k, v, bias=bias: ops.attention(q, k, v, bias), tuple(leaf(1, 2, t, 3) for _ in range(3)))
        assert check(ops.linear, (leaf(1, t, 3), leaf(4, 3), leaf(4)))
        ids = draw.integers(4, 2, t)
        assert check(lambda w, ids=ids: ops.embed(ids, w), (leaf(4, 3),))
        index, keep = draw.distinct(6, 2, t), draw.uniform(2, t) < 0.5
        assert check(lambda x, index=index: ops.take_rows(x, index), (leaf(2, 6, 3),))
        write = lambda m, r, index=index, keep=keep: ops.write_rows(m, index, r, keep)  # noqa: E731
        assert check(write, (leaf(2, 6, 3), leaf(2, t, 3)))
        ids = draw.integers(4, 2, 6).double()
        assert check(lambda x, ids=ids: ops.tally(x, ids, 4), (leaf(2, t, 6),))
        assert check(ops.weighted_rows, (leaf(2, t, 6), leaf(6, 3)))


@pytest.mark.parametrize("table", ["native", "portable"])
def test_a_whole_brain_gives_the_reference_logits_and_gradients(toggles, table, tiny_brain, tokens, measured):
    ids, found = tokens(2, 44), []
    for ops in (TABLES[table], reference.OPS):
        brain = tiny_brain(toggles, ops=ops, dtype=torch.float64)
        state, logits, loss = brain.init_state(2), [], 0.0
        for span in ids.split(16, 1):
            out = brain.scan(span, state)
            logits.append(out.logits)
            loss = loss + out.aux.surprise.sum() + 100 * (out.aux.layer_rates.sum() + out.aux.route.sum())
            state = brain.commit(out.state)[0]
        loss.backward()
        grads = {name: p.grad for name, p in brain.named_parameters() if p.grad is not None}
        found.append((torch.cat(logits, 1).detach(), grads))
    (a, mine), (b, truth) = found
    assert mine.keys() == truth.keys()
    worst = max(gap(mine[name], truth[name]) / (1 + float(truth[name].abs().max())) for name in truth)
    measured("max_gradient_difference", worst)
    assert gap(a, b) <= 1e-9
    assert worst <= 1e-9


def test_tables_have_the_same_operators_and_are_frozen():
    names = [field.name for field in dataclasses.fields(Ops)]
    for table in (*TABLES.values(), reference.OPS):
        assert all(callable(getattr(table, name)) for name in names if name not in ("name", "scatter_free"))
        with pytest.raises(dataclasses.FrozenInstanceError):
            table.embed = None
    assert len({table.name for table in (*TABLES.values(), reference.OPS)}) == 3


def test_the_law_can_fail(device):
    """A scan that leaves its last row unwritten, and a backward pass that forgets the membrane, are caught."""

    def unwritten(a, b, h0):
        h = torch.empty_like(b)
        h[:-1] = reference.affine_scan(a[:-1], b[:-1], h0)
        return h

    draw = Draw(device)
    inputs = [draw.uniform(4, 2, 3), draw.normal(4, 2, 3), draw.normal(2, 3)]
    assert compare("affine_scan", dataclasses.replace(native.OPS, affine_scan=unwritten), inputs, [0, 1, 2]) > BOUND

    def forgetful(current, v0, decay, threshold, rule):
        spikes, v = reference.lif_scan(current, v0, decay, threshold, rule)
        return spikes.detach() + (current - current.detach()) * 0.1, v

    wrong = dataclasses.replace(native.OPS, lif_scan=forgetful)
    assert compare("lif_scan", wrong, [draw.normal(4, 2, 3), draw.normal(2, 3), 0.6, 1.0, LifRule()], [0, 1]) > BOUND
