"""Tensors with a JSON header in one safetensors file: never pickled, written atomically, checked when read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from neuro import atomic
from neuro.errors import FormatError, MissingError, NeuroError


def write(path: str | Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write ``tensors`` and a JSON-able ``header`` that must hold a ``schema``.

    Raises:
        NeuroError: the folder cannot be written, or the disk is full.
    """
    plain = {name: tensor.detach().to("cpu").contiguous().clone() for name, tensor in tensors.items()}
    with atomic.replacing(path) as temporary:
        try:
            save_file(plain, temporary, metadata={"neuro": json.dumps(header)})
        except (SafetensorError, OSError) as error:
            raise NeuroError(f"{path}: cannot write ({error}).", "Check the folder's permissions and space.") from error


def read(path: str | Path, schema: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, header) of a file that `write` made.

    Raises:
        MissingError: no such file.
        FormatError: truncated, foreign, or of another schema.
    """
    path = Path(path)
    if path.is_dir():
        raise MissingError(f"{path}: got a folder, expected a file.", "Name a file in it.")
    if not path.is_file():
        raise MissingError(f"{path}: no such file.", "Check the path.")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("neuro", "{}"))
            found = header.get("schema") if isinstance(header, dict) else header
            if found != schema or not isinstance(header, dict):
                raise FormatError(
                    f"{path}: got schema {found!r}, expected '{schema}'.",
                    "Give a file that this version of neuro wrote for this purpose.",
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise FormatError(
            f"{path}: not a whole safetensors file ({error}).", "It is truncated or foreign: use another copy."
        ) from error
    return tensors, header


def check_shapes(got: dict[str, Tensor], expected: dict[str, Tensor], where: str) -> None:
    """Compare names and shapes.

    Raises:
        FormatError: names what differs first.
    """
    for name, tensor in expected.items():
        if name not in got:
            raise FormatError(f"{where}: tensor '{name}' is missing.", "It belongs to another model or version.")
        if got[name].shape != tensor.shape:
            raise FormatError(
                f"{where}: '{name}' has shape {list(got[name].shape)}, expected {list(tensor.shape)}.",
                "It belongs to a model of another size.",
            )
    for name in got:
        if name not in expected:
            raise FormatError(f"{where}: unknown tensor '{name}'.", "It belongs to another model or version.")


def floats(tensors: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The same tensors with floating-point ones in ``dtype``."""
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
