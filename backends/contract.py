"""What a backend is: a device, a floating-point type, and a frozen table of the operators that run on it.

Axes: B batch, T tokens, D width, N neurons, H heads, K head width, M memory slots, C rows to write, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from backends.errors import BackendError


@dataclasses.dataclass(frozen=True)
class Ops:
    """The operators a brain is built with. Every backend has each of them; `backends.reference` says what each means."""

    name: str
    embed: Callable[[Tensor, Tensor], Tensor]
    """(ids [B,T], weight [V,D]) -> [B,T,D]: rows of the weight."""
    linear: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    """(x [...,I], weight [O,I], bias [O] or None) -> [...,O]: y = W x + b."""
    affine_scan: Callable[[Tensor, Tensor, Tensor], Tensor]
    """(a [T,B,D], b [T,B,D], h0 [B,D]) -> h [T,B,D] with h_t = a_t * h_{t-1} + b_t.

    One floating type, which is also that of h; T >= 1. Differentiable once.
    """
    lif_scan: Callable[[Tensor, Tensor, float, float, float], tuple[Tensor, Tensor]]
    """(current [T,B,N], v0 [B,N], decay, threshold, slope) -> (spikes [T,B,N] of 0 and 1, v [B,N]).

    u_t = decay * v_{t-1} + current_t;  s_t = 1 where u_t >= threshold;  v_t = u_t - threshold * s_t (soft reset).
    Backward: ds/du = 1 / (1 + slope * |u - threshold|)^2 (fast sigmoid, Zenke & Ganguli 2018, doi:10.1162/neco_a_01086);
    the reset is treated as a constant.
    """
    attention: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    """(q [B,H,T,K], k [B,H,S,K], v [B,H,S,K], bias, broadcast to [B,H,T,S], -inf hides) -> [B,H,T,K], scaled by K**-0.5."""
    take_rows: Callable[[Tensor, Tensor], Tensor]
    """(source [B,M,D], index [B,C]) -> [B,C,D]."""
    write_rows: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    """(memory [B,M,D], index [B,C] distinct in a row, rows [B,C,D], keep [B,C] bool) -> a new memory.

    Row c goes to slot index[c] where keep[c]; every other slot is returned as it was, bit for bit.
    """


@dataclasses.dataclass(frozen=True)
class Backend:
    """Where a brain runs.

    ``reason`` says in words why this backend was chosen. ``scatter_free``: the operators and the optimizer must use
    no scatter, index_put, data-dependent shape or float64 (DirectML). ``autocast``: mixed precision is worth asking for.
    """

    name: str
    device: torch.device
    dtype: torch.dtype
    ops: Ops
    reason: str
    scatter_free: bool = False
    autocast: torch.dtype | None = None


def check_affine_scan(a: Tensor, b: Tensor, h0: Tensor) -> None:
    """Refuse what would be promoted, broadcast or read past its end.

    Raises:
        BackendError: no token, shapes that do not fit, or more than one type.
    """
    if a.dim() != 3 or a.shape[0] == 0:
        got = f"affine_scan: got a of shape {list(a.shape)}, expected [T,B,D] with T >= 1."
        raise BackendError(got, "Give it at least one token, time first.")
    if a.shape != b.shape or a.shape[1:] != h0.shape:
        got = f"affine_scan: got a {list(a.shape)}, b {list(b.shape)} and h0 {list(h0.shape)}"
        raise BackendError(f"{got}, expected [T,B,D], [T,B,D] and [B,D].", "Expand or transpose them before the call.")
    if not a.dtype == b.dtype == h0.dtype or not a.is_floating_point():
        got = f"affine_scan: got a {a.dtype}, b {b.dtype} and h0 {h0.dtype}, expected one floating-point type."
        raise BackendError(got, "Convert them to float32 before the call, under autocast too.")
