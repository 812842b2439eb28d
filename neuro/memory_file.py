"""The memories of one stream on disk, episodic and procedural: what `neuro run --memory FILE` loads and saves."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from neuro import folder, tensor_file
from neuro.brain import Brain
from neuro.errors import FormatError, UsageError
from neuro.state import BrainState, HippocampusState, ProceduralState

SCHEMA = "neuro.memory/1"


def save(path: str | Path, brain: Brain, state: BrainState) -> int:
    """Write the memories -> how many episodes they hold. What is in the span buffer is not memory yet: commit first.

    Raises:
        UsageError: uncommitted tokens, or a brain without memories.
        NeuroError: the file cannot be written.
    """
    tensors = _memories(brain, state)
    if int(state.clock):
        raise UsageError(f"memory: {int(state.clock)} tokens are not committed.", "Commit before saving.")
    filled = int((tensors["strengths"] > 0).sum()) if "strengths" in tensors else 0
    header = {"schema": SCHEMA, "model": folder.fingerprint(brain), "filled": filled}
    tensor_file.write(path, tensors, header)
    return filled


def load(path: str | Path, brain: Brain, state: BrainState) -> BrainState:
    """``state`` with the memory of a file; activity (membranes, window, recurrence) stays as it was.

    Raises:
        MissingError, FormatError: no such file; truncated, foreign, or written by another model.
    """
    expected = _memories(brain, state)
    tensors, header = tensor_file.read(path, SCHEMA)
    if header.get("model") != folder.fingerprint(brain):
        raise FormatError(
            f"{path}: this memory was made by another model.", "Use the model that wrote it, or another memory file."
        )
    tensor_file.check_shapes(tensors, expected, str(path))
    moved: dict[str, Tensor] = {name: tensors[name].to(now) for name, now in expected.items()}
    memory, cortex = state.regions.hippocampus, state.regions.cortex
    if isinstance(cortex.procedural, ProceduralState):
        fast = moved.pop("fast")
        cortex = cortex._replace(procedural=cortex.procedural._replace(fast=fast))
    if isinstance(memory, HippocampusState):
        memory = memory._replace(**moved)
    return state._replace(regions=state.regions._replace(hippocampus=memory, cortex=cortex))


def _memories(brain: Brain, state: BrainState) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    memory, procedural = state.regions.hippocampus, state.regions.cortex.procedural
    if isinstance(memory, HippocampusState):
        tensors |= {"keys": memory.keys, "values": memory.values, "strengths": memory.strengths}
    if isinstance(procedural, ProceduralState):
        tensors["fast"] = procedural.fast
    if not tensors:
        raise UsageError(
            "memory: this brain has none.", "Use a model with brain.hippocampus.enabled or brain.procedural.enabled."
        )
    return tensors
