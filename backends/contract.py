"""What a backend is: a device, a floating-point type, and a frozen table of the operators that run on it.

Axes: B batch, T tokens, D width, N neurons, H heads, K head width, M memory slots, C rows to write, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from backends.errors import BackendError
from backends.surrogate import Surrogate

RESETS = ("soft", "hard", "none")


@dataclasses.dataclass(frozen=True)
class LifRule:
    """How a leaky integrate-and-fire neuron fires and what a spike does to its membrane.

    With S(u) = 1 where u >= threshold (``strict``: u > threshold), else 0:

        at once (default):  u_t = decay v_{t-1} + i_t,  s_t = S(u_t),  then v_t =
            soft  u_t - threshold s_t        hard  u_t (1 - s_t) + v_reset s_t        none  u_t
        ``delayed``:        r_t = S(v_{t-1}),  s_t = S(v_t)  with  v_t =
            soft  decay v_{t-1} + i_t - threshold r_t        hard  (decay v_{t-1} + i_t)(1 - r_t) + v_reset r_t

    Attributes:
        reset: one of `RESETS`.
        delayed: the reset is taken off one step later and does not decay (snntorch's ``reset_delay``).
        strict: a membrane at the threshold does not fire (snntorch, norse).
        v_reset: of the hard reset, in units of the membrane.
        detach_reset: the s and r of the reset are constants of the backward pass. The threshold's own gradient flows.
        surrogate: the derivative of S in the backward pass.

    Raises:
        BackendError: an unknown reset, or an option that the reset does not have.
    """

    reset: str = "soft"
    delayed: bool = False
    strict: bool = False
    v_reset: float = 0.0
    detach_reset: bool = True
    surrogate: Surrogate = dataclasses.field(default_factory=Surrogate)

    def __post_init__(self) -> None:
        if self.reset not in RESETS:
            raise BackendError(f"reset: got '{self.reset}', expected one of {', '.join(RESETS)}.", "Correct the name.")
        if self.v_reset and self.reset != "hard":
            raise BackendError(
                f"v_reset: got {self.v_reset} with a {self.reset} reset.", 'Leave it out, or reset="hard".'
            )
        if self.delayed and self.reset == "none":
            raise BackendError(
                "delayed: got True without a reset to delay.", 'Leave it out, or reset="soft" or "hard".'
            )


@dataclasses.dataclass(frozen=True)
class Ops:
    """The operators a brain is built with. Every backend has each of them; `backends.reference` says what each means."""

    name: str
    embed: Callable[[Tensor, Tensor], Tensor]
    """(ids [B,T], weight [V,D]) -> [B,T,D]: rows of the weight."""
    linear: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    """(x [...,I], weight [O,I], bias [O] or None) -> [...,O]: y = W x + b."""
    spike_linear: Callable[[Tensor, Tensor, Any], Tensor]
    """(spikes [...,I], weight [O,I], packed) -> [...,O]: y = W s, where few of s are expected not to be zero.

    packed: the caller's `backends.kernels.spikes.PackedWeight`, where the operator may keep the weight in another order.
    """
    affine_scan: Callable[[Tensor, Tensor, Tensor], Tensor]
    """(a [T,B,D], b [T,B,D], h0 [B,D]) -> h [T,B,D] with h_t = a_t * h_{t-1} + b_t.

    One floating type, which is also that of h; T >= 1. Differentiable once.
    """
    lif_scan: Callable[[Tensor, Tensor, float | Tensor, float | Tensor, LifRule], tuple[Tensor, Tensor]]
    """(current [T,B,N], v0 [B,N], decay, threshold, rule) -> (spikes [T,B,N] of 0 and 1, v [B,N] after the last step).

    decay and threshold: one number, or a tensor [N] with gradients of its own. What happens is `LifRule`'s docstring.
    Differentiable once.
    """
    attention: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    """(q [B,H,T,K], k [B,H,S,K], v [B,H,S,K], bias, broadcast to [B,H,T,S], -inf hides) -> [B,H,T,K], scaled by K**-0.5."""
    take_rows: Callable[[Tensor, Tensor], Tensor]
    """(source [B,M,D], index [B,C]) -> [B,C,D]."""
    write_rows: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    """(memory [B,M,D], index [B,C] distinct in a row, rows [B,C,D], keep [B,C] bool) -> a new memory.

    Row c goes to slot index[c] where keep[c]; every other slot is returned as it was, bit for bit.
    """
    tally: Callable[[Tensor, Tensor, int], Tensor]
    """(shares [B,T,M], ids [B,M] whole numbers of a floating type, V) -> [B,T,V]: the sum of the shares of each id."""
    weighted_rows: Callable[[Tensor, Tensor], Tensor]
    """(shares [B,T,V], weight [V,D]) -> [B,T,D]: the sum of the weight's rows, each times its share."""
    scatter_free: bool = False
    """Whether none of them scatters, or makes a shape that depends on data, forward or backward (held by `backends.guard`)."""


@dataclasses.dataclass(frozen=True)
class Backend:
    """Where a brain runs, and what can be done there: code asks these fields, never the name of the device.

    Attributes:
        name: one of `backends.NAMES`, without "auto".
        ops: its operators.
        reason: in words, why this backend was chosen.
        hardware: the processor's or the device's own name.
        scatter_free: the device cannot scatter (DirectML): its operators must not.
        autocast: the type in which mixed precision multiplies; None where it is absent or does not pay.
        fp64: float64 tensors can be made there, so that long sums may be.
        torch_optimizers: torch's own optimizers run there; without, nothing uses lerp or foreach.

    Raises:
        BackendError: operators that scatter on a device that cannot, or float64 weights on one that has none.
    """

    name: str
    device: torch.device
    dtype: torch.dtype
    ops: Ops
    reason: str
    hardware: str = ""
    scatter_free: bool = False
    autocast: torch.dtype | None = None
    fp64: bool = True
    torch_optimizers: bool = True

    def __post_init__(self) -> None:
        if self.scatter_free and not self.ops.scatter_free:
            got = f"backend {self.name}: got the {self.ops.name} operators, expected some that do not scatter."
            raise BackendError(got, "Use backends.portable.OPS there.")
        if self.dtype == torch.float64 and not self.fp64:
            got = f"backend {self.name}: got torch.float64 weights, expected float32: the device has no float64."
            raise BackendError(got, "Leave the dtype out.")


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


def check_lif_scan(current: Tensor, v0: Tensor, decay: float | Tensor, threshold: float | Tensor) -> None:
    """Refuse what would be promoted, broadcast or read past its end. A state of one row stands for every row.

    Raises:
        BackendError: no step, batch before time, a state of another batch or width, constants that do not fit, or more
            than one type.
    """
    if current.dim() != 3 or current.shape[0] == 0:
        got = f"lif_scan: got current of shape {list(current.shape)}, expected [T,B,N] with T >= 1."
        raise BackendError(got, "Give it at least one step, time first.")
    steps, batch, neurons = current.shape
    if v0.dim() != 2 or v0.shape[1] != neurons or v0.shape[0] not in (1, batch):
        got = f"lif_scan: got current {list(current.shape)} and v0 {list(v0.shape)}"
        if v0.dim() == 2 and v0.shape == (steps, neurons):
            got = f"{got}, whose rows match the first axis, expected time first: [T,B,N] and [B,N]."
            raise BackendError(got, "The current looks batch-first: transpose(0, 1) it before the call.")
        if v0.dim() == 2 and v0.shape[1] == neurons:
            got = f"{got}, expected a state of batch {batch}."
            raise BackendError(got, "Start a state for this batch; a state belongs to the rows it was made with.")
        raise BackendError(f"{got}, expected [T,B,N] and [B,N].", "Give a membrane for every row and neuron.")
    if current.dtype != v0.dtype or not current.is_floating_point():
        got = f"lif_scan: got current {current.dtype} and v0 {v0.dtype}, expected one floating-point type."
        raise BackendError(got, "Convert them to float32 before the call, under autocast too.")
    for name, x in (("decay", decay), ("threshold", threshold)):
        if isinstance(x, Tensor) and (x.dtype != current.dtype or x.shape not in ((), (1,), (neurons,))):
            got = f"lif_scan: got {name} {list(x.shape)} of {x.dtype}, expected [{neurons}] of {current.dtype}."
            raise BackendError(got, "Give one number, or a number for each neuron.")
