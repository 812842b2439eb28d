"""Devices and operators. Decides once, at construction, what runs where; knows no brain.

``select("auto")`` prefers a CUDA device, else the CPU; DirectML, XPU and MPS are used when asked for by name.
"""

from __future__ import annotations

import dataclasses

import torch

from backends import directml, native, portable
from backends.contract import Backend, LifRule, Ops
from backends.errors import BackendError, ForbiddenOperatorError
from backends.surrogate import Surrogate

__all__ = [
    "NAMES",
    "Availability",
    "Backend",
    "BackendError",
    "ForbiddenOperatorError",
    "LifRule",
    "Ops",
    "Surrogate",
    "available",
    "select",
]

NAMES = ("auto", "cpu", "cuda", "xpu", "mps", "directml")


@dataclasses.dataclass(frozen=True)
class Availability:
    """One backend of this machine: usable or not, the device, and why."""

    name: str
    ok: bool
    device: str
    reason: str


def available() -> list[Availability]:
    """Every backend this build knows, with what stands in the way of those that cannot be used."""
    rows = [Availability("cpu", True, "cpu", f"always here; threads: {torch.get_num_threads()}")]
    for name in ("cuda", "xpu", "mps"):
        ok, device, reason = _probe_torch(name)
        rows.append(Availability(name, ok, device, reason))
    ok, reason = directml.probe()
    rows.append(Availability("directml", ok, "privateuseone" if ok else "", reason))
    return rows


def select(name: str = "auto", dtype: torch.dtype | None = None) -> Backend:
    """The backend of that name with its frozen operator table.

    Args:
        name: one of `NAMES`.
        dtype: type of the weights; None is float32 everywhere. Half precision is for products only (autocast).

    Raises:
        BackendError: an unknown name, a type that weights cannot have, or a device that is not here.
    """
    if name not in NAMES:
        raise BackendError(f"backend: got '{name}', expected one of {', '.join(NAMES)}.", "Correct the name.")
    if name == "directml":
        return directml.select(dtype)
    if dtype not in (None, torch.float32, torch.float64):
        raise BackendError(f"backend {name}: got {dtype} weights, expected float32 or float64.", "Leave the dtype out.")
    if name == "auto":
        ok, _, why = _probe_torch("cuda")
        if ok:
            return _cuda(dtype, f"auto: {why}")
        return _cpu(dtype, f"auto: no CUDA device ({why}); the CPU is always here")
    if name == "cpu":
        return _cpu(dtype, "cpu was asked for")
    ok, _, why = _probe_torch(name)
    if not ok:
        raise BackendError(f"backend {name}: {why}.", "Use --backend auto; 'neuro doctor' lists what is here.")
    if name == "cuda":
        return _cuda(dtype, f"cuda was asked for; {why}")
    # xpu and mps run the plain torch operators of the portable table.
    return Backend(name, torch.device(name), dtype or torch.float32, portable.OPS, f"{name} was asked for; {why}")


def _cpu(dtype: torch.dtype | None, reason: str) -> Backend:
    # bfloat16 products pay only where the CPU multiplies them in hardware.
    fast_bf16 = bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())
    autocast = torch.bfloat16 if fast_bf16 else None
    return Backend("cpu", torch.device("cpu"), dtype or torch.float32, native.OPS, reason, autocast=autocast)


def _cuda(dtype: torch.dtype | None, reason: str) -> Backend:
    bf16 = torch.cuda.is_bf16_supported()
    autocast = torch.bfloat16 if bf16 else None
    device = torch.device("cuda")
    return Backend("cuda", device, dtype or torch.float32, native.OPS, reason, autocast=autocast)


def _probe_torch(name: str) -> tuple[bool, str, str]:
    if name == "cuda":
        if not torch.backends.cuda.is_built():
            return False, "", "this torch was built without CUDA"
        if not torch.cuda.is_available():
            return False, "", "torch finds no CUDA device"
        return True, "cuda", f"{torch.cuda.get_device_name(0)} answers"
    if name == "mps":
        ok = torch.backends.mps.is_available()
        return ok, "mps" if ok else "", "Metal answers" if ok else "Metal is not here"
    ok = hasattr(torch, "xpu") and torch.xpu.is_available()
    return ok, "xpu" if ok else "", "an XPU answers" if ok else "torch finds no XPU"
