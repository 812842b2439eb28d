"""What every benchmark prints beside its numbers: hardware, versions, threads."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

import torch

from backends.devices import cpu_name

PACKAGES = ("torch", "numpy", "brian2", "onnxruntime", "tokenizers", "transformers", "neuro-hybrid")


def describe() -> dict[str, Any]:
    """Hardware and versions of this process."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "system": platform.system(),
        "versions": versions,
    }
