"""Law: products with spikes are those of float64 whatever the path, and neurons behind them fire as if nothing were fused.

``torch.empty`` is poisoned throughout: a buffer that is not written whole shows.
"""

from __future__ import annotations

import copy
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from backends import LifRule, Surrogate, devices, native, reference
from backends import spike_linear as operator
from backends.kernels import spikes as kernels
from backends.kernels.spikes import PackedWeight
from neuro.layers.spiking_linear import SpikingLinear
from neuro.neurons import LIF

BOUND = 1e-6  # of the largest value
SIZES = [(1, 1, 1), (3, 7, 5), (9, 64, 32), (10, 65, 33), (33, 200, 71)]  # M, K, N
DENSITIES = (0.0, 0.02, 0.3, 1.0)
KINDS = ("binary", "counts", "graded")
RULES = {
    "soft": LifRule(),
    "soft strict": LifRule(strict=True),
    "hard": LifRule("hard", v_reset=0.25),
    "hard strict": LifRule("hard", strict=True),
    "none": LifRule("none"),
    "none strict": LifRule("none", strict=True),
    "delayed": LifRule(delayed=True),
    "delayed strict": LifRule(delayed=True, strict=True),
    "delayed hard": LifRule("hard", delayed=True, v_reset=-0.25),
    "delayed hard strict": LifRule("hard", delayed=True, strict=True),
}
SNNTORCH = LifRule(delayed=True, strict=True, surrogate=Surrogate("fast_sigmoid", 25.0))

pytestmark = [
    pytest.mark.usefixtures("poisoned"),
    pytest.mark.skipif(kernels.library() is None, reason=f"no event-driven kernels: {kernels.status()[1]}"),
]


@pytest.fixture
def poisoned(monkeypatch) -> None:
    """torch.empty gives NaN (integers: their largest value)."""
    empty = torch.empty

    def fill(*args, **kwargs):
        out = empty(*args, **kwargs)
        return out.fill_(float("nan") if out.is_floating_point() else torch.iinfo(out.dtype).max)

    monkeypatch.setattr(torch, "empty", fill)
    assert torch.empty(3).isnan().all()


@pytest.fixture
def always(monkeypatch) -> None:
    """Events at every size and density."""
    monkeypatch.setattr(operator, "_limit", lambda rows, weight, packed: 1.0)


def spikes_of(kind: str, density: float, *shape: int) -> Tensor:
    fires = (torch.rand(shape) < density).float()
    if kind == "counts":
        return fires * torch.randint(1, 4, shape)
    return fires * torch.randn(shape) if kind == "graded" else fires


def events_of(x: Tensor) -> kernels.Events:
    events = kernels.find(x, 1.0)
    assert events is not None
    return events


def wrong(y: Tensor, exact: Tensor) -> float:
    y, exact = y.detach(), exact.detach()
    assert y.shape == exact.shape and not y.isnan().any()
    return float((y.double() - exact).abs().max() / exact.abs().max().clamp_min(1e-30))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize(("rows", "inputs", "outputs"), SIZES)
def test_products_and_gradients_are_those_of_float64(rows, inputs, outputs, density, kind):
    x, weight, bias = spikes_of(kind, density, rows, inputs), torch.randn(outputs, inputs), torch.randn(outputs)
    packed, events = PackedWeight(), events_of(x)
    y = kernels.product(events, packed.panels(weight), bias, outputs)
    assert wrong(y, F.linear(x.double(), weight.double(), bias.double())) < BOUND
    plain = kernels.product(events, packed.panels(weight), None, outputs)
    assert wrong(plain, F.linear(x.double(), weight.double())) < BOUND
    grad = torch.randn(rows, outputs)
    assert wrong(kernels.weight_grad(events, grad), grad.double().T @ x.double()) < BOUND


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "inputs", "outputs"), SIZES)
def test_whole_rows_and_panels_give_the_same_bits(rows, inputs, outputs, kind):
    x, weight, bias = spikes_of(kind, 0.3, rows, inputs), torch.randn(outputs, inputs), torch.randn(outputs)
    packed, events = PackedWeight(), events_of(x)
    for b in (bias, None):
        panels = kernels.product(events, packed.panels(weight), b, outputs)
        assert torch.equal(panels, kernels.few_products(events, packed.rows(weight), b))


