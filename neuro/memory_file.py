"""The memories of one stream on disk, with the text they come from: what ``--memory FILE`` loads and saves."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from neuro import atomic, folder, tensor_file
from neuro.brain import Brain
from neuro.errors import FormatError, MissingError, UsageError
from neuro.memory import contents
from neuro.state import BrainState
from neuro.transcript import Transcript

SCHEMA = "neuro.memory/3"


def save(path: str | Path, brain: Brain, state: BrainState, transcript: Transcript | None = None) -> int:
    """Write the memories -> how many episodes they hold. What is in the span buffer is not memory yet: commit first.

    Raises:
        UsageError: uncommitted tokens, or a brain without memories.
        NeuroError: the file cannot be written.
    """
    tensors = _memories(state)
    if int(state.clock):
        raise UsageError(f"memory: {int(state.clock)} tokens are not committed.", "Commit before saving.")
    filled = int((tensors["strengths"] > 0).sum()) if "strengths" in tensors else 0
    transcript = transcript or Transcript()
    if "strengths" in tensors:  # the unfilled slots at the end hold nothing
        last = int((tensors["strengths"] > 0).any(0).nonzero().max()) + 1 if filled else 0
        tensors |= {name: tensors[name][:, :last] for name in contents.SLOTTED if name in tensors}
    header = {
        "schema": SCHEMA,
        "model": folder.fingerprint(brain),
        "filled": filled,
        "sources": transcript.sources,
        "items": [item.start for item in transcript.items()],
        "sleeps": transcript.sleeps,
    }
    tensor_file.write(path, tensors | {"transcript": torch.tensor(transcript.ids, dtype=torch.int32)}, header)
    return filled


def load(path: str | Path, brain: Brain, state: BrainState) -> tuple[BrainState, Transcript]:
    """``state`` with the memory of a file, and what its stream read; activity (membranes, window, recurrence) stays.

    Raises:
        MissingError, FormatError: no such file; truncated, foreign, or written by another model.
    """
    expected = _memories(state)
    tensors, header = tensor_file.read(path, SCHEMA)
    if header.get("model") != folder.fingerprint(brain):
        raise FormatError(
            f"{path}: this memory was made by another model.", "Use the model that wrote it, or another memory file."
        )
    ids = tensors.pop("transcript", torch.zeros(0, dtype=torch.int32))
    for name in contents.SLOTTED:
        if name in tensors and name in expected:
            missing = expected[name].shape[1] - tensors[name].shape[1]
            if missing > 0:
                rows = (tensors[name].shape[0], missing, *tensors[name].shape[2:])
                tensors[name] = torch.cat([tensors[name], tensors[name].new_zeros(rows)], 1)
    tensor_file.check_shapes(tensors, expected, str(path))
    try:
        sources = [(int(start), str(name)) for start, name in header.get("sources", [])]
        sleeps = [(int(after), int(rounds)) for after, rounds in header.get("sleeps", [])]
        transcript = Transcript(ids.tolist(), sources, [int(start) for start in header.get("items", [])], sleeps)
    except (TypeError, ValueError) as error:
        raise FormatError(
            f"{path}: its list of sources, items or sleeps is broken ({error}).", "It is foreign: use another copy."
        ) from error
    return contents.put(state, {name: tensors[name].to(now) for name, now in expected.items()}), transcript


def open_or_new(path: str | Path, brain: Brain, state: BrainState) -> tuple[BrainState, Transcript]:
    """`load` where there is a file, otherwise the state as it is and an empty transcript; the folder must be there.

    What is read next is an item of its own.

    Raises:
        MissingError: there is no folder to save into later.
        NeuroError: nothing can be written there.
        FormatError: as `load`.
        UsageError: a brain without memories.
    """
    _memories(state)
    if Path(path).exists():
        atomic.refuse_unwritable(path)
        state, transcript = load(path, brain, state)
        transcript.begin()
        return state, transcript
    if not Path(path).resolve().parent.is_dir():
        raise MissingError(f"--memory {path}: its folder does not exist.", "Make the folder first.")
    atomic.refuse_unwritable(path)
    return state, Transcript()


def _memories(state: BrainState) -> dict[str, Tensor]:
    tensors = contents.held(state)
    if not tensors:
        raise without_memories()
    return tensors


def without_memories() -> UsageError:
    """What is said of a brain that cannot remember."""
    return UsageError(
        "memory: this brain has none.", "Use a model with brain.hippocampus.enabled or brain.procedural.enabled."
    )
