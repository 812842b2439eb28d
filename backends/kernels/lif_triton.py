"""The spiking time loop as Triton kernels, forward and backward, every rule and learned constants: `scan.cpp`'s plan and
arithmetic for a CUDA device.

One membrane in sixteen is kept; the backward pass computes the others of sixteen steps again, in registers: in float32
8.25 bytes an element move forward and 12.25 backward. Half-precision tensors have a float32 membrane and float32 constants
inside, rounded only where the last membrane is handed back. Products and sums round one after the other: spikes and membranes
are those of the other forms, bit for bit. Gradients of learned constants are summed over time here, over rows by torch.
"""

from __future__ import annotations

import math
from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from backends.contract import RESETS, LifRule
from backends.kernels.triton_rows import EVERY, block, fold, kernel, launch, like, state_type
from backends.surrogate import KINDS

Constant = float | Tensor

SOFT, HARD = tl.constexpr(RESETS.index("soft")), tl.constexpr(RESETS.index("hard"))


@triton.jit
def constant(number, tensor, stride, neuron, inside, real: tl.constexpr):
    """A constant of these channels: a number, or a tensor's where there is one."""
    if tensor is None:
        return tl.full(neuron.shape, number, real)
    else:
        return tl.load(tensor + neuron * stride, inside, other=0.0).to(real)


@triton.jit
def fires(membrane, threshold, strict: tl.constexpr):
    if strict:
        return membrane > threshold
    else:
        return membrane >= threshold


@triton.jit
def after_spike(u, threshold, v_reset, rule: tl.constexpr):
    """The membrane that a spike leaves."""
    if rule == SOFT:
        return u - threshold
    elif rule == HARD:
        return u * 0.0 + v_reset
    else:
        return u


@triton.jit
def by_the_spike(u, threshold, v_reset, rule: tl.constexpr):
    """The derivative of the membrane after a reset by the spike of the reset."""
    if rule == SOFT:
        return u * 0.0 - threshold
    elif rule == HARD:
        return v_reset - u
    else:
        return u * 0.0


@triton.jit
def derivative(x, slope, half, bend, kind: tl.constexpr):
    """The derivative of a spike as `backends.surrogate` says it; the kinds are numbered as there."""
    scaled = tl.abs(x) * slope
    if kind == 0:
        return 1.0 / ((scaled + 1.0) * (scaled + 1.0))
    elif kind == 1:
        return half / (x * bend * (x * bend) + 1.0)
    elif kind == 2:
        return tl.where(scaled < 1.0, 1.0 - scaled, 0.0)
    else:
        return (scaled <= 1.0).to(x.dtype)


