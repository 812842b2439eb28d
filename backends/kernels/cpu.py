"""The time loops and the product of decoding in C++ (`scan.cpp`), loaded with ctypes. Optional: `library` is None where it
was not built.

In the time loops tensors are time-first, [T,B,D]; any strides over time and batch, as the batch-first regions hand them
over.
"""

from __future__ import annotations

import ctypes
import functools
import math
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from backends.contract import LifRule
from backends.kernels import pages, shared_library, team
from backends.surrogate import KINDS

Constant = float | Tensor

_VERSION = 4  # kVersion of scan.cpp
_REALS = {torch.float32: "float32", torch.float64: "float64"}
_EVERY = 16  # steps between two membranes that the backward pass starts from again
_STREAM = 1 << 22  # bytes of an output that the caches would not keep
_FRESH = 1 << 25  # bytes above which glibc always gives memory that was never written to
_POINTER, _REAL, _INDEX = ctypes.c_void_p, ctypes.c_double, ctypes.c_int64


class _Rows(ctypes.Structure):
    _fields_ = (("data", _POINTER), ("token", _INDEX), ("batch", _INDEX))


class _Shape(ctypes.Structure):
    _fields_ = (("tokens", _INDEX), ("batch", _INDEX), ("width", _INDEX), ("threads", _INDEX))


class _Neuron(ctypes.Structure):
    _fields_ = (
        *((name, _POINTER) for name in ("decays", "thresholds", "fires")),
        *((name, _REAL) for name in ("decay", "threshold", "fire", "keep", "lift", "drop", "attach", "slope")),
        *((name, _INDEX) for name in ("kind", "delayed", "every", "stream")),
    )


_SIGNATURES = {
    "affine_scan": (_Rows, _Rows, _POINTER, _Rows, _Shape),
    "affine_scan_backward": (_Rows, _Rows, _Rows, _POINTER, _Rows, _Rows, _POINTER, _Shape),
    "lif_scan": (_Rows, _Rows, _POINTER, _POINTER, _Neuron, _Shape),
    "lif_scan_backward": (_Rows, _Rows, _Rows, _POINTER, _POINTER, _POINTER, _POINTER, _Neuron, _Shape),
    "product": (_POINTER, _POINTER, _POINTER, _POINTER, _INDEX, _INDEX, _INDEX),
}


@functools.cache
def library() -> ctypes.CDLL | None:
    """The built library, or None."""
    return team.lent(_load(Path(__file__).parent)[0])


def status() -> tuple[bool, str]:
    """(built and loaded, the file or why not)."""
    return library() is not None, _load(Path(__file__).parent)[1]


def _load(folder: Path) -> tuple[ctypes.CDLL | None, str]:
    functions = {
        f"neuro_{name}_{real}": (types, None) for name, types in _SIGNATURES.items() for real in _REALS.values()
    }
    return shared_library.load(folder, "scan", _VERSION, functions | team.SIGNATURE)


def runs(*tensors: Tensor) -> bool:
    """Whether the library is here and takes these tensors: time-first on the CPU, all float32 or all float64, no trace."""
    first = tensors[0].dtype
    fits = first in _REALS and all(x.dtype == first and x.device.type == "cpu" for x in tensors)
    return fits and tensors[0].dim() == 3 and not torch.compiler.is_compiling() and library() is not None


def _call(name: str, like: Tensor, *arguments: object) -> None:
    shape = _Shape(*like.shape, torch.get_num_threads())
    # ctypes releases the interpreter's lock for the call.
    getattr(library(), f"neuro_{name}_{_REALS[like.dtype]}")(*arguments, shape)


