"""The leaky integrate-and-fire neuron over time as torch operators with a hand-written backward: any device, no compiler.

Four operators a step write into buffers. Whatever of the backward pass does not run through time (the surrogate, the
factors of the reset) is computed for several steps at once, so that its loop is two operators a step. Products and sums round
as in `backends/kernels/scan.cpp`: spikes and membranes are the same, bit for bit.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from backends.contract import LifRule

Constant = float | Tensor

_CHUNK = 1 << 17  # elements of the backward pass at a time: what is made for them stays in the caches


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
        learned, hard = any(x is not None for x in tensors), rule.reset == "hard"
        grad, carried = torch.empty_like(membranes), grad_v.clone(memory_format=torch.contiguous_format)
        sums = [None if x is None else torch.zeros_like(x) for x in tensors]
        scale = decay if rule.delayed else 1.0
        length = max(1, _CHUNK // max(1, v0.numel()))
        for first in range((len(membranes) - 1) // length * length, -1, -length):
            part = slice(first, first + length)
            after, out = membranes[part], grad[part]
            surrogate = rule.surrogate.derivative(after - threshold)
            reset_surrogate, reset_by, u = surrogate, after, after
            if rule.delayed:  # the spike of the reset is that of the step before
                reset_by = before = torch.cat([membranes[first - 1 : first] if first else v0.unsqueeze(0), after[:-1]])
                u = after if current is None else before * decay + current[part]
                if not rule.detach_reset:
                    reset_surrogate = rule.surrogate.derivative(before - threshold)
            elif learned:
                before = torch.empty_like(after)
                before[0] = v0
                earlier = membranes[max(first - 1, 0) : first + len(after) - 1]
                into = before[len(before) - len(earlier) :]
                _reset(earlier, fires(earlier, threshold).to(earlier.dtype), threshold, rule, into)
            fired = fires(reset_by, threshold).to(after.dtype) if hard or learned else after.new_empty(0)
            # What arrives at v goes on to u (at once) or to the v before (delayed) with `factor`; `through` is the part
            # of it that goes by way of the spike of the reset.
            factor, through = (1.0 - fired) * scale if hard else scale, None
            if not rule.detach_reset and rule.reset != "none":
                through = reset_surrogate * (rule.v_reset - u if hard else -threshold)
                factor = through + factor
            factors = factor.unbind(0) if isinstance(factor, Tensor) and factor.dim() == 3 else [factor] * len(out)
            torch.mul(surrogate, grad_spikes[part], out=out)
            direct = out.clone() if learned else out
            arriving = torch.empty_like(out) if learned and not rule.delayed else out
            for out_t, arriving_t, factor_t in reversed(list(zip(out, arriving, factors, strict=True))):
                if rule.delayed:
                    out_t.add_(carried)
                    torch.mul(out_t, factor_t, out=carried)
                    continue
                if learned:
                    arriving_t.copy_(carried)
                if isinstance(factor_t, Tensor):
                    out_t.addcmul_(factor_t, carried)
                else:
                    out_t.add_(carried)
                torch.mul(out_t, decay, out=carried)
            if learned:
                at_threshold = direct if through is None else direct + through * arriving
                if rule.reset == "soft":
                    at_threshold = at_threshold + fired * arriving
            if rule.delayed and hard:
                out.mul_(1.0 - fired)
            if learned:
                for total, summand, sign in ((sums[0], out * before, 1), (sums[1], at_threshold, -1)):
                    if total is not None:
                        total.add_(summand.sum_to_size(total.shape), alpha=sign)
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


def lif_scan(current: Tensor, v0: Tensor, decay: Constant, threshold: Constant, rule: LifRule) -> tuple[Tensor, Tensor]:
    """As `backends.contract.Ops.lif_scan`, for inputs that `check_lif_scan` let pass."""
    return _LifScan.apply(current, v0.expand(current.shape[1:]), decay, threshold, rule)