@kernel
@no_type_check  # the language of kernels, whose tuples grow
def forward(
    current, spikes, v, checkpoint, decays, thresholds, neurons, channels, decays_stride, thresholds_stride,
    decay: tl.float64, threshold: tl.float64, v_reset: tl.float64,
    current_step, current_row, current_channel, spikes_step, spikes_row, spikes_channel, tokens, width, blocks,
    rule: tl.constexpr, delayed: tl.constexpr, strict: tl.constexpr,
    real: tl.constexpr, every: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    row, channel, inside = block(width, blocks, wide)
    flat, neuron = row * width + channel, channel % neurons
    leak = constant(decay, decays, decays_stride, neuron, inside, real)
    fire = constant(threshold, thresholds, thresholds_stride, neuron, inside, real)
    floor = tl.full([wide], v_reset, real)
    current += row * current_row + channel * current_channel
    spikes += row * spikes_row + channel * spikes_channel
    membrane = tl.load(v + flat, inside, other=0.0)
    if checkpoint is not None:
        checkpoint += flat
    for first in range(0, tokens, every):
        if checkpoint is not None:
            tl.store(checkpoint, membrane, inside)
            checkpoint += channels
        drives = ()
        for k in tl.static_range(every):
            live = inside & (first + k < tokens)
            drives += (tl.load(current, live, other=0.0).to(real),)
            current += current_step
        for k in tl.static_range(every):
            u = leak * membrane + drives[k]
            reset = after_spike(u, fire, floor, rule)
            if delayed:
                after = tl.where(fires(membrane, fire, strict), reset, u)
                fired = fires(after, fire, strict)
            else:
                fired = fires(u, fire, strict)
                after = tl.where(fired, reset, u)
            tl.store(spikes, fired.to(real), inside & (first + k < tokens))
            membrane = tl.where(first + k < tokens, after, membrane)
            spikes += spikes_step
    tl.store(v + flat, membrane, inside)


@kernel
@no_type_check
def backward(
    arriving, current, grad, grad_v, checkpoint, decays, thresholds, grad_decay, grad_threshold, neurons, channels,
    decays_stride, thresholds_stride, decay: tl.float64, threshold: tl.float64, v_reset: tl.float64,
    slope: tl.float64, half: tl.float64, bend: tl.float64, arriving_step, arriving_row, arriving_channel,
    current_step, current_row, current_channel, grad_step, grad_row, grad_channel, tokens, width, blocks,
    rule: tl.constexpr, delayed: tl.constexpr, strict: tl.constexpr, attached: tl.constexpr, kind: tl.constexpr,
    real: tl.constexpr, every: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    row, channel, inside = block(width, blocks, wide)
    flat, neuron = row * width + channel, channel % neurons
    leak = constant(decay, decays, decays_stride, neuron, inside, real)
    fire = constant(threshold, thresholds, thresholds_stride, neuron, inside, real)
    floor, slope = tl.full([wide], v_reset, real), tl.full([wide], slope, real)
    half, bend = tl.full([wide], half, real), tl.full([wide], bend, real)
    chunks = tl.cdiv(tokens, every)
    last = (chunks * every - 1).to(tl.int64)
    arriving += row * arriving_row + channel * arriving_channel + last * arriving_step
    current += row * current_row + channel * current_channel + last * current_step
    grad += row * grad_row + channel * grad_channel + last * grad_step
    checkpoint += flat + (chunks - 1) * tl.cast(channels, tl.int64)
    carried = tl.load(grad_v + flat, inside, other=0.0)  # the gradient of v after the step
    late = tl.zeros([wide], real)  # delayed: of the spike that the next step's reset used
    by_decay, by_threshold, v = tl.zeros([wide], real), tl.zeros([wide], real), tl.zeros([wide], real)
    for chunk in range(0, chunks):
        v = tl.load(checkpoint, inside, other=0.0)
        drives, grads = (), ()  # from the last step of the chunk to its first
        for back in tl.static_range(every):
            live = inside & ((chunks - chunk) * every - 1 - back < tokens)
            drives += (tl.load(current, live, other=0.0).to(real),)
            grads += (tl.load(arriving, live, other=0.0).to(real),)
            current, arriving = current - current_step, arriving - arriving_step
        membranes = (v,)  # before each step, and after the last
        for k in tl.static_range(every):
            u = leak * membranes[k] + drives[every - 1 - k]
            reset = after_spike(u, fire, floor, rule)
            membranes += (tl.where(fires(membranes[k] if delayed else u, fire, strict), reset, u),)
        for back in tl.static_range(every):
            live, before = (chunks - chunk) * every - 1 - back < tokens, membranes[every - 1 - back]
            u = leak * before + drives[back]
            through = by_the_spike(u, fire, floor, rule)
            membrane = membranes[every - back] if delayed else u
            at_spike = grads[back]
            if delayed:
                at_spike += late
            elif attached:
                at_spike += through * carried
            spike = derivative(membrane - fire, slope, half, bend, kind) * at_spike
            after = carried + spike if delayed else carried
            fired = fires(before if delayed else u, fire, strict)
            kept = tl.where(fired, 0.0, after) if rule == HARD else after
            total = kept if delayed else spike + kept
            tl.store(grad, total, inside & live)
            grad -= grad_step
            if grad_decay is not None:
                by_decay += tl.where(live, total * before, 0.0)
                taken = tl.where(fired, after, 0.0) if rule == SOFT else tl.zeros([wide], real)
                by_threshold -= tl.where(live, spike + taken, 0.0)
            if delayed and attached:
                late = tl.where(live, through * after, late)
            carried = tl.where(live, leak * total, carried)
        checkpoint -= channels
    if delayed and attached:  # before the first step the reset asks whether v_0 is above the threshold
        spike = derivative(v - fire, slope, half, bend, kind) * late
        carried += spike
        by_threshold -= spike
    tl.store(grad_v + flat, carried, inside)
    if grad_decay is not None:
        tl.store(grad_decay + flat, by_decay, inside)
        tl.store(grad_threshold + flat, by_threshold, inside)


class _LifScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, current: Tensor, v0: Tensor, decay: Constant, threshold: Constant, rule: LifRule):  # type: ignore[override]
        dtype, real = state_type(current.dtype)
        v = v0.to(dtype, copy=True, memory_format=torch.contiguous_format)
        spikes, checkpoint = like(current), None
        tensors = [x if isinstance(x, Tensor) else None for x in (decay, threshold)]
        strides = [0 if x is None or x.numel() == 1 else x.stride(0) for x in tensors]
        numbers = [0.0 if isinstance(x, Tensor) else float(x) for x in (decay, threshold)]
        numbers.append(float(rule.v_reset))
        known = {"rule": RESETS.index(rule.reset), "delayed": rule.delayed, "strict": rule.strict, "real": real}
        if any(ctx.needs_input_grad):
            checkpoint = v.new_empty(-(-len(current) // EVERY), *v.shape)
            ctx.save_for_backward(current, checkpoint, *tensors)
            ctx.scalars, ctx.known, ctx.rule = (v.shape[1], v.numel(), *strides, *numbers), known, rule
        rows, width, layout = fold(current, spikes)
        given = (current, spikes, v, checkpoint, *tensors, v.shape[1], v.numel(), *strides, *numbers, *layout)
        launch(forward, spikes, rows, width, *given, **known)
        return spikes, v.to(current.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, arriving: Tensor, grad_v: Tensor):  # type: ignore[override]
        current, checkpoint, *tensors = ctx.saved_tensors
        rule: LifRule = ctx.rule
        grad, carried = like(current), grad_v.to(checkpoint.dtype, copy=True, memory_format=torch.contiguous_format)
        sums = [torch.empty_like(carried) for _ in tensors] if any(x is not None for x in tensors) else [None, None]
        rows, width, layout = fold(arriving, current, grad)
        k = float(rule.surrogate.slope)
        given = (arriving, current, grad, carried, checkpoint, *tensors, *sums, *ctx.scalars)
        kind = KINDS.index(rule.surrogate.kind)
        known = ctx.known | {"attached": not rule.detach_reset and rule.reset != "none", "kind": kind}
        launch(backward, grad, rows, width, *given, k, k / 2.0, math.pi / 2.0 * k, *layout, **known)
        pairs = zip(tensors, sums, strict=True)
        found = [None if x is None or s is None else s.sum_to_size(x.shape).to(x.dtype) for x, s in pairs]
        return grad, carried.to(grad.dtype), *found, None


def lif_scan(current: Tensor, v0: Tensor, decay: Constant, threshold: Constant, rule: LifRule) -> tuple[Tensor, Tensor]:
    """As `backends.contract.Ops.lif_scan`, for tensors that `backends.kernels.cuda.runs` accepts."""
    return _LifScan.apply(current, v0.expand(current.shape[1:]), decay, threshold, rule)
