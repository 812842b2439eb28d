"""Law of contiguity: what followed the moment that was just recalled, and was right, comes along; nothing else does."""

from __future__ import annotations

import pytest
import torch

from backends import reference, select
from neuro import recall, sleep
from neuro.layers.norm import normalize
from neuro.memory import contents
from neuro.memory.episodic import EpisodicMemory
from neuro.state import HippocampusState

ORIGINS = torch.tensor([[4.0, 5.0, 9.0, 10.0, 0.0]])
FILLED = torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0]])


def store(generator: int = 0) -> HippocampusState:
    random = torch.Generator().manual_seed(generator)
    keys, values = normalize(torch.randn(1, 5, 8, generator=random)), torch.randn(1, 5, 6, generator=random)
    nothing = torch.zeros(1)
    return HippocampusState(
        keys, values, FILLED.clone(), ORIGINS.clone(), nothing, keys[:, 0], nothing, values[:, 0], nothing
    )


@pytest.fixture(params=["reference", "cpu"])
def memory(request) -> EpisodicMemory:
    ops = reference.OPS if request.param == "reference" else select("cpu").ops
    return EpisodicMemory(6, 2, 2, 1e9, ops)


@pytest.mark.parametrize("recalled, follows", [(0, 1), (1, None), (2, 3), (3, None)])
def test_the_next_token_of_the_recalled_moment_comes_along(memory, recalled, follows):
    state = store()
    lift = memory.following(state.keys[:, recalled : recalled + 1], state.values[:, recalled : recalled + 1], state)
    expected = torch.zeros(1, 1, 5)
    if follows is not None:
        expected[0, 0, follows] = 1.0
    assert torch.allclose(lift, expected, atol=1e-5)


def test_as_much_as_that_moment_was_right(memory):
    state = store()
    came = state.values[:, :1] + 0.8 * state.values[:, 2:3]
    right = torch.nn.functional.cosine_similarity(came, state.values[:, :1], dim=-1)
    assert 0.1 < float(right) < 0.99
    assert torch.allclose(memory.following(state.keys[:, :1], came, state)[..., 1], right, atol=1e-5)
    assert not memory.following(state.keys[:, :1], -state.values[:, :1], state).any(), "what came was its opposite"


def test_of_equal_moments_the_newest_is_followed(memory):
    state = store()
    state.keys[0, 2] = state.keys[0, 0] * (1.0 - 2e-7)  # equal but for rounding
    lift = memory.following(state.keys[:, :1], state.values[:, 2:3], state)
    assert lift[0, 0].nonzero().flatten().tolist() == [3]


def test_an_empty_store_has_no_neighbours(memory):
    state = store()._replace(strengths=torch.zeros(1, 5))
    lift = memory.following(state.keys[:, :1], state.values[:, :1], state)
    assert not lift.any()


def test_a_neighbour_is_read_although_its_own_key_is_far(memory):
    state = store()
    query = state.keys[:, 2:3]
    lift = 3.0 * memory.following(state.keys[:, :1], state.values[:, :1], state)
    _, near, alone = memory.scores(query, state.keys, state.strengths)
    score, cosine, chosen = memory.scores(query, state.keys, state.strengths, lift)
    assert chosen[0, 0, 1] and score[0, 0].argmax() == 1
    assert not alone[0, 0, 1]
    assert torch.equal(near, cosine), "novelty is that of the moment itself"
    content, evidence, novelty, _ = memory.read(query, state.keys, state.values, state.strengths, lift)
    plain = memory.read(query, state.keys, state.values, state.strengths)
    assert torch.nn.functional.cosine_similarity(content, state.values[:, 1:2], dim=-1) > 0.99
    assert torch.equal(novelty, plain[2]) and evidence <= plain[1], "a neighbour is no nearer for being one"


def test_an_event_that_begins_is_not_led_into(memory):
    state = store()._replace(begins=torch.tensor([[0.0, 1.0, 1.0, 0.0, 0.0]]))
    into, within = (memory.following(state.keys[:, m : m + 1], state.values[:, m : m + 1], state) for m in (0, 2))
    assert not into.any() and within[0, 0].nonzero().flatten().tolist() == [3], "from its beginning on it is one event"


SEGMENTS = ["hippocampus.controller=periodic", "hippocampus.contiguity=0.8", "hippocampus.segments=true"]


