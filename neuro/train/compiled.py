"""The scan of a training step as compiled code: torch.compile (Ansel et al. 2024, doi:10.1145/3620665.3640366).

Compiled is what computes between a span's first token and its last; commits, evaluations and the trained brain are not. On a
CPU the time loops of `backends.kernels` give way to ones that the compiler unrolls, token by token: see docs/training.md for
what that costs and gains.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from neuro.brain import Brain
from neuro.errors import MissingError


@contextlib.contextmanager
def scans(brain: Brain, wanted: bool) -> Iterator[None]:
    """In training mode the brain scans by compiled code, if that is wanted, until the block ends.

    Raises:
        MissingError: nothing here that compiles for the brain's device.
    """
    if not wanted:
        yield
        return
    _check(brain.backend.device)
    plain = brain._scan
    fast = torch.compile(plain, dynamic=False)

    def scan(*given: Any) -> Any:
        if not brain.training:
            return plain(*given)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's tracer warns of what it does itself
            return fast(*given)

    vars(brain)["_scan"] = scan
    try:
        yield
    finally:
        del vars(brain)["_scan"]


def _check(device: torch.device) -> None:
    if device == torch.device("cpu"):
        names = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++"]
        if not any(shutil.which(name) for name in names):
            raise MissingError(
                f"train.compile: got no C++ compiler, expected {' or '.join(names)}.",
                "Install one, or set train.compile=false.",
            )
    elif importlib.util.find_spec("triton") is None:
        raise MissingError(
            f"train.compile: got no triton, which compiles for {device.type}, expected it beside torch.",
            "Install it, or set train.compile=false.",
        )
