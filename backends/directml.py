"""The only door to torch_directml. Its own probe crashes off Windows and WSL, so it is asked in a process of its own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import torch

from backends import portable
from backends.contract import Backend
from backends.errors import BackendError

_PROBE = "import torch_directml as d; raise SystemExit(0 if d.is_available() else 9)"


def probe() -> tuple[bool, str]:
    """(usable, why). Never imports torch_directml in this process."""
    if importlib.util.find_spec("torch_directml") is None:
        return False, "the package torch_directml is not installed (pip install 'neuro-hybrid[directml]')"
    if sys.platform != "win32" and not Path("/dev/dxg").exists():
        return False, "DirectML needs Windows, or WSL with /dev/dxg"
    try:
        done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, f"its probe did not answer ({error})"
    if done.returncode != 0:
        return False, f"its probe ended with exit code {done.returncode}"
    return True, "a DirectX 12 device answers"


def select(dtype: torch.dtype | None) -> Backend:
    """The DirectML backend: portable operators, float32.

    Raises:
        BackendError: not usable here, or a dtype it does not have.
    """
    usable, why = probe()
    if not usable:
        raise BackendError(f"backend directml: {why}.", "Use --backend auto, or run on Windows with a DirectX 12 GPU.")
    if dtype not in (None, torch.float32):
        raise BackendError(f"backend directml: got {dtype} weights, expected float32.", "Leave the dtype out.")
    import torch_directml

    return Backend(
        "directml",
        torch_directml.device(),
        torch.float32,
        portable.OPS,
        f"directml was asked for and {why}; its operators need no scatter",
        scatter_free=True,
    )
