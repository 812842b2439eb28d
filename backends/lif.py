"""The leaky integrate-and-fire neuron over time as torch operators with a hand-written backward: any device, no compiler.

Four operators a step write into buffers. Whatever of the backward pass does not run through time (the surrogate, the
factors of the reset) is computed for all steps at once, so that its loop is two operators a step. Products and sums round
as in `backends/kernels/scan.cpp`: spikes and membranes are the same, bit for bit.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from backends.contract import LifRule

Constant = float | Tensor


class _LifScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, current: Tensor, v0: Tensor, decay: Constant, threshold: Constant, rule: LifRule):  # type: ignore[override]
        graph = any(ctx.needs_input_grad)
        spikes = torch.empty_like(current, memory_format=torch.contiguous_format)
        membranes = torch.empty_like(spikes if graph else spikes[:1])  # u, or v where the reset is delayed
        fires = torch.gt if rule.strict else torch.ge
        v = v0.clone(memory_format=torch.contiguous_format)
        before, fired = v, fires(v, threshold).to(v.dtype)
        steps = (current.unbind(0), membranes.expand_as(spikes).unbind(0), spikes.unbind(0))
        for current_t, membrane, spikes_t in zip(*steps, strict=True):
            torch.mul(before, decay, out=v)
            torch.add(v, current_t, out=membrane)
            if rule.delayed:
                _reset(membrane, fired, threshold, rule, membrane)
                before, fired = membrane, spikes_t
            fires(membrane, threshold, out=spikes_t)
            if not rule.delayed:
                _reset(membrane, spikes_t, threshold, rule, v)
        if rule.delayed:
            v.copy_(before)
        if graph:
            given = (decay, threshold)
            u_is_needed = rule.delayed and rule.reset == "hard" and not rule.detach_reset
            tensors = [x if isinstance(x, Tensor) else None for x in given]
            ctx.save_for_backward(membranes, v0, current if u_is_needed else None, *tensors)
            ctx.numbers, ctx.rule = [None if isinstance(x, Tensor) else x for x in given], rule
        return spikes, v

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_spikes: Tensor, grad_v: Tensor):  # type: ignore[override]
        membranes, v0, current, *tensors = ctx.saved_tensors
        decay, threshold = (x if y is None else y for x, y in zip(tensors, ctx.numbers, strict=True))
        rule: LifRule = ctx.rule
        fires = torch.gt if rule.strict else torch.ge
        first, learned = v0.unsqueeze(0), any(x is not None for x in tensors)
        slope = rule.surrogate.derivative(membranes - threshold)
        fired, reset_slope, u = fires(membranes, threshold).to(membranes.dtype), slope, membranes
        if rule.delayed:  # the spike of the reset is that of the step before
            before = torch.cat([first, membranes[:-1]])
            fired = torch.cat([fires(first, threshold).to(fired.dtype), fired[:-1]])
            reset_slope = torch.cat([rule.surrogate.derivative(first - threshold), slope[:-1]])
            u = membranes if current is None else before * decay + current
        elif learned:
            before = torch.empty_like(membranes)
            before[:1] = first
            _reset(membranes[:-1], fired[:-1], threshold, rule, before[1:])
        through = None  # what the gradient of v sends by way of the spike of the reset
        if not rule.detach_reset and rule.reset != "none":
            through = reset_slope * (rule.v_reset - u if rule.reset == "hard" else -threshold)
        scale = decay if rule.delayed else 1.0
        factor = (1.0 - fired) * scale if rule.reset == "hard" else scale
        factor = factor if through is None else through + factor
        steps = factor.unbind(0) if isinstance(factor, Tensor) and factor.dim() == 3 else [factor] * len(membranes)

        grad, carried = slope * grad_spikes, grad_v.clone(memory_format=torch.contiguous_format)
        direct = grad.clone() if learned else grad
        arriving = torch.empty_like(grad) if learned else None  # the gradient of every v
        for t in range(len(membranes) - 1, -1, -1):
            grad_t, factor_t = grad[t], steps[t]
            if rule.delayed:
                grad_t.add_(carried)
                torch.mul(grad_t, factor_t, out=carried)
                continue
            if arriving is not None:
                arriving[t] = carried
            if isinstance(factor_t, Tensor):
                grad_t.addcmul_(factor_t, carried)
            else:
                grad_t.add_(carried)
            torch.mul(grad_t, decay, out=carried)
        if rule.delayed:
            arriving, grad = grad, grad * (1.0 - fired) if rule.reset == "hard" else grad
        if not learned:
            return grad, carried, None, None, None
        for_threshold = direct if through is None else direct + through * arriving
        if rule.reset == "soft":
            for_threshold = for_threshold + fired * arriving
        sums = [
            None if x is None else total.sum_to_size(x.shape)
            for x, total in zip(tensors, (grad * before, -for_threshold), strict=True)
        ]
        return grad, carried, *sums, None


def _reset(u: Tensor, spikes: Tensor, threshold: Constant, rule: LifRule, out: Tensor) -> None:
    """The membrane after ``spikes``, into ``out`` (which may be ``u``)."""
    if rule.reset == "hard":
        torch.addcmul(u, u, spikes, value=-1.0, out=out)
        if rule.v_reset:
            out.add_(spikes, alpha=rule.v_reset)
    elif rule.reset == "none":
        out.copy_(u)
    elif isinstance(threshold, Tensor):
        torch.addcmul(u, spikes, threshold, value=-1.0, out=out)
    else:
        torch.sub(u, spikes, alpha=threshold, out=out)


def lif_scan(
    current: Tensor, v0: Tensor, decay: Constant, threshold: Constant, rule: LifRule
) -> tuple[Tensor, Tensor]:
    """As `backends.contract.Ops.lif_scan`, for inputs that `check_lif_scan` let pass."""
    return _LifScan.apply(current, v0.expand(current.shape[1:]), decay, threshold, rule)
