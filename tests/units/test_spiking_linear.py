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
from neuro.state import LifState

CPU = torch.device("cpu")


def layer() -> SpikingLinear:
    return SpikingLinear(4, 3, native.OPS)


def refused(error: type[Exception], call) -> str:
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


def test_batch_first_spikes_are_named():
    text = refused(UsageError, lambda: layer().scan(torch.zeros(2, 7, 4), layer().init_state(2, CPU)))
    assert text == (
        "SpikingLinear: got batch-first spikes [2, 7, 4] for a state of 2, expected [T,B,K].\n"
        "Transpose them: spikes.transpose(0, 1)."
    )


def test_a_state_of_another_batch_is_named():
    text = refused(UsageError, lambda: layer().scan(torch.zeros(7, 2, 4), layer().init_state(3, CPU)))
    assert text == (
        "SpikingLinear: got a state [3, 3] for spikes [7, 2, 4], expected [2,3].\nBegin with init_state(2, device)."
    )


@pytest.mark.parametrize("shape", [(7, 2, 5), (2, 4), (0, 2, 4)])
def test_spikes_of_another_shape_are_named(shape):
    text = refused(UsageError, lambda: layer().scan(torch.zeros(shape), layer().init_state(2, CPU)))
    assert text == (
        f"SpikingLinear: got spikes {list(shape)}, expected [T,B,4] with T >= 1.\n"
        "Give it time first; `step` takes one step [B,K]."
    )


def test_constants_out_of_range_are_named():
    text = refused(UsageError, lambda: SpikingLinear(4, 3, native.OPS, decay=1.5))
    assert text == (
        "SpikingLinear: got decay=1.5, expected a number from 0 to 1.\n"
        "From milliseconds it is exp(-dt_ms / tau_mem_ms)."
    )
    text = refused(UsageError, lambda: SpikingLinear(4, 3, native.OPS, threshold=float("nan")))
    assert text == (
        "SpikingLinear: got threshold=nan, expected a number above zero.\n"
        "Scale the weights instead of turning the threshold around."
    )


@pytest.mark.parametrize("rule", [LifRule(), LifRule("hard"), LifRule("none"), LifRule(delayed=True)])
@pytest.mark.parametrize("listed", [False, True])
def test_spikes_that_are_not_finite_are_named(monkeypatch, listed, rule):
    monkeypatch.setattr(operator, "_limit", lambda rows, weight, packed: float(listed))
    made = SpikingLinear(4, 3, native.OPS, rule=rule)
    x = torch.ones(20, 2, 4)
    x[0, 0, 0], x[4, 1, 3] = torch.nan, torch.inf
    text = refused(NeuroError, lambda: made.scan(x, made.init_state(2, CPU)))
    assert text == (
        "SpikingLinear: got 2 spikes that are NaN or infinite, expected finite ones.\n"
        "Look for the first layer whose output is not finite."
    )


def test_a_weight_that_is_not_finite_is_named():
    made = layer()
    with torch.no_grad():
        made.weight[0, 0] = torch.nan
    text = refused(NeuroError, lambda: made.step(torch.ones(2, 4), made.init_state(2, CPU)))
    assert text == (
        "SpikingLinear: got a membrane that is NaN or infinite from finite spikes, expected finite weights and state.\n"
        "Lower the learning rate or clip the gradients, and begin with init_state."
    )


def test_a_sum_of_membranes_beyond_their_type_is_no_mistake():
    made = SpikingLinear(4, 3, native.OPS, rule=LifRule("none"))
    with torch.no_grad():
        made.weight.fill_(6e37)
    spikes, state = made.step(torch.ones(9, 4), made.init_state(9, CPU))
    assert spikes.all() and state.v.isfinite().all() and not state.v.sum().isfinite()


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
    made = SpikingLinear(60, 50, ops, 0.9, 0.5, LifRule(delayed=True, strict=True))
    x = (torch.rand(30, 20, 60) < 0.2).float()
    state = LifState(torch.zeros(20, 50))
    spikes, after = made.scan(x, state)
    expected, v = reference.lif_scan(F.linear(x, made.weight, made.bias), state.v, 0.9, 0.5, made.rule)
    assert spikes.any() and torch.equal(spikes, expected)
    assert torch.allclose(after.v, v, rtol=0.0, atol=1e-6)


def test_a_layer_without_bias_has_none():
    made = SpikingLinear(4, 3, native.OPS, bias=False)
    assert made.bias is None and set(made.state_dict()) == {"weight"}
    spikes, state = made.step(torch.zeros(2, 4), made.init_state(2, CPU))
    assert not spikes.any() and not state.v.any()


@pytest.mark.parametrize("grad", [False, True])
def test_a_layer_can_be_exported(grad):
    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = SpikingLinear(70, 64, portable.OPS, rule=LifRule(delayed=True, strict=True))

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
