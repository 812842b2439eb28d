"""A linear layer on spikes, alone and with the neurons behind it: event-driven where few inputs are not zero.

    spike_linear:  y = W s + b                     any leading axes, differentiable
    spike_lif:     i_t = W s_t + b, then `Ops.lif_scan`; without gradients in one sweep that never writes i

The path is chosen each call. Spikes are listed up to the density at which a dense product would be as quick, so that a
call that turns out dense has cost a fraction of the listing. Where the C++ library does not run (another device or type,
wider than 65,536 inputs, autocast, compilation) the product is dense: the same result up to rounding.

Spikes may be binary, counts or graded: a value multiplies its row of the weight. Where a spike is zero its weight is not
read: an infinite weight there gives no NaN, as a dense product would.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from backends import devices, native
from backends.contract import LifRule
from backends.errors import BackendError
from backends.kernels import spikes as kernels
from backends.kernels.spikes import Events, PackedWeight

# Measured by benchmarks/spike_linear.py on an AMD EPYC with AVX-512, one core. Forward and gradient of the weight break even
# with dense products at a density of one half, one vector above 0.8; kept lower, for processors whose dense products gain
# more from wider registers than sums do. Few vectors: dense products of two to sixteen rows share what they read.
_BREAK_EVEN = 0.4
_BREAK_EVEN_OF_FEW = 0.2
_BREAK_EVEN_OF_ONE = 0.6
_ROWS_TO_PACK = 50  # packing a weight costs what so many dense rows do
_ROWS_TO_WARM = 32  # panels that come from memory, and not from a cache, cost about so many
_OUTPUTS_TO_LIST = 24  # listing a row costs what a dense product with so many outputs does
_FEW = 16  # vectors up to which whole rows are quicker than panels
_WORTH_A_LIST = 1 << 21  # products of a dense call: below, it is done before the first list is made
_SAMPLE = 16  # rows of a large input that show whether it is worth listing


def spike_linear(
    spikes: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    packed: PackedWeight | None = None,
    backward_dtype: torch.dtype | None = None,
) -> Tensor:
    """(spikes [...,K], weight [N,K], bias [N] or None) -> [...,N].

    Args:
        packed: keeps what was made of the weight for the next call without gradients; without it every call packs anew.
        backward_dtype: multiply the dense products of the backward pass in this type (bfloat16: the gradients err by
            about 3e-3, the forward pass is as without). A CPU that has no bfloat16 products keeps the type of the weight.

    Raises:
        BackendError: shapes that do not fit.
    """
    spikes = _checked(spikes, weight, bias)
    events = _events(spikes, weight, bias, packed)
    return _linear(spikes, weight, bias, events, packed, backward_dtype)


def spike_lif(
    spikes: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    v0: Tensor,
    decay: float | Tensor,
    threshold: float | Tensor,
    rule: LifRule,
    lif_scan: Callable[..., tuple[Tensor, Tensor]] = native.lif_scan,
    packed: PackedWeight | None = None,
    backward_dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """(spikes [T,B,K], weight [N,K], bias [N] or None, v0 [B,N], ...) -> (spikes [T,B,N], v [B,N]).

    The neurons are those of ``lif_scan`` (an `Ops.lif_scan`), and so are the spikes: the sweep without gradients adds in
    the same order.

    Raises:
        BackendError: as `spike_linear`, or a state that does not fit.
    """
    spikes = _checked(spikes, weight, bias)
    if spikes.dim() != 3 or v0.shape != (spikes.shape[1], weight.shape[0]):
        got = f"spike_lif: got spikes {list(spikes.shape)} and v0 {list(v0.shape)}"
        raise BackendError(f"{got}, expected [T,B,K] and [B,N={weight.shape[0]}].", "Give it spikes time first.")
    events = _events(spikes, weight, bias, packed)
    plain = not (isinstance(decay, Tensor) or isinstance(threshold, Tensor)) and v0.dtype == torch.float32
    if events is not None and events.rows > _FEW and plain and not _graph(spikes, weight, bias, v0):
        panels = (packed or PackedWeight()).panels(weight)
        return kernels.lif(events, panels, bias, v0, float(decay), float(threshold), rule)
    current = _linear(spikes, weight, bias, events, packed, backward_dtype)
    return lif_scan(current, v0, decay, threshold, rule)


def _checked(spikes: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The spikes, in the weight's type if they are bool or integers."""
    fits = bias is None or bias.shape == weight.shape[:1]
    if weight.dim() != 2 or spikes.dim() == 0 or spikes.shape[-1] != weight.shape[-1] or not fits:
        shapes = f"spikes {list(spikes.shape)}, weight {list(weight.shape)}"
        got = f"spike_linear: got {shapes} and bias {None if bias is None else list(bias.shape)}"
        raise BackendError(f"{got}, expected [...,K], [N,K] and [N].", "Transpose or slice them before the call.")
    return spikes if spikes.is_floating_point() else spikes.to(weight.dtype)


