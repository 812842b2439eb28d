"""Exponential traces of events, and what they leave at a synapse: the affine recurrence, time first.

    trace        x_t = d x_{t-1} + s_t;  nearest: x_t = 1 where something came, else d x_{t-1}      d = exp(-dt / tau)
    eligibility  E_t = d_t E_{t-1} + left_t right_t^T                                                   [B,O,I]
    credited     sum_t third_t E_t                                                                      [B,O,I]

A trace is one `Ops.affine_scan`. The eligibility of a synapse is never laid out over time: every term of the sum is an
outer product whose weight is known from the third factor's own trace run towards the past, so that a scan is one matrix
product of [O,T] and [T,I] a stream. STDP, reward-modulated STDP and e-prop are made of these three, and so is the procedural
memory's three-factor rule (`neuro.memory.procedural`): d = 1, left = eligibility, right = error, and the hormones' third
factor at the commit, zero before it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from backends import Ops
from neuro.errors import UsageError


def decay_of(name: str, tau_ms: float, dt_ms: float) -> float:
    """exp(-dt / tau), what one step leaves of a trace.

    Raises:
        UsageError: a time constant that is not positive, or a step longer than it.
    """
    if not (math.isfinite(tau_ms) and tau_ms > 0):
        raise UsageError(
            f"{name}: got {tau_ms:g} ms, expected a positive time constant.",
            "Give it in milliseconds, as the time after which 37 % of the trace is left.",
        )
    if not (math.isfinite(dt_ms) and dt_ms > 0):
        raise UsageError(f"dt_ms: got {dt_ms:g} ms, expected a positive step.", "Give the length of one step in ms.")
    if dt_ms > tau_ms:
        raise UsageError(
            f"dt_ms: got {dt_ms:g} ms, expected at most {name} = {tau_ms:g} ms.",
            "Shorten the step, or leave out a trace that is gone before the next step.",
        )
    return math.exp(-dt_ms / tau_ms)


def check_events(where: str, events: Tensor, batch: int, width: int) -> None:
    """Refuse what is not [T,B,N] of finite numbers with the state's B and N.

    Raises:
        UsageError: batch-first input, another batch or width than the state's, no step, NaN or infinity.
    """
    shape = list(events.shape)
    if events.dim() != 3:
        raise UsageError(
            f"{where}: got shape {shape}, expected [T,B,N] = [T,{batch},{width}].",
            "Put time first; a single stream is a batch of one.",
        )
    if shape[1] != batch and shape[0] == batch:
        raise UsageError(
            f"{where}: got batch-first input {shape}, expected time first [T,B,N] = [T,{batch},{width}].",
            "Transpose it: x.transpose(0, 1).",
        )
    if shape[1:] != [batch, width]:
        raise UsageError(
            f"{where}: got shape {shape}, expected [T,B,N] = [T,{batch},{width}] as the state has.",
            "Make the state with this batch and these widths (init_state).",
        )
    if shape[0] == 0:
        raise UsageError(f"{where}: got no step at all, expected T >= 1.", "Leave out the call for an empty chunk.")
    if not bool(torch.isfinite(events).all()):
        raise UsageError(
            f"{where}: got NaN or infinity, expected finite numbers.",
            "Look for the first step at which they appear; a trace never forgets them.",
        )


def trace(events: Tensor, start: Tensor, decay: float, ops: Ops, nearest: bool = False) -> Tensor:
    """The trace after each step.

    Args:
        events: [T,B,N] spikes or counts.
        start: [B,N] the trace before the first step.
        nearest: an event sets the trace to one instead of adding to it: only the nearest one is remembered.
    """
    if nearest:
        came = (events != 0).to(events.dtype)
        return ops.affine_scan(decay * (1.0 - came), came, start)
    return ops.affine_scan(torch.full_like(events, decay), events, start)


def before(after: Tensor, start: Tensor, decay: float) -> Tensor:
    """[T,B,N]: the trace that the events of a step find, which those of the same step have not touched."""
    return decay * torch.cat([start.unsqueeze(0), after[:-1]])


def ahead(values: Tensor, decay: float, ops: Ops) -> Tensor:
    """[T,B,N]: x_t = values_t + d x_{t+1}, a trace of what is still to come."""
    flipped = values.flip(0)
    return ops.affine_scan(torch.full_like(flipped, decay), flipped, torch.zeros_like(flipped[0])).flip(0)


def outer(left: Tensor, right: Tensor) -> Tensor:
    """left [T,B,O], right [T,B,I] -> sum_t left_t right_t^T [B,O,I]."""
    return left.permute(1, 2, 0) @ right.transpose(0, 1)


def outer_of_all(left: Tensor, right: Tensor) -> Tensor:
    """left [T,B,O], right [T,B,I] -> the same summed over streams [O,I], in one product."""
    return left.flatten(0, 1).T @ right.flatten(0, 1)


def eligibility(left: Tensor, right: Tensor, decay: float | Tensor, start: Tensor) -> Tensor:
    """E after the last step [B,O,I].

    Args:
        left: [T,B,O].
        right: [T,B,I].
        decay: one number, or one for every step and output [T,B,O].
        start: [B,O,I] the eligibility before the first step.
    """
    if isinstance(decay, Tensor):
        kept = torch.cat([torch.ones_like(decay[:1]), decay.flip(0)]).cumprod(0)
        return kept[-1].unsqueeze(-1) * start + outer(kept[:-1].flip(0) * left, right)
    steps = left.shape[0]
    age = torch.arange(steps - 1, -1, -1, device=left.device, dtype=left.dtype)
    return decay**steps * start + outer((decay**age).reshape(-1, 1, 1) * left, right)


def credited(third: Tensor, left: Tensor, right: Tensor, decay: float, start: Tensor, ops: Ops) -> Tensor:
    """sum_t third_t E_t [B,O,I]; third is [T,B,O], or [T,B,1] when all outputs hear the same."""
    future = ahead(third, decay, ops)
    return decay * future[0].unsqueeze(-1) * start + outer(future * left, right)