def multiplies(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether the library takes x [...,I] times weight [O,I]: a single row on the CPU, one type, no gradient, no trace."""
    if x.numel() != weight.shape[1] or weight.dtype not in _REALS or weight.device.type != "cpu":
        return False
    given = (x, weight) if bias is None else (x, weight, bias)
    if any(y.dtype != weight.dtype or y.device != weight.device or not y.is_contiguous() for y in given):
        return False
    graph = torch.is_grad_enabled() and any(y.requires_grad for y in given)
    return not (graph or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling()) and library() is not None


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(x [...,I], weight [O,I], bias [O] or None) -> [...,O], for tensors that `multiplies` accepts."""
    y = x.new_empty(*x.shape[:-1], weight.shape[0])
    at = None if bias is None else bias.data_ptr()
    call = getattr(library(), f"neuro_product_{_REALS[weight.dtype]}")
    call(weight.data_ptr(), x.data_ptr(), at, y.data_ptr(), *weight.shape, torch.get_num_threads())
    return y


def _rows(x: Tensor) -> _Rows:
    return _Rows(x.data_ptr(), x.stride(0), x.stride(1))


def _unit(x: Tensor) -> Tensor:
    """The tensor, or a copy whose channels lie side by side."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _like(x: Tensor) -> Tensor:
    """An empty tensor that lies in memory as ``x`` does, so that what follows need not transpose."""
    out = torch.empty_like(x)
    if out.stride(-1) != 1:
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
    if out.numel() * out.element_size() > _FRESH:
        pages.prefer(out)
    return out


class _AffineScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, h0: Tensor) -> Tensor:  # type: ignore[override]
        a, b, h0 = _unit(a), _unit(b), h0.contiguous()
        h = _like(b)
        _call("affine_scan", h, _rows(a), _rows(b), h0.data_ptr(), _rows(h))
        ctx.save_for_backward(a, h, h0)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        a, h, h0 = ctx.saved_tensors
        grad, grad_a, grad_b, grad_h0 = _unit(grad), _like(h), _like(h), torch.empty_like(h0)
        rows = (_rows(grad), _rows(a), _rows(h), h0.data_ptr(), _rows(grad_a), _rows(grad_b), grad_h0.data_ptr())
        _call("affine_scan_backward", h, *rows)
        return grad_a, grad_b, grad_h0


def affine_scan(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    """(a [T,B,D], b [T,B,D], h0 [B,D]) -> h [T,B,D], for tensors that `runs` accepts and `check_affine_scan` let pass."""
    return _AffineScan.apply(a, b, h0)


class _LifScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, current: Tensor, v0: Tensor, decay: Constant, threshold: Constant, rule: LifRule):  # type: ignore[override]
        current, v = _unit(current), v0.clone(memory_format=torch.contiguous_format)
        spikes = _like(current)
        tensors = _tensors(v, decay, threshold, rule)
        neuron = _neuron(current, decay, threshold, rule, tensors)
        checkpoint = None
        ctx.set_materialize_grads(False)
        if any(ctx.needs_input_grad):
            checkpoint = v.new_empty(-(-current.shape[0] // _EVERY), *v.shape)
            ctx.save_for_backward(current, checkpoint, *tensors)
            ctx.neuron, ctx.shapes = neuron, [x.shape if isinstance(x, Tensor) else None for x in (decay, threshold)]
        at = None if checkpoint is None else checkpoint.data_ptr()
        _call("lif_scan", spikes, _rows(current), _rows(spikes), v.data_ptr(), at, neuron)
        return spikes, v

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_spikes: Tensor | None, grad_v: Tensor | None):  # type: ignore[override]
        current, checkpoint, *tensors = ctx.saved_tensors
        grad_spikes = torch.zeros_like(current) if grad_spikes is None else _unit(grad_spikes)
        grad = _like(current)
        if grad_v is None:
            grad_v = current.new_zeros(current.shape[1:])
        else:
            grad_v = grad_v.clone(memory_format=torch.contiguous_format)
        learned = [torch.zeros_like(grad_v) for _ in tensors[:2]]
        rows = (_rows(grad_spikes), _rows(current), _rows(grad), grad_v.data_ptr(), checkpoint.data_ptr())
        _call("lif_scan_backward", grad, *rows, *(_pointers(learned) or (None, None)), ctx.neuron)
        if not learned:
            return grad, grad_v, None, None, None
        sums = [None if n is None else g.sum_to_size(n) for n, g in zip(ctx.shapes, learned, strict=True)]
        return grad, grad_v, *sums, None


def _pointers(tensors: list[Tensor]) -> list[int]:
    return [x.data_ptr() for x in tensors]


def _tensors(v: Tensor, decay: Constant, threshold: Constant, rule: LifRule) -> list[Tensor]:
    """decay, threshold and the least membrane that fires, each laid out as ``v`` is; none where both are numbers."""
    if not isinstance(decay, Tensor) and not isinstance(threshold, Tensor):
        return []
    found = [torch.as_tensor(x, dtype=v.dtype).expand(v.shape).contiguous() for x in (decay, threshold)]
    return [*found, found[1].nextafter(v.new_tensor(math.inf)) if rule.strict else found[1]]


@functools.lru_cache
def _least(threshold: float, dtype: torch.dtype, strict: bool) -> float:
    """The least membrane of this type that fires."""
    least = torch.tensor(threshold, dtype=dtype)
    return (least.nextafter(least.new_tensor(math.inf)) if strict else least).item()


def _neuron(like: Tensor, decay: Constant, threshold: Constant, rule: LifRule, tensors: list[Tensor]) -> _Neuron:
    numbers = (0.0, 0.0, 0.0) if tensors else (decay, threshold, _least(float(threshold), like.dtype, rule.strict))
    return _Neuron(
        *(_pointers(tensors) or (None, None, None)),
        *numbers,
        0.0 if rule.reset == "hard" else 1.0,
        rule.v_reset,
        1.0 if rule.reset == "soft" else 0.0,
        0.0 if rule.detach_reset else 1.0,
        rule.surrogate.slope,
        KINDS.index(rule.surrogate.kind),
        rule.delayed,
        _EVERY,
        like.numel() * like.element_size() > _STREAM,
    )


def lif_scan(current: Tensor, v0: Tensor, decay: Constant, threshold: Constant, rule: LifRule) -> tuple[Tensor, Tensor]:
    """As `backends.contract.Ops.lif_scan`, for tensors that `runs` accepts."""
    return _LifScan.apply(current, v0.expand(current.shape[1:]), decay, threshold, rule)
