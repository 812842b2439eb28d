"""One copy of the weights for several graphs: a graph's large tensors are read from another graph's file.

ONNX lets a tensor lie in another file at an offset, and the tensors of a saved graph lie in its file as plain bytes; so
`share` needs no third file, and the owner stays a graph that runs alone.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto

_LEAST_BYTES = 1024  # what is smaller stays inside


def share(path: Path, owner: Path) -> int:
    """Make the graph at ``path`` read every tensor that ``owner``, in the same folder, holds too -> bytes left out."""
    model, held = onnx.load(path), owner.read_bytes()
    saved = 0
    for tensor in model.graph.initializer:
        size = len(tensor.raw_data)
        offset = held.find(tensor.raw_data) if size >= _LEAST_BYTES else -1
        if offset < 0:
            continue
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", owner.name), ("offset", offset), ("length", size)):
            tensor.external_data.add(key=key, value=str(value))
        saved += size
    onnx.save(model, path)
    return saved
