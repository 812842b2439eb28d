"""The spiking linear layer: what it refuses, and that it runs where the kernels do not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from backends import BackendError, LifRule, native, portable, reference
from backends import spike_linear as operator
from backends.kernels import spikes as kernels
from neuro.errors import NeuroError, UsageError
from neuro.layers.spiking_linear import SpikingLinear
from neuro.neurons import ALIF, IF, LIF, PLIF, Synaptic
from neuro.state import LifState


def layer() -> SpikingLinear:
    return SpikingLinear(4, LIF(3, beta=0.9))


def refused(error: type[Exception], call) -> str:
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


def test_batch_first_spikes_are_named():
    text = refused(UsageError, lambda: layer().scan(torch.zeros(2, 7, 4), layer().init_state(2)))
    assert text == (
        "SpikingLinear: got batch-first spikes [2, 7, 4] for a state of 2, expected [T,B,K].\n"
        "Transpose them: spikes.transpose(0, 1)."
    )


def test_a_state_of_another_batch_is_named():
    text = refused(UsageError, lambda: layer().scan(torch.zeros(7, 2, 4), layer().init_state(3)))
    assert text == (
        "SpikingLinear: got a state [3, 3] of torch.float32 for spikes [7, 2, 4], expected [2,3] of torch.float32.\n"
        "Begin with init_state(2)."
    )


@pytest.mark.parametrize("shape", [(7, 2, 5), (2, 4), (0, 2, 4)])
def test_spikes_of_another_shape_are_named(shape):
    text = refused(UsageError, lambda: layer().scan(torch.zeros(shape), layer().init_state(2)))
    assert text == (
        f"SpikingLinear: got spikes {list(shape)}, expected [T,B,4] with T >= 1.\n"
        "Give it time first; `step` takes one step [B,K]."
    )


def test_a_state_of_another_model_or_type_is_named():
    text = refused(UsageError, lambda: layer().scan(torch.zeros(7, 2, 4), (torch.zeros(2, 3),)))
    assert text == "SpikingLinear: got a state of type tuple, expected LifState.\nBegin with init_state(batch)."
    text = refused(UsageError, lambda: layer().scan(torch.zeros(7, 2, 4), LifState(torch.zeros(2, 3).double())))
    assert text == (
        "SpikingLinear: got a state [2, 3] of torch.float64 for spikes [7, 2, 4], expected [2,3] of torch.float32.\n"
        "Begin with init_state(2)."
    )


@pytest.mark.parametrize("rule", [LifRule(), LifRule("hard"), LifRule("none"), LifRule(delayed=True)])
@pytest.mark.parametrize("listed", [False, True])
def test_spikes_that_are_not_finite_are_named(monkeypatch, listed, rule):
    monkeypatch.setattr(operator, "_limit", lambda rows, weight, packed: float(listed))
    made = SpikingLinear(4, LIF(3, beta=0.9, rule=rule))
    x = torch.ones(20, 2, 4)
    x[0, 0, 0], x[4, 1, 3] = torch.nan, torch.inf
    text = refused(NeuroError, lambda: made.scan(x, made.init_state(2)))
    assert text == (
        "SpikingLinear: got 2 spikes that are NaN or infinite, expected finite ones.\n"
        "Look for the first layer whose output is not finite."
    )


def test_a_weight_that_is_not_finite_is_named():
    made = layer()
    with torch.no_grad():
        made.weight[0, 0] = torch.nan
    text = refused(NeuroError, lambda: made.step(torch.ones(2, 4), made.init_state(2)))
    assert text == (
        "SpikingLinear: got a membrane that is NaN or infinite from finite spikes, expected finite weights and state.\n"
        "Lower the learning rate or clip the gradients, and begin with init_state."
    )


def test_a_sum_of_membranes_beyond_their_type_is_no_mistake():
    made = SpikingLinear(4, LIF(3, beta=0.9, rule=LifRule("none")))
    with torch.no_grad():
        made.weight.fill_(6e37)
    spikes, state = made.step(torch.ones(9, 4), made.init_state(9))
    assert spikes.all() and state.v.isfinite().all() and not state.v.sum().isfinite()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: SpikingLinear(0, LIF(4, 20.0)),
            "SpikingLinear: got 0 inputs, expected at least 1.\nGive their number first.",
        ),
        (
            lambda: SpikingLinear(5, torch.nn.ReLU()),
            "SpikingLinear: got ReLU, expected a neuron of neuro.neurons.\nGive one, such as LIF(128, tau_mem_ms=20.0).",
        ),
        (
            lambda: SpikingLinear(5, LIF(4, 20.0))(torch.zeros(3, 2, 5)),
            "SpikingLinear: got a call, expected scan or step, which take the state and give it back.\n"
            "Write spikes, state = layer.scan(spikes, layer.init_state(batch)).",
        ),
    ],
)
def test_a_layer_that_cannot_be_made_or_called_says_so(make, text):
    assert refused(UsageError, make) == text


def test_shapes_that_do_not_fit_are_named():
    given = torch.zeros(2, 5), torch.zeros(3, 4), torch.zeros(3)
    assert refused(BackendError, lambda: operator.spike_linear(*given)) == (
        "spike_linear: got spikes [2, 5], weight [3, 4] and bias [3], expected [...,K], [N,K] and [N].\n"
        "Transpose or slice them before the call."
    )
    text = refused(
        BackendError,
        lambda: operator.spike_lif(
            torch.zeros(7, 2, 4), torch.zeros(3, 4), None, torch.zeros(7, 3), 0.9, 1.0, LifRule()
        ),
    )
    assert text == (
        "spike_lif: got spikes [7, 2, 4] and v0 [7, 3], expected [T,B,K] and [B,N=3].\nGive it spikes time first."
    )


@pytest.mark.parametrize("ops", [native.OPS, portable.OPS, reference.OPS], ids=lambda ops: ops.name)
def test_a_layer_runs_without_the_library(monkeypatch, ops):
    monkeypatch.setattr(kernels, "library", lambda: None)
    rule = LifRule(delayed=True, strict=True)
    made = SpikingLinear(60, LIF(50, beta=0.9, threshold=0.5, rule=rule, ops=ops))
    x = (torch.rand(30, 20, 60) < 0.2).float()
    state = LifState(torch.zeros(20, 50))
    spikes, after = made.scan(x, state)
    expected, v = reference.lif_scan(F.linear(x, made.weight, made.bias), state.v, 0.9, 0.5, rule)
    assert spikes.any() and torch.equal(spikes, expected)
    assert torch.allclose(after.v, v, rtol=0.0, atol=1e-6)


def test_a_layer_without_bias_has_none():
    made = SpikingLinear(4, LIF(3, beta=0.9), bias=False)
    assert made.bias is None and set(made.state_dict()) == {"weight"}
    spikes, state = made.step(torch.zeros(2, 4), made.init_state(2))
    assert not spikes.any() and not state.v.any()


@pytest.mark.skipif(torch.__version__ < "2.6", reason="an older torch cannot trace it")
@pytest.mark.parametrize("grad", [False, True])
def test_a_layer_can_be_exported(grad):
    rule = LifRule(delayed=True, strict=True)

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = SpikingLinear(70, LIF(64, beta=0.9, rule=rule, ops=portable.OPS))

        def forward(self, x: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            out, state = self.layer.scan(x, LifState(v))
            return out, state.v

    whole, given = Whole().eval(), ((torch.rand(30, 20, 70) < 0.3).float(), torch.rand(20, 64))
    with torch.set_grad_enabled(grad):
        exported = torch.export.export(whole, given).module()
        spikes, v = whole(*given)
        assert spikes.any()
        for a, b in zip(exported(*given), (spikes, v), strict=True):
            assert torch.allclose(a, b, rtol=0.0, atol=1e-5)


NEURONS = {
    "lif": lambda: LIF(50, tau_mem_ms=10.0),
    "lif hard": lambda: LIF(50, tau_mem_ms=10.0, rule=LifRule("hard", v_reset=-0.5)),
    "lif relaxing": lambda: LIF(50, tau_mem_ms=10.0, threshold=0.1, decay_input=True),
    "lif of its own": lambda: LIF(50, tau_mem_ms=torch.linspace(5.0, 20.0, 50), learn_threshold=True),
    "plif": lambda: PLIF(50, tau_mem_ms=10.0),
    "if": lambda: IF(50),
    "alif": lambda: ALIF(50, tau_mem_ms=10.0, tau_adapt_ms=50.0),
    "synaptic": lambda: Synaptic(50, tau_mem_ms=10.0, tau_syn_ms=5.0),
}


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("name", NEURONS)
def test_any_neuron_is_driven_by_the_product(monkeypatch, name, listed):
    monkeypatch.setattr(operator, "_limit", lambda rows, weight, packed: float(listed))
    made = SpikingLinear(60, NEURONS[name]())
    x, state = (torch.rand(30, 20, 60) < 0.2).float(), made.init_state(20)
    current = operator.spike_linear(x, made.weight, made.bias)
    expected, after = made.neuron.scan(current, state)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            spikes, found = made.scan(x, state)
        assert spikes.any() and torch.equal(spikes, expected) and spikes.requires_grad == grad
        assert all(torch.allclose(a, b, rtol=0.0, atol=1e-5) for a, b in zip(found, after, strict=True))
