"""Memory files: what was learned survives the process; foreign and broken files are refused with nothing lost."""

from __future__ import annotations

import pytest
import torch

from neuro import memory_file, presets, tensor_file
from neuro.brain import Brain
from neuro.config import apply_sets
from neuro.errors import FormatError, MissingError, UsageError
from neuro.memory import contents
from neuro.session import Session
from neuro.transcript import Transcript


@pytest.fixture
def brain() -> Brain:
    torch.manual_seed(0)
    return Brain(presets.tiny().brain).eval()


def learned(brain: Brain) -> Session:
    session = Session(brain)
    session.feed(torch.arange(40).unsqueeze(0))
    session.commit()
    return session


def test_a_memory_round_trips_and_changes_the_prediction_in_the_same_way(brain, tmp_path):
    session, path = learned(brain), tmp_path / "memory.safetensors"
    assert memory_file.save(path, brain, session.state) > 0
    cue = torch.arange(5).unsqueeze(0)
    fresh = Session(brain)
    fresh.state, _ = memory_file.load(path, brain, fresh.state)
    memory = fresh.state.regions.hippocampus
    assert torch.equal(memory.keys, session.state.regions.hippocampus.keys)
    assert not torch.equal(fresh.feed(cue), Session(brain).feed(cue))


def test_another_models_memory_is_refused(brain, tmp_path):
    path = tmp_path / "memory.safetensors"
    memory_file.save(path, brain, learned(brain).state)
    torch.manual_seed(1)
    other = Brain(presets.tiny().brain).eval()
    with pytest.raises(FormatError, match="made by another model"):
        memory_file.load(path, other, other.init_state(1))


def test_truncated_foreign_and_missing_files_are_refused(brain, tmp_path):
    path = tmp_path / "memory.safetensors"
    memory_file.save(path, brain, learned(brain).state)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FormatError, match="not a whole safetensors file"):
        memory_file.load(path, brain, brain.init_state(1))
    with pytest.raises(MissingError, match="no such file"):
        memory_file.load(tmp_path / "none", brain, brain.init_state(1))


def test_uncommitted_tokens_and_brains_without_memory_are_refused(brain, tmp_path):
    session = Session(brain)
    session.feed(torch.arange(3).unsqueeze(0))
    with pytest.raises(UsageError, match="not committed"):
        memory_file.save(tmp_path / "m", brain, session.state)
    plain = Brain(apply_sets(presets.tiny().brain, ["hippocampus.enabled=false", "procedural.enabled=false"]))
    with pytest.raises(UsageError, match="this brain has none"):
        memory_file.save(tmp_path / "m", plain, plain.init_state(1))
    assert not (tmp_path / "m").exists()


def test_the_text_comes_along_and_empty_slots_stay_behind(brain, tmp_path):
    session, path = learned(brain), tmp_path / "m"
    transcript = Transcript(list(range(40)), [(0, "a.txt"), (30, "written")])
    memory_file.save(path, brain, session.state, transcript)
    state, again = memory_file.load(path, brain, brain.init_state(1))
    assert again == transcript
    for name, tensor in contents.held(session.state).items():
        assert torch.equal(contents.held(state)[name], tensor)
    empty = tmp_path / "empty"
    assert memory_file.save(empty, brain, brain.init_state(1)) == 0
    assert empty.stat().st_size < path.stat().st_size / 2
    assert not (memory_file.load(empty, brain, brain.init_state(1))[0].regions.hippocampus.strengths > 0).any()


def test_a_new_memory_needs_its_folder(brain, tmp_path):
    state, transcript = memory_file.open_or_new(tmp_path / "new", brain, brain.init_state(1))
    assert transcript == Transcript() and not state.regions.hippocampus.strengths.any()
    with pytest.raises(MissingError, match="its folder does not exist"):
        memory_file.open_or_new(tmp_path / "no" / "new", brain, brain.init_state(1))


@pytest.mark.parametrize(
    "broken",
    [{"sources": 3}, {"sources": [[1, 2, 3]]}, {"sources": [["a", "b"]]}, {"sources": [None]}, {"items": ["a"]}],
)
def test_a_broken_list_of_sources_or_items_is_named(brain, tmp_path, broken):
    path = tmp_path / "m"
    memory_file.save(path, brain, learned(brain).state)
    tensors, header = tensor_file.read(path, memory_file.SCHEMA)
    tensor_file.write(path, tensors, header | broken)
    with pytest.raises(FormatError, match="its list of sources, items or sleeps is broken"):
        memory_file.load(path, brain, brain.init_state(1))
