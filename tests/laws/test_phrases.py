"""Laws of the phrase code: the same last words in the same order are one phrase, whatever else was read; others are not."""

from __future__ import annotations

import pytest
import torch

import backends
from neuro import recall, sleep
from neuro.layers.norm import normalize
from neuro.memory import contents, phrases
from neuro.memory.episodic import EpisodicMemory
from neuro.memory.phrases import LENGTH, Phrases, match
from neuro.state import tree_map

ON = ["hippocampus.phrase=0.8", "hippocampus.slots=256"]


def last(ids: list[int]) -> torch.Tensor:
    """The phrase [1,W] at the end of these tokens."""
    code = Phrases()
    tokens = torch.tensor([ids])
    return code.scan(tokens, torch.ones(tokens.shape), code.init_state(1, torch.device("cpu")))[0][:, -1]


def alike(a: list[int], b: list[int]) -> float:
    return float(match(last(a).unsqueeze(1), last(b).unsqueeze(1)))


def test_a_phrase_is_its_last_words_in_their_order():
    said = [7, 401, 90, 5000, 12]
    assert alike([1, 2, 3, *said], [8, 9, *said]) > 0.2, "whatever came before"
    assert alike(said, said) == pytest.approx(1.0, abs=1e-5)
    assert alike(said, said[::-1]) == 0.0, "order counts"
    assert alike(said, [*said, 3]) == 0.0, "one word more is another moment"
    assert alike(said, [*said[:-1], 13]) == 0.0, "the last word counts most"


def test_more_words_in_common_are_closer():
    texts = [[100 + i for i in range(20 - n)] + [7000 + i for i in range(n)] for n in range(1, LENGTH + 1)]
    shared = [alike(text, [50 + i for i in range(20)] + text[-n:]) for n, text in enumerate(texts, 1)]
    assert shared == sorted(shared) and shared[2] == 0.0 < shared[4] < shared[-1]
    assert shared[-1] == pytest.approx(1.0, abs=1e-5)


def test_of_ten_thousand_words_no_two_are_taken_for_one():
    codes = Phrases().code(torch.arange(10_000).unsqueeze(0))[0]
    units = torch.nn.functional.normalize(codes, dim=-1)
    closest = (units[::5] @ units.T - torch.eye(10_000)[::5]).amax()
    assert float(closest) < phrases.CLOSE


def test_a_cast_brain_has_the_same_codes(tiny_brain):
    ids = torch.tensor([[3, 200, 9_999]])
    assert torch.equal(Phrases().to(torch.bfloat16).code(ids), Phrases().code(ids))
    assert not any(name.startswith("regions.hippocampus.phrases") for name in tiny_brain(ON).state_dict())


def test_padding_is_no_word():
    code = Phrases()
    fresh = code.init_state(1, torch.device("cpu"))
    padded, _ = code.scan(torch.tensor([[0, 0, 5, 6]]), torch.tensor([[0.0, 0.0, 1.0, 1.0]]), fresh)
    alone, _ = code.scan(torch.tensor([[5, 6]]), torch.ones(1, 2), fresh)
    assert torch.equal(padded[:, -2:], alone[:, -2:])
    assert not padded[:, :3].any(), "before its first word a stream has no phrase"


def test_words_that_stand_again_recall_what_followed_them(tiny_brain, tokens, drive):
    """A phrase of seven words among 200 others, then other text, then the phrase: its next word is what is recalled first."""
    brain = tiny_brain(ON)
    said, value = [3, 17, 29, 11, 31, 8, 22], 5
    text = tokens(1, 200)[0].tolist()
    read = [*text[:60], *said, value, *text[60:], *said]
    state = drive(brain, torch.tensor([read])).state
    first = recall.explain(brain, state, 1)[0]
    assert first.origin == 60 + len(said)
    assert first.same_words is not None and first.same_words > 0.5 and abs(first.cosine) <= 1.0 + 1e-6
    turned = [*text[:60], *said, value, *text[60:], *said[::-1]]
    assert recall.explain(brain, drive(brain, torch.tensor([turned])).state, 1)[0].origin != first.origin


def test_what_the_same_words_led_to_is_recalled_louder_and_nothing_else_is():
    memory = EpisodicMemory(width=5, top_k=2, writes=2, half_life_tokens=1e9, ops=backends.select("cpu").ops)
    draw = torch.Generator().manual_seed(1)
    query, keys = (normalize(torch.randn(1, n, 4, generator=draw)) for n in (1, 3))
    values, strengths = torch.randn(1, 3, 5, generator=draw), torch.ones(1, 3)
    plain = memory.read(query, keys, values, strengths)
    matches = torch.tensor([[[1.0, phrases.SURE, 0.0]]])
    told = memory.read(query, keys, values, strengths, gain=phrases.gain(matches))
    score, _, chosen = memory.scores(query, keys, strengths)
    assert chosen[0, 0, 0], "the draw must have the louder slot among the best"
    share = (torch.softmax(score, -1) * chosen)[..., :1]
    torch.testing.assert_close(told.content, plain.content + phrases.GAIN * share * values[:, :1])
    assert torch.equal(told.evidence, plain.evidence) and torch.equal(told.novelty, plain.novelty)


def test_phrases_are_held_swapped_and_emptied_with_the_memory(tiny_brain, tokens, drive):
    brain = tiny_brain(ON)
    one, two = (drive(brain, tokens(1, 64, seed=seed)).state for seed in (0, 1))
    assert torch.equal(contents.held(one)["phrases"], one.regions.hippocampus.phrases)
    swapped = contents.put(one, contents.held(two))
    assert torch.equal(swapped.regions.hippocampus.phrases, two.regions.hippocampus.phrases)
    assert torch.equal(swapped.regions.hippocampus.last_codes, one.regions.hippocampus.last_codes), "that is activity"
    ids, off = tokens(1, 16, seed=2), contents.emptied(one, "episodic")
    never = tree_map(torch.clone, off)
    never = never._replace(
        regions=never.regions._replace(
            hippocampus=never.regions.hippocampus._replace(phrases=torch.zeros_like(off.regions.hippocampus.phrases))
        )
    )
    assert torch.equal(drive(brain, ids, off).logits, drive(brain, ids, never).logits)


def test_a_slot_that_is_merged_away_keeps_no_phrase(tiny_brain, tokens, drive):
    brain = tiny_brain(ON)
    state = drive(brain, tokens(1, 32)).state
    h = state.regions.hippocampus
    for name in ("keys", "values", "phrases"):
        getattr(h, name)[0, 3] = getattr(h, name)[0, 2]  # two moments of one key and one token
    slept, report = sleep.sleep(brain, state, 1, replays=False)
    after = slept.regions.hippocampus
    gone = (h.strengths[0] > 0) & (after.strengths[0] == 0)
    assert report.merged == int(gone.sum()) >= 1
    assert not after.phrases[0, gone].any() and not after.keys[0, gone].any()