def test_long_sums_stay_as_accurate():
    x, weight = (torch.rand(4, 4096) < 0.5).float(), torch.randn(40, 4096)
    y = kernels.product(events_of(x), PackedWeight().panels(weight), None, 40)
    assert wrong(y, F.linear(x.double(), weight.double())) < BOUND
    x, grad = (torch.rand(3000, 5) < 0.5).float(), torch.randn(3000, 40)  # three panels of rows
    assert wrong(kernels.weight_grad(events_of(x), grad), grad.double().T @ x.double()) < BOUND


def test_rows_without_a_spike_and_full_rows_stand_side_by_side():
    x, weight, bias = torch.zeros(12, 100), torch.randn(37, 100), torch.randn(37)
    x[1], x[4:6], x[11] = 1.0, 1.0, 1.0
    y = kernels.product(events_of(x), PackedWeight().panels(weight), bias, 37)
    assert torch.equal(y[0], bias) and torch.equal(y[10], bias)
    assert wrong(y, F.linear(x.double(), weight.double(), bias.double())) < BOUND


@pytest.mark.parametrize("outputs", [32, 260])  # one panel: threads share the rows; nine: they share the panels
def test_the_bits_do_not_depend_on_the_threads(outputs):
    x, weight, bias = (torch.rand(512, 256) < 0.5).float(), torch.randn(outputs, 256), torch.randn(outputs)
    grad, v0, found = torch.randn(512, outputs), torch.zeros(8, outputs), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        events, packed = events_of(x), PackedWeight()
        panels = packed.panels(weight)
        found.append(
            (
                kernels.product(events, panels, bias, outputs),
                kernels.few_products(events, packed.rows(weight), bias),
                kernels.weight_grad(events, grad),
                *kernels.lif(events, panels, bias, v0, 0.9, 1.0, LifRule()),
            )
        )
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_a_row_does_not_depend_on_the_rows_beside_it():
    x, weight = (torch.rand(40, 130) < 0.2).float(), torch.randn(50, 130)
    panels = PackedWeight().panels(weight)
    whole = kernels.product(events_of(x), panels, None, 50)
    parts = [kernels.product(events_of(part), panels, None, 50) for part in x.split([1, 2, 30, 7])]
    assert torch.equal(whole, torch.cat(parts))


@pytest.mark.parametrize("inputs", [1, 63, 64, 65, 300])
def test_a_list_names_what_is_not_zero(inputs):
    x = spikes_of("graded", 0.3, 7, inputs)
    x[2], x[3, 0], x[4, -1] = 0.0, -0.0, 0.5
    events = events_of(x)
    row, column = x.nonzero(as_tuple=True)
    assert torch.equal(events.columns.to(torch.int64) & 0xFFFF, column)
    assert torch.equal(events.offsets.diff(), (x != 0).sum(1))
    assert events.values is not None and torch.equal(events.values, x[row, column])
    assert events_of((x != 0).float()).values is None


def test_a_list_stops_at_its_limit():
    x = torch.zeros(10, 100)
    x[:, :30] = 1.0
    assert kernels.find(x, 0.29) is None
    assert kernels.find(x, 0.30) is not None


@pytest.mark.parametrize("kind", KINDS[:2])
def test_threads_make_the_same_list(kind):
    x, found = spikes_of(kind, 0.05, 2100, 1030), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(kernels.find(x, 0.06))
        assert kernels.find(x, 0.04) is None
    one, two = found
    assert torch.equal(one.columns, two.columns) and torch.equal(one.offsets, two.offsets)
    assert (one.values is None) == (two.values is None) == (kind == "binary")
    assert one.values is None or torch.equal(one.values, two.values)


