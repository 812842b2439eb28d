"""Which backend: by name, or the first that is here."""

from __future__ import annotations

import dataclasses

import torch

from backends import devices, directml, native, portable
from backends.contract import Backend
from backends.devices import Found
from backends.errors import BackendError

NAMES = ("auto", "cpu", *devices.ACCELERATORS, "directml")
NO_FLOAT64 = ("xpu", "mps")  # no mps and not every xpu has it
NUMBERED = ("cuda", "xpu", "directml")  # a machine may have several


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
    for name in (*devices.ACCELERATORS, "directml"):
        found = directml.probe(directml.GLANCE_S) if name == "directml" else devices.find(name)
        device = {"directml": "privateuseone"}.get(name, name) if found.names else ""
        rows.append(Availability(name, bool(found.names), device, found.reason))
    return rows


def parse(name: str) -> tuple[str, int | None]:
    """A backend's name and its device's number: "cuda:1" -> ("cuda", 1), "cuda" -> ("cuda", None).

    Raises:
        BackendError: an unknown name, or a number that is none or belongs to no device.
    """
    kind, colon, number = name.partition(":")
    if kind not in NAMES:
        raise BackendError(f"backend: got '{name}', expected one of {', '.join(NAMES)}.", "Correct the name.")
    if not colon:
        return kind, None
    if kind not in NUMBERED:
        raise BackendError(f"backend: got '{name}', expected {kind} without a number.", f"Give it as {kind}.")
    if not (number.isascii() and number.isdigit()):
        raise BackendError(f"backend: got '{name}', expected a device's number after the colon.", f"Try {kind}:0.")
    return kind, int(number)


def select(name: str = "auto", dtype: torch.dtype | None = None) -> Backend:
    """The backend of that name with its frozen operator table.

    Args:
        name: one of `NAMES`; cuda, xpu and directml take a device's number, as in "cuda:1".
        dtype: type of the weights; None is float32 everywhere. Half precision is for products only (autocast).

    Raises:
        BackendError: an unknown name, a type that weights cannot have, or a device that is not here.
    """
    kind, index = parse(name)
    if kind != "directml" and dtype not in (None, torch.float32, torch.float64):
        raise BackendError(f"backend {kind}: got {dtype} weights, expected float32 or float64.", "Leave the dtype out.")
    if kind == "auto":
        return _auto(dtype)
    if kind == "cpu":
        return _cpu(dtype, "cpu was asked for")
    found = directml.probe() if kind == "directml" else devices.find(kind)
    if not found.names:
        elsewhere = "Use --backend auto, or run on Windows with a DirectX 12 GPU."
        do = elsewhere if kind == "directml" else "Use --backend auto; 'neuro doctor' lists what is here."
        raise BackendError(f"backend {kind}: {found.reason}.", do)
    if index is not None and index >= len(found.names):
        last = f"{kind}:{len(found.names) - 1}"
        got = f"backend {name}: got device {index}, expected at most {len(found.names) - 1}: {found.reason}."
        raise BackendError(got, f"Use {kind}:0." if len(found.names) == 1 else f"Use {kind}:0 to {last}.")
    return _device(kind, index, found, f"{name} was asked for; {found.reason}", dtype)


def _auto(dtype: torch.dtype | None) -> Backend:
    passed_over = ""
    for kind in devices.ACCELERATORS:
        found = devices.find(kind)
        if not found.names:
            continue
        if dtype != torch.float64 or kind not in NO_FLOAT64:
            return _device(kind, None, found, f"auto: {found.reason}", dtype)
        passed_over = f"; {kind} has no float64"
    return _cpu(dtype, f"auto: no CUDA device ({devices.find('cuda').reason}){passed_over}; the CPU is always here")


def _cpu(dtype: torch.dtype | None, reason: str) -> Backend:
    autocast = torch.bfloat16 if devices.cpu_has_bfloat16() else None
    device = torch.device("cpu")
    return Backend("cpu", device, dtype or torch.float32, native.OPS, reason, devices.cpu_name(), autocast=autocast)


def _device(kind: str, index: int | None, found: Found, reason: str, dtype: torch.dtype | None) -> Backend:
    hardware = found.names[index or 0]
    if kind == "directml":
        return directml.make(index or 0, hardware, reason, dtype)
    device = torch.device(kind) if index is None else torch.device(kind, index)
    if kind == "cuda":
        autocast = torch.bfloat16 if torch.cuda.is_bf16_supported() else None
        return Backend(kind, device, dtype or torch.float32, native.OPS, reason, hardware, autocast=autocast)
    # xpu and mps run the plain torch operators of the portable table.
    return Backend(kind, device, dtype or torch.float32, portable.OPS, reason, hardware, fp64=kind not in NO_FLOAT64)
