"""What the Triton kernels share: which channels a program owns, where they lie, how a kernel is started.

A program owns a block of channels of one row and walks through time with their state in registers, an element a thread.
`EVERY` steps are read before the first of them is computed, so that no step waits for memory alone. Nothing but types and
rules is known when a kernel is compiled: no length, width or layout makes another one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

EVERY = 16  # steps that are read at a time; of the spiking loop also the steps between two membranes that are kept
_BLOCK = 64  # channels of a program
# Fused multiply-adds would round once where torch and the C++ loops round twice: another spike now and then.
FIXED = {"every": EVERY, "wide": _BLOCK, "num_warps": _BLOCK // 32, "enable_fp_fusion": False}


def kernel(function: Callable[..., None]) -> Any:
    """The function as a kernel that is compiled once for its types and for what is annotated as known."""
    given = inspect.signature(function).parameters.values()
    return triton.jit(do_not_specialize=[x.name for x in given if "constexpr" not in str(x.annotation)])(function)


@triton.jit
def block(width, blocks, wide: tl.constexpr):
    """(row, channels, which of them are there) of this program."""
    program = tl.program_id(0)
    channel = (program % blocks * wide + tl.arange(0, wide)).to(tl.int64)
    return (program // blocks).to(tl.int64), channel, channel < width


def fold(*tensors: Tensor) -> tuple[int, int, list[int]]:
    """(rows, channels of a row, three strides of each) of tensors [T,B,D]; rows without a gap between them are one long row."""
    _, batch, width = tensors[0].shape
    if all(batch == 1 or x.stride(1) == width * x.stride(2) for x in tensors):
        return 1, batch * width, [n for x in tensors for n in (x.stride(0), 0, x.stride(2))]
    return batch, width, [n for x in tensors for n in x.stride()]


def state_type(dtype: torch.dtype) -> tuple[torch.dtype, Any]:
    """(torch's, Triton's) type of the state of tensors of this type: half precision has a float32 state."""
    return (torch.float64, tl.float64) if dtype == torch.float64 else (torch.float32, tl.float32)


def like(x: Tensor) -> Tensor:
    """An empty tensor that lies in memory as ``x`` does, so that what follows need not transpose."""
    out = torch.empty_like(x)
    return out if out.stride(-1) == 1 else torch.empty_like(x, memory_format=torch.contiguous_format)


def launch(kernel: Any, like: Tensor, rows: int, width: int, *arguments: Any, **known: Any) -> None:
    """Start ``kernel`` for every block of channels, on the device of ``like``."""
    blocks = triton.cdiv(width, _BLOCK)
    with torch.cuda.device_of(like):
        kernel[(rows * blocks,)](*arguments, like.shape[0], width, blocks, **known, **FIXED)