def test_an_input_as_wide_as_a_column_can_name():
    x, weight = torch.zeros(1, 1 << 16), torch.randn(2, 1 << 16)
    x[0, -1] = x[0, 40_000] = 1.0
    y = kernels.few_products(events_of(x), PackedWeight().rows(weight), None)
    assert torch.equal(y[0], weight[:, 40_000] + weight[:, -1])
    assert not kernels.runs(torch.zeros(1, (1 << 16) + 1), torch.zeros(1, (1 << 16) + 1), None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("density", [0.05, 0.9])
@pytest.mark.usefixtures("always")
def test_the_operator_and_its_gradients_are_those_of_float64(density, kind):
    x = spikes_of(kind, density, 6, 5, 40).requires_grad_()
    weight, bias = torch.randn(23, 40, requires_grad=True), torch.randn(23, requires_grad=True)
    grad = torch.randn(6, 5, 23)
    y = operator.spike_linear(x, weight, bias)
    found = torch.autograd.grad(y, (x, weight, bias), grad)
    given = [t.detach().double().requires_grad_() for t in (x, weight, bias)]
    exact = F.linear(*given)
    assert wrong(y, exact) < BOUND
    for a, b in zip(found, torch.autograd.grad(exact, given, grad.double()), strict=True):
        assert wrong(a, b) < BOUND


@pytest.mark.parametrize("needed", [(0,), (1,), (2,), (0, 2), (1, 2)])
@pytest.mark.usefixtures("always")
def test_gradients_are_made_only_where_asked_for(needed):
    tensors = [(torch.rand(9, 40) < 0.1).float(), torch.randn(23, 40), torch.randn(23)]
    for i in needed:
        tensors[i].requires_grad_()
    operator.spike_linear(*tensors).sum().backward()
    assert [t.grad is not None for t in tensors] == [i in needed for i in range(3)]


@pytest.mark.parametrize("density", [0.05, 0.9])
@pytest.mark.parametrize("has", [True, False], ids=["in hardware", "not in hardware"])
def test_a_bfloat16_backward_leaves_the_forward_and_errs_little(density, has, monkeypatch):
    monkeypatch.setattr(devices, "cpu_has_bfloat16", lambda: has)
    x = (torch.rand(64, 256) < density).float().requires_grad_()
    weight, grad, found = torch.randn(128, 256, requires_grad=True), torch.randn(64, 128), {}
    for dtype in (None, torch.bfloat16):
        y = operator.spike_linear(x, weight, backward_dtype=dtype)
        found[dtype] = (y, *torch.autograd.grad(y, (x, weight), grad))
    (y, *exact), (y16, *rough) = found.values()
    assert torch.equal(y, y16)
    for a, b in zip(rough, exact, strict=True):
        assert a.dtype == torch.float32 and 0 <= float((a - b).norm() / b.norm()) < 5e-3
    assert torch.equal(rough[0], exact[0]) != has


def test_the_path_is_chosen_by_density_and_never_changes_the_result(monkeypatch):
    taken = []
    product, dense = kernels.product, native.linear
    monkeypatch.setattr(kernels, "product", lambda *args: taken.append("events") or product(*args))
    monkeypatch.setattr(native, "linear", lambda *args: taken.append("dense") or dense(*args))
    weight = torch.randn(512, 128)
    for density, path in ((0.02, "events"), (0.25, "events"), (0.4, "dense"), (0.9, "dense")):
        for rows in (400, 60):  # more and fewer than are sampled first
            x = torch.zeros(rows, 128)
            x[:, : round(density * 128)] = 1.0
            y = operator.spike_linear(x, weight, packed=PackedWeight())
            assert taken[-1] == path or (rows == 60 and density == 0.25), (density, rows)
            assert wrong(y, F.linear(x.double(), weight.double())) < BOUND


def test_the_limit_knows_what_a_call_costs_beside_its_sums():
    weight, kept = torch.randn(1024, 1024), PackedWeight()
    limits = [operator._limit(rows, weight, kept) for rows in (32, 64, 256, 4096)]
    assert 0 < limits[0] < limits[1] < limits[2] < limits[3] < operator._BREAK_EVEN
    assert operator._limit(256, weight, None) < operator._limit(256, weight, kept)
    assert operator._limit(40, weight, None) == 0 == operator._limit(4096, weight[:20], kept)
    assert operator._limit(1, weight, kept) == operator._BREAK_EVEN_OF_ONE
    assert operator._limit(8, weight, kept) == operator._BREAK_EVEN_OF_FEW
    weight.requires_grad_()  # packed anew in every training step
    assert operator._limit(256, weight, kept) == operator._limit(256, weight, None) and not operator._limit(
        8, weight, kept
    )


def test_small_products_wide_types_and_traces_are_dense(monkeypatch):
    monkeypatch.setattr(kernels, "find", lambda *args: pytest.fail("listed"))
    weight = torch.randn(64, 64)
    operator.spike_linear(torch.zeros(500, 64), weight)
    big = torch.zeros(600, 64)
    assert operator.spike_linear(big.double(), weight.double()).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert operator.spike_linear(big, weight).dtype == torch.bfloat16


@pytest.mark.usefixtures("always")
def test_bools_integers_and_any_strides_are_taken():
    fires, weight = torch.rand(5, 3, 40) < 0.2, torch.randn(40, 23).T
    expected = operator.spike_linear(fires.float(), weight.contiguous())
    for x in (fires, fires.to(torch.int32), fires.float().transpose(0, 1).contiguous().transpose(0, 1)):
        assert torch.equal(operator.spike_linear(x, weight), expected)
    every_other = torch.zeros(5, 3, 80)
    every_other[..., ::2] = fires.float()
    assert torch.equal(operator.spike_linear(every_other[..., ::2], weight), expected)
    assert operator.spike_linear(torch.zeros(0, 40), weight).shape == (0, 23)


@pytest.mark.usefixtures("always")
def test_a_weight_without_a_spike_is_not_read():
    x, weight = torch.zeros(2, 8), torch.randn(3, 8)
    x[:, 0], weight[:, 1] = 1.0, torch.inf
    assert torch.equal(operator.spike_linear(x, weight), weight[:, 0].expand(2, 3))


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("kind", KINDS[:2])
@pytest.mark.usefixtures("always")
def test_neurons_fire_as_if_nothing_were_fused(name, kind):
    rule, decay, threshold = RULES[name], 0.85, 0.7
    x, weight, bias = spikes_of(kind, 0.15, 20, 3, 70), 0.4 * torch.randn(45, 70), 0.1 * torch.randn(45)
    v0, packed = torch.randn(3, 45), PackedWeight()
    for b in (bias, None):
        fused, v = operator.spike_lif(x, weight, b, v0, decay, threshold, rule, packed=packed)
        current = operator.spike_linear(x, weight, b, packed)
        spikes, last = reference.lif_scan(current, v0, decay, threshold, rule)
        assert 0.02 < fused.mean() < 0.9
        assert torch.equal(fused, spikes)
        assert torch.allclose(v, last, rtol=0.0, atol=1e-6)


@pytest.mark.usefixtures("always")
def test_a_membrane_at_the_threshold_fires_unless_strict():
    x, weight = torch.ones(9, 2, 1), torch.ones(1, 1)
    for strict, fires in ((False, 1.0), (True, 0.0)):
        spikes, _ = operator.spike_lif(x, weight, None, torch.zeros(2, 1), 0.0, 1.0, LifRule("none", strict=strict))
        assert (spikes == fires).all()


@pytest.mark.usefixtures("always")
def test_what_the_sweep_does_not_do_goes_through_the_scan():
    x, weight = (torch.rand(12, 2, 70) < 0.2).float(), 0.4 * torch.randn(45, 70)
    v0, taken = torch.zeros(2, 45), []

    def scan(*given):
        taken.append(given)
        return reference.lif_scan(*given)

    plain = operator.spike_lif(x, weight, None, v0, 0.9, 1.0, LifRule(), scan)
    assert not taken
    learned = operator.spike_lif(x, weight, None, v0, torch.full((45,), 0.9), 1.0, LifRule(), scan)
    graph = operator.spike_lif(x, weight.clone().requires_grad_(), None, v0, 0.9, 1.0, LifRule(), scan)
    few = operator.spike_lif(x[:4], weight, None, v0, 0.9, 1.0, LifRule(), scan)
    assert len(taken) == 3 and graph[0].requires_grad
    for spikes in (learned[0], graph[0]):
        assert torch.equal(spikes, plain[0])
    assert torch.equal(few[0], plain[0][:4])


@pytest.mark.parametrize("grad", [False, True])
def test_a_layer_equals_snntorch_spike_for_spike(grad):
    snntorch = pytest.importorskip("snntorch", reason="snntorch is not installed")
    from snntorch import surrogate

    layer = SpikingLinear(128, LIF(256, beta=0.9, rule=SNNTORCH))
    with torch.no_grad():
        layer.weight.normal_(std=0.25)
    x = (torch.rand(30, 8, 128) < 0.05).float()
    with torch.set_grad_enabled(grad):
        spikes, _ = layer.scan(x, layer.init_state(8))
        neuron = snntorch.Leaky(beta=0.9, threshold=1.0, spike_grad=surrogate.fast_sigmoid(slope=25))
        mem, theirs = torch.zeros(8, 256), []
        for x_t in x.unbind(0):
            s, mem = neuron(F.linear(x_t, layer.weight, layer.bias), mem)
            theirs.append(s)
    theirs = torch.stack(theirs)
    assert 0.02 < spikes.mean() < 0.5
    assert torch.equal(spikes, theirs)
    if grad:
        weights = torch.randn_like(spikes)
        given = (layer.weight, layer.bias)
        ours = torch.autograd.grad(spikes, given, weights)
        for a, b in zip(ours, torch.autograd.grad(theirs, given, weights), strict=True):
            assert float((a - b).norm() / b.norm()) < 1e-4


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.usefixtures("always")
def test_a_scan_may_be_cut_anywhere(steps):
    layer = SpikingLinear(70, LIF(45, beta=0.9, threshold=0.5, rule=SNNTORCH))
    x = (torch.rand(12, 3, 70) < 0.3).float()
    start = layer.init_state(3)
    with torch.no_grad():
        whole, last = layer.scan(x, start)
        parts, state = [], start
        for part in x.split(steps):
            out, state = (
                layer.scan(part, state) if steps > 1 else (lambda o, s: (o[None], s))(*layer.step(part[0], state))
            )
            parts.append(out)
    assert whole.any() and torch.equal(torch.cat(parts), whole)
    assert torch.allclose(state.v, last.v, rtol=0.0, atol=1e-6)


@pytest.mark.usefixtures("always")
def test_a_call_with_gradients_forgets_what_was_packed():
    layer, x = SpikingLinear(40, LIF(33, beta=0.9)), torch.zeros(6, 3, 40)
    state = layer.init_state(3)
    with torch.no_grad():
        layer.scan(x, state)
    assert layer._packed.holds(layer.weight)
    layer.scan(x, state)
    assert not layer._packed.holds(layer.weight)
    layer.weight.requires_grad_(False)
    layer.scan(x, state)
    assert layer._packed.holds(layer.weight)


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "sgd foreach": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, foreach=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1),
    "adamw fused": lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.usefixtures("always")