def _graph(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def _limit(rows: int, weight: Tensor, packed: PackedWeight | None) -> float:
    """The density up to which events are quicker; 0 where they never are."""
    if max(rows, 3) * weight.numel() < _WORTH_A_LIST:  # alone, a dense row takes the time of three among many
        return 0.0
    # Without gradients a weight is packed once for many calls, in training anew each time.
    kept = packed is not None and not _graph(weight)
    if kept and rows <= _FEW:
        return _BREAK_EVEN_OF_ONE if rows == 1 else _BREAK_EVEN_OF_FEW
    share = (rows if kept else rows - _ROWS_TO_PACK) / (rows + _ROWS_TO_WARM)
    return max(0.0, _BREAK_EVEN * (1.0 - _OUTPUTS_TO_LIST / weight.shape[0]) * share)


def _events(spikes: Tensor, weight: Tensor, bias: Tensor | None, packed: PackedWeight | None) -> Events | None:
    """The list of the spikes where that is the quicker path, else None."""
    rows = spikes.numel() // max(spikes.shape[-1], 1)
    limit = _limit(rows, weight, packed) if rows else 0.0
    if not limit or not kernels.runs(spikes, weight, bias):
        return None
    x = spikes.detach().reshape(rows, -1) if spikes.dim() != 2 else spikes
    if rows >= 4 * _SAMPLE and kernels.find(x[:: rows // _SAMPLE], 1.05 * limit) is None:
        return None
    return kernels.find(x, limit)


def _linear(
    spikes: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    events: Events | None,
    packed: PackedWeight | None,
    backward_dtype: torch.dtype | None,
) -> Tensor:
    graph = _graph(spikes, weight, bias)
    if packed is not None and _graph(weight):
        packed.clear()  # an optimizer is about to write the weight, and not all of them say so
    if events is None and not (graph and backward_dtype):
        return native.linear(spikes, weight, bias)
    x = spikes if spikes.dim() == 2 else spikes.reshape(-1, spikes.shape[-1])
    if graph:
        y = _SpikeLinear.apply(x, weight, bias, events, None if weight.requires_grad else packed, backward_dtype)
    else:
        y = _product(x, weight, bias, events, packed)
    return y if spikes.dim() == 2 else y.view(*spikes.shape[:-1], weight.shape[0])


def _product(
    x: Tensor, weight: Tensor, bias: Tensor | None, events: Events | None, packed: PackedWeight | None
) -> Tensor:
    if events is None:
        return F.linear(x, weight, bias)
    packed = packed or PackedWeight()
    if events.rows <= _FEW:
        return kernels.few_products(events, packed.rows(weight), bias)
    return kernels.product(events, packed.panels(weight), bias, weight.shape[0])


class _SpikeLinear(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        events: Events | None,
        packed: PackedWeight | None,
        backward_dtype: torch.dtype | None,
    ) -> Tensor:
        y = _product(x, weight, bias, events, packed)
        ctx.listed = events is not None and ctx.needs_input_grad[1]
        # A list takes the room of the spikes times their density; the buffer it was made in is let go.
        kept: tuple[Tensor | None, ...] = (None, None, None)
        if events is not None and ctx.needs_input_grad[1]:
            kept = events.columns.clone(), events.values, events.offsets
        elif ctx.needs_input_grad[1]:
            kept = (x, None, None)
        ctx.save_for_backward(weight if ctx.needs_input_grad[0] else None, *kept)
        ctx.width, ctx.dtype = x.shape[1], backward_dtype
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        weight, kept, values, offsets = ctx.saved_tensors
        to_x, to_weight, to_bias = ctx.needs_input_grad[:3]
        grad_x = _multiply(grad, weight, ctx.dtype) if to_x else None
        grad_weight = None
        if ctx.listed:
            grad_weight = kernels.weight_grad(Events(kept, values, offsets, ctx.width), grad)
        elif to_weight:
            grad_weight = _multiply(grad.T, kept, ctx.dtype)
        return grad_x, grad_weight, grad.sum(0) if to_bias else None, None, None, None


def _multiply(a: Tensor, b: Tensor, dtype: torch.dtype | None) -> Tensor:
    if dtype is None or (dtype == torch.bfloat16 and a.is_cpu and not devices.cpu_has_bfloat16()):
        return a @ b
    return (a.to(dtype) @ b.to(dtype)).to(a.dtype)
