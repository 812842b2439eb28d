"""Operators for devices with gather and scatter (CPU, CUDA): time loops with hand-written backward, fused attention.

On a CPU the time loops run in the C++ library (`backends.kernels.cpu`) where it was built; without it the spiking one runs
in numba (`backends.kernels.lif_numba`) where that is installed. On a CUDA device they run in Triton (`backends.kernels.cuda`)
where that starts a kernel.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from backends import lif, portable
from backends.contract import LifRule, Ops, check_affine_scan, check_lif_scan
from backends.kernels import cpu, cuda, lif_numba
from backends.kernels.spikes import PackedWeight

# Channels of a token (B * D) from which a CPU is quicker with a loop over tokens than with two levels, whose sweeps then
# fall out of the cache: equal at 2,048, twice as quick at 8,192 (benchmarks/affine_scan.py).
_WIDE = 2048

# Rows that are summed in one product. For one to three tokens BLAS adds all rows one after the other: over a vocabulary of
# 8,192 the rounding grows to 1.4e-5 of the largest sum, in parts of 512 to 5e-7 in the same time.
_SUMMED_AT_ONCE = 512


class _PerTokenAffineScan(torch.autograd.Function):
    # The loop writes into one buffer; the backward is the same recurrence run towards the past.
    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, h0: Tensor) -> Tensor:  # type: ignore[override]
        h = torch.empty_like(b, memory_format=torch.contiguous_format)
        previous = h0
        for t in range(a.shape[0]):
            previous = torch.addcmul(b[t], a[t], previous, out=h[t])
        ctx.save_for_backward(a, h, h0)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        a, h, h0 = ctx.saved_tensors
        grad_b = torch.empty_like(h)
        grad_b[-1] = grad[-1]
        for t in range(a.shape[0] - 2, -1, -1):
            torch.addcmul(grad[t], a[t + 1], grad_b[t + 1], out=grad_b[t])
        grad_a = torch.empty_like(h)
        torch.mul(grad_b[1:], h[:-1], out=grad_a[1:])
        torch.mul(grad_b[0], h0, out=grad_a[0])
        return grad_a, grad_b, grad_b[0] * a[0]


def per_token_affine_scan(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    """`affine_scan` with one operator a token: for rows so wide that starting an operator costs nothing beside it."""
    return _PerTokenAffineScan.apply(a, b, h0)


def affine_scan(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    check_affine_scan(a, b, h0)
    if a.shape[0] > 1 and cpu.runs(a, b, h0):
        return cpu.affine_scan(a, b, h0)
    if a.shape[0] > 1 and a.device.type == "cpu" and h0.numel() > _WIDE:
        return per_token_affine_scan(a, b, h0)
    if a.shape[0] > 1 and cuda.runs(a, b, h0):
        return cuda.affine_scan(a, b, h0)
    return portable.affine_scan(a, b, h0)


def lif_scan(
    current: Tensor, v0: Tensor, decay: float | Tensor, threshold: float | Tensor, rule: LifRule
) -> tuple[Tensor, Tensor]:
    check_lif_scan(current, v0, decay, threshold)
    if cpu.runs(current, v0):
        return cpu.lif_scan(current, v0, decay, threshold, rule)
    if lif_numba.runs(current, v0, decay, threshold, rule):
        return lif_numba.lif_scan(current, v0, decay, threshold, rule)
    if cuda.runs(current, v0, decay, threshold):
        return cuda.lif_scan(current, v0, decay, threshold, rule)
    if current.shape[0] == 1:
        return portable.lif_scan(current, v0, decay, threshold, rule)
    return lif.lif_scan(current, v0, decay, threshold, rule)


def embed(ids: Tensor, weight: Tensor) -> Tensor:
    return F.embedding(ids, weight)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if cpu.multiplies(x, weight, bias):
        return cpu.product(x, weight, bias)
    return F.linear(x, weight, bias)


def spike_linear(spikes: Tensor, weight: Tensor, packed: PackedWeight | None) -> Tensor:
    from backends import spike_linear as events  # which stands on this module

    return events.spike_linear(spikes, weight, None, packed)


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))


def take_rows(source: Tensor, index: Tensor) -> Tensor:
    return source.gather(1, index.unsqueeze(-1).expand(-1, -1, source.shape[-1]))


def write_rows(memory: Tensor, index: Tensor, rows: Tensor, keep: Tensor) -> Tensor:
    old = take_rows(memory, index)
    rows = torch.where(keep.unsqueeze(-1), rows, old)
    return memory.scatter(1, index.unsqueeze(-1).expand_as(rows), rows)


def tally(shares: Tensor, ids: Tensor, width: int) -> Tensor:
    index = ids.to(torch.int64).unsqueeze(1).expand_as(shares)
    return shares.new_zeros(*shares.shape[:2], width).scatter_add(2, index, shares)


def weighted_rows(shares: Tensor, weight: Tensor) -> Tensor:
    if not shares.is_cpu:
        return shares @ weight
    parts = zip(shares.flatten(0, 1).split(_SUMMED_AT_ONCE, 1), weight.split(_SUMMED_AT_ONCE), strict=True)
    sums = torch.stack([part @ rows for part, rows in parts])
    return sums.sum(0).unflatten(0, shares.shape[:2])


OPS = Ops(
    "native",
    embed,
    linear,
    spike_linear,
    affine_scan,
    lif_scan,
    attention,
    take_rows,
    write_rows,
    tally,
    weighted_rows,
)
