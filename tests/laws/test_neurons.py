"""Law: every neuron is its equations, in values and gradients, however a run is cut, and leaves nothing behind.

The equations are written here once more, as plain float64 loops. The three forms of the law of spiking:

1. float64, free-running: the same spikes, the state within 1e-9;
2. float32, teacher-forced (every update starts from the float64 state): a spike differs only where the membrane is within
   rounding of the threshold, never in more than 1 of 10^5 updates; up to 2,048 updates are placed within 1e-3 of it;
3. float32, free-running: how far it diverges is measured.
"""

from __future__ import annotations

import dataclasses
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from backends import LifRule, Surrogate, native, portable, reference
from backends.guard import ScatterFreeGuard
from neuro.neurons import (
    ALIF,
    GIF,
    IF,
    LIF,
    PLIF,
    AdEx,
    Izhikevich,
    Neuron,
    Parallel,
    SlidingParallel,
    Synaptic,
    adaptive,
    adex,
    gif,
    izhikevich,
    parallel,
)

T, B, N = 120, 8, 64
LATE = {"soft": LifRule("soft", delayed=True, strict=True), "hard": LifRule("hard", delayed=True, v_reset=-0.3)}
TAUS = torch.linspace(5.0, 40.0, N)


def integral(x: Tensor, surrogate: Surrogate) -> Tensor:
    """The function whose derivative a surrogate is."""
    k = surrogate.slope
    if surrogate.kind == "fast_sigmoid":
        return x / (1 + k * x.abs())
    assert surrogate.kind == "arctan"
    return torch.atan(torch.pi / 2 * k * x) / torch.pi


def fire(x: Tensor, surrogate: Surrogate, strict: bool = False) -> Tensor:
    """A step whose gradient is that of the integral, by torch's own rules."""
    soft = integral(x, surrogate)
    return (x > 0 if strict else x >= 0).to(x.dtype) + (soft - soft.detach())


# What follows is one step of each model: (x, state, neuron) -> (spikes, distance from the threshold, state).


def cut(s: Tensor, detach: bool) -> Tensor:
    return s.detach() if detach else s