def surprised(brain, ids, at):
    """The state after the spans, had the tokens ``at`` been a great surprise and all others the same small one."""
    state = brain.init_state(1)
    for start in range(0, ids.shape[1], brain.config.plasticity_span):
        part = slice(start, min(start + brain.config.plasticity_span, ids.shape[1]))
        state = brain.scan(ids[:, part], state).state
        nats = state.buffer.valid.clone()
        for token in at:
            if part.start <= token < part.stop:
                nats[0, token - part.start] = 20.0
        state = brain.commit(state._replace(buffer=state.buffer._replace(surprise=nats)))[0]
    return state


@torch.no_grad()
def test_slots_keep_whether_surprise_said_that_an_event_began(tiny_brain, tokens):
    brain = tiny_brain(["hippocampus.slots=200", "hippocampus.writes_per_span=16", *SEGMENTS])
    state = surprised(brain, tokens(1, 150), at=(101, 130)).regions.hippocampus
    begun = (state.begins[0] > 0) & (state.strengths[0] > 0)
    assert sorted(state.origins[0, begun].tolist()) == [101.0, 130.0]


@torch.no_grad()
def test_logits_change_where_an_event_began_and_only_then(tiny_brain, tokens):
    """A passage again: what followed comes along everywhere but where it would lead into another event."""
    sets = ["hippocampus.slots=200", "hippocampus.writes_per_span=16", *SEGMENTS]
    plain, split = tiny_brain([*sets[:-1], "hippocampus.segments=false"]), tiny_brain(sets)
    split.load_state_dict(plain.state_dict())
    ids = tokens(1, 112)
    again = ids[:, 90:104]
    said = {}
    for name, at in (("none", ()), ("one", (101,))):
        said[name] = [brain.scan(again, surprised(brain, ids, at)).logits for brain in (plain, split)]
    assert torch.equal(*said["none"])
    moved = (said["one"][0] != said["one"][1]).any(-1)[0].nonzero().flatten().tolist()
    assert moved and moved[0] == 100 - 90, "what is recalled there is what came next"


@torch.no_grad()
def test_beginnings_are_held_and_swapped_with_the_memory_and_freed_with_their_slots(tiny_brain, tokens):
    brain = tiny_brain(["hippocampus.slots=200", "hippocampus.writes_per_span=16", *SEGMENTS])
    one, two = (surprised(brain, tokens(1, 112, seed=seed), at=(101,)) for seed in (0, 1))
    swapped = contents.put(one, contents.held(two)).regions.hippocampus
    assert swapped.begins.any() and torch.equal(swapped.begins, two.regions.hippocampus.begins)
    assert torch.equal(swapped.segment.slow, one.regions.hippocampus.segment.slow), "that is activity"
    memory = one.regions.hippocampus
    begun = int(memory.begins[0].nonzero())
    newer = int((memory.origins[0] == memory.origins[0, begun] + 1).nonzero())
    for name in ("keys", "values"):
        getattr(memory, name)[0, begun] = getattr(memory, name)[0, newer]  # two moments of one key and one token
    after = sleep.sleep(brain, one, 1, replays=False)[0].regions.hippocampus
    assert not after.strengths[0, begun] and not after.begins[0, begun]


@pytest.mark.parametrize(
    "sets",
    [[], ["hippocampus.contiguity=0.8"], ["hippocampus.contiguity=0.8", "hippocampus.key_trace=0.6"], SEGMENTS[1:]],
)
def test_what_is_shown_as_recalled_is_what_was_read(sets, tiny_brain, tokens, drive):
    """The slots of `neuro.recall.explain`, each by its share, make the content that the last token read."""
    brain = tiny_brain(["hippocampus.controller=periodic", *sets])
    span = brain.config.plasticity_span
    ids = tokens(2, span + 5)
    ids[:, span:] = ids[:, 3:8]  # a passage again: its moments follow each other
    state = drive(brain, ids).state
    memory = state.regions.hippocampus
    content = torch.zeros_like(memory.values[0, 0])
    for item in recall.explain(brain, state, most=brain.config.hippocampus.slots):
        slot = ((memory.origins[0] == item.origin) & (memory.strengths[0] > 0)).nonzero().item()
        content += item.share * memory.values[0, slot]
    assert memory.last_content[0].any()
    assert torch.allclose(normalize(content), memory.last_content[0], atol=1e-5)
