"""The only door to torch_directml. Its own probe crashes off Windows and WSL, so it is asked in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import torch

from backends import portable
from backends.contract import Backend
from backends.devices import Found
from backends.errors import BackendError

_PROBE = (
    "import json, torch_directml as d; found = range(d.device_count()) if d.is_available() else (); "
    "print(json.dumps([d.device_name(i).strip(chr(0)) for i in found]))"
)
GLANCE_S, PATIENCE_S = 1.5, 60.0  # of a survey of this machine, and of the wait for what was asked for by name


def probe(patience_s: float = PATIENCE_S) -> Found:
    """The devices that DirectML has here. Never imports torch_directml in this process, and never raises.

    Args:
        patience_s: when to give up; importing torch on the other side alone takes a second or more.
    """
    if not _installed():
        return Found((), "the package torch_directml is not installed (docs/backends.md says how)")
    if sys.platform != "win32" and not Path("/dev/dxg").exists():
        return Found((), "DirectML needs Windows, or WSL with /dev/dxg")
    try:
        done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, timeout=patience_s, check=False)
    except subprocess.TimeoutExpired:
        return Found((), f"its probe did not answer within {patience_s:g} s; --backend directml waits longer")
    except OSError as error:
        return Found((), f"its probe did not start ({error})")
    if done.returncode != 0:
        return Found((), f"its probe ended with exit code {done.returncode}")
    try:
        names = tuple(str(name) for name in json.loads(done.stdout))
    except (ValueError, TypeError):
        return Found((), "its probe gave no list of devices")
    return Found(names, f"{', '.join(names)} answers" if names else "it finds no DirectX 12 device")


def _installed() -> bool:
    try:
        return importlib.util.find_spec("torch_directml") is not None
    except ValueError:  # put into sys.modules by hand
        return False


def make(index: int, hardware: str, reason: str, dtype: torch.dtype | None) -> Backend:
    """The backend of a device that answered: portable operators, float32, no autocast and no optimizer of torch's own.

    Raises:
        BackendError: a dtype that it does not have.
    """
    if dtype not in (None, torch.float32):
        raise BackendError(f"backend directml: got {dtype} weights, expected float32.", "Leave the dtype out.")
    import torch_directml

    return Backend(
        "directml",
        torch_directml.device(index),
        torch.float32,
        portable.OPS,
        f"{reason}; its operators need no scatter",
        hardware,
        scatter_free=True,
        fp64=False,
        torch_optimizers=False,
    )
