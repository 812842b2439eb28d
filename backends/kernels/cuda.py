"""The time loops in Triton (`affine_triton`, `lif_triton`) on a CUDA device. Optional: torch's CUDA wheels for Linux bring
Triton along; where it is not here, or cannot start a kernel, torch operators do the same.

A kernel is compiled when it is first started, for its types and its rule, a second or more each.
"""

from __future__ import annotations

import functools
import importlib.util
import os

import torch
from torch import Tensor

from backends.contract import LifRule

Constant = float | Tensor

_REALS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_OLDEST = (8, 0)  # of the devices that the kernels are compiled for in the tests
_VERSION = (3, 3)  # of Triton: before, a kernel has no tuples


def status(index: int | None = None) -> tuple[bool, str]:
    """(whether the kernels run on that CUDA device, in words). Asking never raises."""
    if importlib.util.find_spec("triton") is None:
        return False, "triton is not installed"
    if torch.version.cuda is None or not torch.cuda.is_available():
        return False, "triton is installed, and there is no CUDA device"
    return _started(torch.cuda.current_device() if index is None else index)


@functools.cache
def _started(index: int) -> tuple[bool, str]:
    """Whether that device runs a first kernel: Triton may want a compiler or a driver that is not here."""
    if os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"):
        return False, "TRITON_INTERPRET is set: kernels would run on the CPU"
    found = torch.cuda.get_device_capability(index)
    if found < _OLDEST:
        return False, f"the device has compute capability {found[0]}.{found[1]}, older than {_OLDEST[0]}.{_OLDEST[1]}"
    try:
        import triton

        version = triton.__version__
        if tuple(int(x) for x in version.split(".")[:2]) < _VERSION:
            return False, f"triton {version} is older than {_VERSION[0]}.{_VERSION[1]}"
        one = torch.ones(2, 1, 1, device=torch.device("cuda", index))
        right = _affine(one, one, one[0]).flatten().tolist() == [2.0, 3.0]
    except Exception as error:  # noqa: BLE001 - a driver or a compiler may fail in any way; torch operators remain
        return False, f"a kernel does not start: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return right, f"triton {version}" if right else f"triton {version} computes something else"


def runs(current: Tensor, *others: Constant) -> bool:
    """Whether the kernels take these: on one CUDA device where they start, one type, not empty, no trace."""
    if current.device.type != "cuda" or torch.compiler.is_compiling() or torch.version.cuda is None:
        return False
    tensors = [x for x in others if isinstance(x, Tensor)]
    if any(x.dtype != current.dtype or x.device != current.device for x in tensors) or current.dtype not in _REALS:
        return False
    return current.numel() > 0 and status(current.device.index)[0]


def _affine(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    from backends.kernels import affine_triton

    return affine_triton.affine_scan(a, b, h0)


def affine_scan(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    """(a [T,B,D], b [T,B,D], h0 [B,D]) -> h [T,B,D], for tensors that `runs` accepts and `check_affine_scan` let pass."""
    return _affine(a, b, h0)


def lif_scan(current: Tensor, v0: Tensor, decay: Constant, threshold: Constant, rule: LifRule) -> tuple[Tensor, Tensor]:
    """As `backends.contract.Ops.lif_scan`, for tensors that `runs` accepts."""
    from backends.kernels import lif_triton

    return lif_triton.lif_scan(current, v0, decay, threshold, rule)
