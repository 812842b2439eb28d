"""The transcript behind a memory's origins."""

from __future__ import annotations

import torch

from neuro import presets
from neuro.brain import Brain
from neuro.session import Session
from neuro.transcript import Transcript


def test_every_token_knows_its_source():
    transcript = Transcript()
    transcript.extend([5, 6, 7], "book.txt")
    transcript.extend([8], "written")
    transcript.extend([9, 10], "written")
    assert transcript.sources == [(0, "book.txt"), (3, "written")]
    assert [transcript.source(n) for n in (-1, 0, 2, 3, 5, 6)] == [
        "unknown", "book.txt", "book.txt", "written", "written", "unknown",
    ]  # fmt: skip


def test_around_is_cut_at_both_ends():
    transcript = Transcript(list(range(10)), [(0, "a")])
    assert transcript.around(4, 2, 3) == ([2, 3], [4, 5, 6])
    assert transcript.around(1, 5, 2) == ([0], [1, 2])
    assert transcript.around(9, 1, 5) == ([8], [9])


def test_a_session_keeps_it_in_step_with_the_origins_of_its_memories(tiny_brain, tokens):
    brain = tiny_brain(["endocrine.enabled=false", "hippocampus.slots=64"])  # what a token is relayed as never changes
    session, ids = Session(brain, transcript=Transcript()), tokens(1, 45)
    session.feed(ids[:, :21], source="first")
    session.feed(ids[:, 21:], source="second")
    session.commit()
    transcript, memory = session.transcript, session.state.regions.hippocampus
    assert transcript is not None and transcript.ids == ids[0].tolist()
    filled = memory.strengths[0] > 0
    assert int(memory.position) == 45 and int(filled.sum()) == 44
    stored = torch.tensor([transcript.ids[int(origin)] for origin in memory.origins[0][filled]])
    with torch.no_grad():
        embedded = brain.embedding[stored].unsqueeze(0) * brain.config.d_model**0.5
        relay = brain.regions["thalamus"].scan({"embedding": embedded, "modulators~": torch.full((1, 5), 0.5)}, ())[0]
        expected = brain.regions["hippocampus"].value(relay["relay"])[0]
    assert torch.allclose(memory.values[0][filled], expected, atol=1e-5)


def test_a_reset_keeps_what_it_should():
    torch.manual_seed(0)
    brain = Brain(presets.tiny().brain).eval()
    session = Session(brain, transcript=Transcript())
    session.feed(torch.randint(0, 300, (1, 40)))
    session.reset(keep_memories=True)
    memory, fresh = session.state.regions, brain.init_state(1).regions
    assert (memory.hippocampus.strengths > 0).any() and memory.cortex.procedural.fast.any()
    assert torch.equal(memory.cortex.layers[0].mixer.h, fresh.cortex.layers[0].mixer.h)
    assert not memory.hippocampus.has_key.any() and not session.state.started.any()
    assert int(memory.hippocampus.position) == 40 == len(session.transcript.ids)
    session.reset(keep_memories=False)
    assert not (session.state.regions.hippocampus.strengths > 0).any()
    assert not session.state.regions.cortex.procedural.fast.any()
    assert session.transcript == Transcript()
