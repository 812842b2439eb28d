"""The episodic memory of one stream on disk: what `neuro run --memory FILE` loads and saves."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from neuro import folder, tensor_file
from neuro.brain import Brain
from neuro.errors import FormatError, UsageError
from neuro.state import BrainState, HippocampusState

SCHEMA = "neuro.memory/1"


def save(path: str | Path, brain: Brain, state: BrainState) -> int:
    """Write the filled slots -> how many. The state must be committed: what is in the span buffer is not memory yet.

    Raises:
        UsageError: uncommitted tokens, or a brain without a hippocampus.
        NeuroError: the file cannot be written.
    """
    memory = _memory(brain, state)
    if int(state.clock):
        raise UsageError(f"memory: {int(state.clock)} tokens are not committed.", "Commit before saving.")
    filled = int((memory.strengths > 0).sum())
    tensors = {"keys": memory.keys, "values": memory.values, "strengths": memory.strengths}
    header = {"schema": SCHEMA, "model": folder.fingerprint(brain), "filled": filled}
    tensor_file.write(path, tensors, header)
    return filled


def load(path: str | Path, brain: Brain, state: BrainState) -> BrainState:
    """``state`` with the memory of a file; activity (membranes, window, recurrence) stays as it was.

    Raises:
        MissingError, FormatError: no such file; truncated, foreign, or written by another model.
    """
    memory = _memory(brain, state)
    tensors, header = tensor_file.read(path, SCHEMA)
    if header.get("model") != folder.fingerprint(brain):
        raise FormatError(
            f"{path}: this memory was made by another model.", "Use the model that wrote it, or another memory file."
        )
    expected = {"keys": memory.keys, "values": memory.values, "strengths": memory.strengths}
    tensor_file.check_shapes(tensors, expected, str(path))
    moved: dict[str, Tensor] = {name: tensors[name].to(expected[name]) for name in expected}
    return state._replace(regions=state.regions._replace(hippocampus=memory._replace(**moved)))


def _memory(brain: Brain, state: BrainState) -> HippocampusState:
    if not isinstance(state.regions.hippocampus, HippocampusState):
        raise UsageError("memory: this brain has no hippocampus.", "Use a model with brain.hippocampus.enabled.")
    return state.regions.hippocampus