def test_no_optimizer_leaves_a_stale_weight(name):
    layer = SpikingLinear(40, LIF(33, beta=0.9, threshold=0.5))
    x, state = (torch.rand(6, 3, 40) < 0.3).float(), layer.init_state(3)
    optimizer = OPTIMIZERS[name](layer.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        layer.scan(x, state)[0].sum().backward()
        with torch.no_grad():
            layer.scan(x, state)  # packs the weight before it changes
        optimizer.step()
        with torch.no_grad():
            found = layer.scan(x, state)[0]
            fresh = operator.spike_lif(x, layer.weight, layer.bias, state.v, 0.9, 0.5, LifRule())[0]
        assert torch.equal(found, fresh)


def same(packed: PackedWeight, weight: Tensor) -> bool:
    fresh = PackedWeight()
    panels, rows = packed.panels(weight), packed.rows(weight)
    return torch.equal(panels, fresh.panels(weight)) and torch.equal(rows, fresh.rows(weight))


def test_what_was_packed_follows_the_weight():
    weight, packed = torch.nn.Parameter(torch.randn(33, 40)), PackedWeight()
    panels = packed.panels(weight)
    assert packed.holds(weight) and packed.panels(weight) is panels
    with torch.no_grad():
        weight.copy_(torch.randn(33, 40))
    assert not packed.holds(weight) and same(packed, weight)
    weight.data = torch.randn(33, 40)
    assert not packed.holds(weight) and same(packed, weight)
    weight.data.add_(1.0)  # no version counts this one
    assert not packed.holds(weight) and same(packed, weight)
    for _ in range(5):  # an address that is used again
        del weight
        weight = torch.nn.Parameter(torch.randn(33, 40))
        assert not packed.holds(weight) and same(packed, weight)
    with torch.inference_mode():
        frozen = torch.randn(33, 40)
        assert same(packed, frozen)
        frozen.add_(1.0)
        assert same(packed, frozen)
    strided = torch.randn(40, 33).T
    assert same(packed, strided) and packed.holds(strided)


def test_nothing_packed_outlives_its_layer_or_enters_a_copy():
    layer = SpikingLinear(40, LIF(33, beta=0.9))
    panels = weakref.ref(layer._packed.panels(layer.weight))
    twin = copy.deepcopy(layer)
    assert twin._packed._panels is None and set(twin.state_dict()) == {"weight", "bias"}
    dead = weakref.ref(layer.weight)
    packed = layer._packed
    del layer
    assert dead() is None and panels() is not None  # the packed weight does not keep its weight
    del packed
    assert panels() is None


@pytest.mark.usefixtures("always")
def test_a_list_and_not_the_spikes_is_kept_for_the_backward_pass():
    x, weight = (torch.rand(50, 200) < 0.05).float(), torch.randn(30, 200, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        operator.spike_linear(x, weight)
    assert sum(t.untyped_storage().nbytes() for t in kept) < 0.15 * x.untyped_storage().nbytes()
