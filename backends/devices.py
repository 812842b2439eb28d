"""What torch itself finds on this machine: cuda, xpu and mps by `torch.accelerator`, and before torch 2.6 by their own modules.

Asking never raises: whatever a driver throws or warns of is the reason why the device is not here.
"""

from __future__ import annotations

import platform
import warnings
from pathlib import Path
from typing import NamedTuple

import torch

ACCELERATORS = ("cuda", "xpu", "mps")  # in the order in which "auto" takes them
_CALLED = {"cuda": "a CUDA device", "xpu": "an XPU", "mps": "Metal"}


class Found(NamedTuple):
    """The devices of one kind: their own names, empty where there is none, and why."""

    names: tuple[str, ...]
    reason: str


def find(kind: str) -> Found:
    """The devices of one of `ACCELERATORS`."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            count = _count(kind)
            names = tuple(_name(kind, index) for index in range(count))
        except Exception as error:  # noqa: BLE001 - a broken driver may fail in any way; it must not take the CPU along
            return Found((), f"asking for {_CALLED[kind]} failed ({_line(error)})")
    if names:
        return Found(names, f"{', '.join(dict.fromkeys(names))} answer{'s' if len(names) == 1 else ''}")
    if kind == "cuda" and not torch.backends.cuda.is_built():
        return Found((), "this torch was built without CUDA")
    because = f" ({_line(told[0].message)})" if told else ""
    return Found((), f"torch does not find {_CALLED[kind]}{because}")


def _count(kind: str) -> int:
    accelerator = getattr(torch, "accelerator", None)
    if accelerator is not None:
        current = accelerator.current_accelerator()
        if current is not None and current.type == kind:
            return accelerator.device_count() if accelerator.is_available() else 0
    if kind == "mps":
        return int(torch.backends.mps.is_available())
    module = getattr(torch, kind, None)
    return module.device_count() if module is not None and module.is_available() else 0


def _name(kind: str, index: int) -> str:
    return "Metal" if kind == "mps" else str(getattr(torch, kind).get_device_name(index))


def _line(message: object) -> str:
    return " ".join(str(message).split()) or type(message).__name__


def cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware: where it does not, torch does so 20 times slower than float32."""
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


def cpu_name() -> str:
    """The processor's model name, as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").split("\n"):
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