def membrane(u: Tensor, v: Tensor, m: Any, raised: float | Tensor = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    rule = m.rule
    if rule.delayed:
        r = cut(fire(v - m.threshold, rule.surrogate, rule.strict), rule.detach_reset)
        v = u - m.threshold * r if rule.reset == "soft" else u * (1 - r) + rule.v_reset * r
        return fire(v - m.threshold, rule.surrogate, rule.strict), v - m.threshold, v
    s = fire(u - m.threshold - raised, rule.surrogate, rule.strict)
    r = cut(s, rule.detach_reset)
    v = {"soft": u - m.threshold * r, "hard": u * (1 - r) + rule.v_reset * r, "none": u}[rule.reset]
    return s, u - m.threshold - raised, v


def if_step(x, state, m):
    s, margin, v = membrane(state[0] + x, state[0], m)
    return s, margin, (v,)


def lif_step(x, state, m):
    x = x * (1 - m.decay) if m.decay_input else x
    s, margin, v = membrane(m.decay * state[0] + x, state[0], m)
    return s, margin, (v,)


def synaptic_step(x, state, m):
    i = m.alpha * state[0] + x
    s, margin, v = membrane(m.decay * state[1] + (i * (1 - m.decay) if m.decay_input else i), state[1], m)
    return s, margin, (i, v)


def alif_step(x, state, m):
    s, margin, v = membrane(m.decay * state[0] + x, state[0], m, m.strength * state[1])
    return s, margin, (v, m.rho * state[1] + s)


def gif_step(x, state, m):
    u = m.decay * state[0] + x
    s = sum(fire(u - k * m.threshold, m.rule.surrogate, m.rule.strict) for k in range(1, m.levels + 1))
    return s, u - m.threshold, (u - m.threshold * cut(s, m.rule.detach_reset),)


def izhikevich_step(x, state, m):
    v, w = state
    u = v + m.dt_ms * (0.04 * v**2 + 5 * v + 140 - w + x)
    w = w + m.dt_ms * m.a * (m.b * v - w)
    s = fire(u - 30, m.surrogate)
    r = cut(s, m.detach_reset)
    return s, u - 30, (u * (1 - r) + m.c * r, w + m.d * r)


def adex_step(x, state, m):
    (v, w), k = state, m.constants
    rise = k.leak_ns * k.slope_mv * ((v - k.threshold_mv) / k.slope_mv).exp()
    u = v + m.dt_ms * (-k.leak_ns * (v - k.rest_mv) + rise - w + x) / k.capacitance_pf
    w = w + m.dt_ms * (k.coupling_ns * (v - k.rest_mv) - w) / k.tau_w_ms
    s = fire(u - k.peak_mv, m.surrogate)
    r = cut(s, m.detach_reset)
    return s, u - k.peak_mv, (u * (1 - r) + k.reset_mv * r, w + k.jump_pa * r)


def parallel_step(x, state, m):
    h = m.decay * state[0] + x
    return fire(h - m.threshold, m.surrogate), h - m.threshold, (h,)


def sliding_step(x, state, m):
    recent = torch.cat([state[0], x.unsqueeze(-1)], -1)
    h = (recent * m.weights.flip(1)).sum(-1)
    return fire(h - m.threshold, m.surrogate), h - m.threshold, (recent[..., 1:],)


@dataclasses.dataclass(frozen=True)
class Model:
    make: Callable[..., Neuron]  # (neurons) -> the module
    step: Callable[..., Any]
    scale: float
    offset: float
    unit: float = 1.0  # the size of the threshold


MODELS = {
    "IF": Model(IF, if_step, 0.3, 0.05),
    "IF hard, one step late": Model(lambda n: IF(n, rule=LATE["hard"]), if_step, 0.3, 0.05),
    "LIF": Model(lambda n: LIF(n, 20.0), lif_step, 0.4, 0.03),
    "LIF hard": Model(lambda n: LIF(n, 20.0, rule=LifRule("hard", v_reset=0.2)), lif_step, 0.4, 0.03),
    "LIF without reset": Model(lambda n: LIF(n, 5.0, rule=LifRule("none")), lif_step, 0.4, 0.03),
    "LIF soft, one step late": Model(lambda n: LIF(n, beta=0.9, rule=LATE["soft"]), lif_step, 0.4, 0.03),
    "LIF of many constants": Model(
        lambda n: LIF(n, TAUS[:n], threshold=1 + TAUS[:n] / 100, rule=LATE["hard"], decay_input=True),
        lif_step,
        6.0,
        0.5,
    ),
    "PLIF": Model(lambda n: PLIF(n, 20.0, learn_threshold=True), lif_step, 0.4, 0.03),
    "Synaptic": Model(lambda n: Synaptic(n, 5.0, 20.0), synaptic_step, 0.12, 0.01),
    "Synaptic hard": Model(
        lambda n: Synaptic(n, 5.0, TAUS[:n], rule=LifRule("hard"), decay_input=True), synaptic_step, 1.5, 0.1
    ),
    "ALIF": Model(lambda n: ALIF(n, 20.0, 100.0), alif_step, 0.5, 0.05),
    "GIF": Model(lambda n: GIF(n, 10.0, levels=3), gif_step, 0.6, 0.0),
    "Izhikevich": Model(Izhikevich, izhikevich_step, 8.0, 25.0, 30.0),
    "AdEx": Model(lambda n: AdEx(n, dt_ms=0.25), adex_step, 400.0, 1500.0, 40.0),
    "Parallel": Model(lambda n: Parallel(n, 5.0), parallel_step, 0.4, 0.05),
    "SlidingParallel": Model(SlidingParallel, sliding_step, 0.6, 0.0),
}


@pytest.fixture(params=MODELS)
def model(request) -> Model:
    return MODELS[request.param]


def stimulus(model: Model, steps: int = T, batch: int = B, neurons: int = N, seed: int = 0) -> Tensor:
    drawn = torch.randn(steps, batch, neurons, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn * model.scale + model.offset


def by_hand(model: Model, neuron: Neuron, x: Tensor) -> tuple[Tensor, Tensor, list[tuple[Tensor, ...]]]:
    """(spikes, margins, the state before every step and after the last)."""
    state = tuple(neuron.init_state(x.shape[1], dtype=x.dtype))
    states, spikes, margins = [state], [], []
    for x_t in x.unbind(0):
        s, margin, state = model.step(x_t, state, neuron)
        spikes.append(s)
        margins.append(margin)
        states.append(state)
    return torch.stack(spikes), torch.stack(margins), states


def gap(a: Tensor, b: Tensor) -> float:
    worst = (a.detach().double() - b.detach().double()).abs().nan_to_num(nan=torch.inf)
    return float(worst.max()) if worst.numel() else 0.0


def test_float64_is_the_equations(model):
    neuron, x = model.make(N).double(), stimulus(model)
    spikes, state = neuron.scan(x, neuron.init_state(B, dtype=torch.float64))
    expected, _, states = by_hand(model, neuron, x)
    assert torch.equal(spikes, expected)
    assert 0.02 <= float((spikes > 0).double().mean()) <= 0.2
    assert max(gap(a, b) for a, b in zip(state, states[-1], strict=True)) <= 1e-9 * model.unit


@pytest.mark.parametrize("cuts", [(1, 119), (60, 60), (7, 50, 63), (1,) * 120])
def test_a_run_may_be_cut_anywhere(model, cuts):
    neuron, x = model.make(N).double(), stimulus(model)
    start = neuron.init_state(B, dtype=torch.float64)
    whole, end = neuron.scan(x, start)
    state, pieces = start, []
    for part in x.split(cuts):
        s, state = neuron.scan(part, state)
        pieces.append(s)
    assert torch.equal(torch.cat(pieces), whole)
    assert max(gap(a, b) for a, b in zip(state, end, strict=True)) <= 1e-12 * model.unit


def test_scan_is_a_fold_of_step(model):
    neuron, x = model.make(N).double(), stimulus(model)
    state = start = neuron.init_state(B, dtype=torch.float64)
    spikes = []
    for x_t in x.unbind(0):
        s, state = neuron.step(x_t, state)
        spikes.append(s)
    whole, end = neuron.scan(x, start)
    assert torch.equal(torch.stack(spikes), whole)
    assert max(gap(a, b) for a, b in zip(state, end, strict=True)) <= 1e-12 * model.unit


def test_float32_teacher_forced_differs_only_within_rounding(model, measured):
    exact, x = model.make(N).double(), stimulus(model)
    with torch.no_grad():
        spikes, margins, states = by_hand(model, exact, x)
        rows = [torch.cat(field) for field in zip(*states[:-1], strict=True)]
        spikes, margins, x = spikes.flatten(0, 1), margins.flatten(0, 1), x.flatten(0, 1)
        # 32 rows again, with a current that puts every membrane at a chosen distance: it is linear in the current, but for
        # one that a delayed reset holds.
        state = tuple(row[:32] for row in rows)
        away = torch.linspace(-1e-3, 1e-3, 32 * N, dtype=torch.float64).reshape(32, N) * model.unit
        gain = model.step(x[:32] + 1.0, state, exact)[1] - margins[:32]
        free = gain > 1e-6
        near_x = torch.where(free, x[:32] + (away - margins[:32]) / gain, x[:32])
        near_spikes, near_margins, _ = model.step(near_x, state, exact)
        assert int(free.sum()) >= 1000 and float(near_margins[free].abs().max()) <= 1.001e-3 * model.unit
        neuron = model.make(N).float()

        def float32(current: Tensor, *fields: Tensor) -> Tensor:
            return neuron.step(current.float(), neuron.state_type(*(field.float() for field in fields)))[0].double()

        natural = float32(x, *rows) != spikes
        near = (float32(near_x, *state) != near_spikes) & free
    # The largest term of a step is ten thresholds and more where the membrane is an equation in mV.
    rounding = 1e-6 * model.unit * (10 if model.unit > 1 else 1)
    assert not bool((near & (near_margins.abs() > rounding)).any())
    assert int(natural.sum()) <= 1e-5 * natural.numel()
    measured("flips of 61,440 updates", int(natural.sum()))
    measured("flips of 2,048 updates within 1e-3", int(near.sum()))


def test_float32_free_running_is_measured(model, request, measured):
    exact, x = model.make(N).double(), stimulus(model)
    with torch.no_grad():
        expected, _, _ = by_hand(model, exact, x)
        neuron = model.make(N).float()
        spikes, _ = neuron.scan(x.float(), neuron.init_state(B))
    share = float((spikes.double() != expected).double().mean())
    measured(f"{request.node.callspec.params['model']}: share of spikes that differ", share)
    assert share <= 1e-3


# Gradients


class _Soft(torch.autograd.Function):
    """Forward the integral of the surrogate, backward the very derivative that the neurons use."""

    @staticmethod
    def forward(ctx, x, surrogate):
        ctx.save_for_backward(x)
        ctx.surrogate = surrogate
        return integral(x, surrogate)

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.surrogate.derivative(ctx.saved_tensors[0]), None


def variants(surrogate: Surrogate, detach: bool) -> dict[str, tuple[Callable[..., Neuron], Callable[..., Any], str]]:
    """name -> (ops -> a neuron of three whose every constant that can be learned is, its step, the model of its stimulus)."""

    def rule(**options: Any) -> LifRule:
        return LifRule(surrogate=surrogate, detach_reset=detach, **options)

    found: dict[str, tuple[Callable[..., Neuron], Callable[..., Any], str]] = {}
    for name, how in {
        "soft": rule(),
        "hard": rule(reset="hard", v_reset=0.2),
        "none": rule(reset="none"),
        "soft, late": rule(delayed=True),
        "hard, late": rule(reset="hard", delayed=True),
    }.items():
        found[f"PLIF {name}"] = (
            lambda ops, how=how: PLIF(3, [3.0, 5.0, 9.0], rule=how, learn_threshold=True, decay_input=True, ops=ops),
            lif_step,
            "LIF of many constants",
        )
        found[f"Synaptic {name}"] = (
            lambda ops, how=how: Synaptic(3, 3.0, 5.0, rule=how, learn_threshold=True, ops=ops),
            synaptic_step,
            "LIF",
        )
    found["IF"] = (lambda ops: IF(3, rule=rule(), learn_threshold=True, ops=ops), if_step, "IF")
    found["ALIF"] = (lambda ops: ALIF(3, 5.0, 20.0, rule=rule(), learn_threshold=True), alif_step, "ALIF")
    found["GIF"] = (lambda ops: GIF(3, 5.0, levels=3, rule=rule(), learn_threshold=True), gif_step, "GIF")
    found["Izhikevich"] = (
        lambda ops: Izhikevich(3, surrogate=surrogate, detach_reset=detach, dt_ms=0.1),
        izhikevich_step,
        "Izhikevich",
    )
    found["AdEx"] = (lambda ops: AdEx(3, surrogate=surrogate, detach_reset=detach, dt_ms=0.5), adex_step, "AdEx")
    found["Parallel"] = (
        lambda ops: Parallel(3, 5.0, surrogate=surrogate, learn_threshold=True, ops=ops),
        parallel_step,
        "Parallel",
    )
    found["SlidingParallel"] = (
        lambda ops: SlidingParallel(3, 3, surrogate=surrogate, shared=False, learn_threshold=True),
        sliding_step,
        "SlidingParallel",
    )
    return found


VARIANTS = list(variants(Surrogate(), False))


@pytest.mark.parametrize("kind", ["fast_sigmoid", "arctan"])
@pytest.mark.parametrize("name", VARIANTS)
def test_the_backward_is_the_derivative_of_a_soft_forward(name, kind, monkeypatch):
    """By central differences in float64, of the current, the first state and every parameter."""

    def soft_spike(x: Tensor, surrogate: Surrogate, strict: bool = False) -> Tensor:
        return _Soft.apply(x, surrogate)

    def soft_counts(u: Tensor, threshold: Tensor, levels: int, surrogate: Surrogate, strict: bool = False) -> Tensor:
        return sum(soft_spike(u - k * threshold, surrogate) for k in range(1, levels + 1))

    for module in (reference, adaptive, adex, izhikevich, parallel):
        monkeypatch.setattr(module, "spike", soft_spike)
    monkeypatch.setattr(gif, "counts", soft_counts)
    make, _, of = variants(Surrogate(kind, 2.0), False)[name]
    neuron = make(reference.OPS).double()
    scale = MODELS[of].scale  # the same finite difference in every model's unit
    x = (stimulus(MODELS[of], 5, 2, 3) / scale).requires_grad_()
    first = [leaf.detach().clone().requires_grad_() for leaf in neuron.init_state(2, dtype=torch.float64)]
    names = [name for name, _ in neuron.named_parameters()]

    def run(drive: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        state = neuron.state_type(*given[: len(first)])
        parameters = dict(zip(names, given[len(first) :], strict=True))
        spikes, state = torch.func.functional_call(
            _Scan(neuron), {f"neuron.{k}": p for k, p in parameters.items()}, (drive * scale, state)
        )
        return spikes, *state

    parameters = [p.detach().clone().requires_grad_() for p in neuron.parameters()]
    assert torch.autograd.gradcheck(run, (x, *first, *parameters), eps=1e-6, atol=1e-5, rtol=1e-4)


class _Scan(torch.nn.Module):
    """A neuron whose forward is its scan."""

    def __init__(self, neuron: Neuron) -> None:
        super().__init__()
        self.neuron = neuron

    def forward(self, x: Tensor, state: Any) -> Any:
        return self.neuron.scan(x, state)


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("name", VARIANTS)
def test_the_gradient_of_real_spikes_is_that_of_an_autograd_loop(name, detach):
    """float64; the operators that run, with the reset detached and not; a detached reset is another gradient."""
    make, step, of = variants(Surrogate(), detach)[name]
    neuron = make(native.OPS).double()
    x = stimulus(MODELS[of], 25, 4, 3, seed=1).requires_grad_()
    loop = dataclasses.replace(MODELS[of], step=step)
    weighting = torch.randn(25, 4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found, state = neuron.scan(x, neuron.init_state(4, dtype=torch.float64))
    expected, _, states = by_hand(loop, neuron, x)
    assert torch.equal(found, expected) and bool(found.any())
    leaves = [x, *neuron.parameters()]

    def gradient(spikes: Tensor, last: Any) -> tuple[Tensor, ...]:
        loss = (spikes * weighting).sum() + sum(0.1 * leaf.sum() for leaf in last)
        return torch.autograd.grad(loss, leaves, retain_graph=True)

    ours, theirs = gradient(found, state), gradient(expected, states[-1])
    for a, b in zip(ours, theirs, strict=True):
        assert gap(a, b) <= 1e-9 * max(1.0, float(b.abs().max()))


@pytest.mark.parametrize("name", ["PLIF soft", "PLIF hard", "PLIF soft, late", "ALIF", "GIF", "Izhikevich", "AdEx"])
def test_detaching_the_reset_changes_the_gradient_and_not_the_spikes(name):
    results = []
    for detach in (True, False):
        make, _, of = variants(Surrogate(), detach)[name]
        neuron, x = make(native.OPS).double(), stimulus(MODELS[of], 25, 4, 3, seed=1).requires_grad_()
        spikes, _ = neuron.scan(x, neuron.init_state(4, dtype=torch.float64))
        results.append((spikes, torch.autograd.grad(spikes.sum(), x)[0]))
    assert torch.equal(results[0][0], results[1][0])
    assert gap(results[0][1], results[1][1]) > 1e-6


@pytest.mark.parametrize("name", VARIANTS)
def test_nothing_scatters(name):
    """Forward and backward, on the operators for devices without scatter."""
    make, _, of = variants(Surrogate(), False)[name]
    neuron, x = make(portable.OPS), stimulus(MODELS[of], 25, 4, 3, seed=1).float().requires_grad_()
    with ScatterFreeGuard() as guard:
        spikes, _ = neuron.scan(x, neuron.init_state(4))
        spikes.sum().backward()
    assert x.grad is not None and guard.seen


def test_a_thousand_networks_leave_nothing_behind():
    def make() -> weakref.ref:
        layers = [LIF(4, 20.0), ALIF(4, 20.0), Synaptic(4, 5.0, 20.0), GIF(4, 20.0)]
        x = torch.ones(2, 1, 4)
        for layer in layers:
            x, _ = layer.scan(x, layer.init_state(1))
        return weakref.ref(layers[0])

    make()
    gc.collect()
    before = len(gc.get_objects())
    alive = [make() for _ in range(1000)]
    assert all(dead() is None for dead in alive)  # without the collector: no cycle holds a layer
    del alive
    gc.collect()
    assert len(gc.get_objects()) - before < 100
