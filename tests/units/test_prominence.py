"""Prosody from text: learned from sentences, causal where asked, stored, and laid on tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neuro.affect import channel, prominence
from neuro.affect.corpora import SpokenWord
from neuro.errors import FormatError, MissingError, UsageError

WORDS = ["the", "old", "house", "of", "a", "river"]
CONFIG = prominence.ProminenceConfig(len(WORDS), width=8, end_rows=64, end_width=4, hidden=16, dropout=0.0)


def lexicon() -> prominence.Lexicon:
    return prominence.Lexicon(WORDS, [9, 5, 4, 4, 3, 2], {"river": "10"})


def spoken() -> list[list[SpokenWord]]:
    loud = {"old", "house", "river"}
    random = np.random.default_rng(0)
    found = []
    for _ in range(40):
        some = [
            SpokenWord(w, int(w in loud) * 2, int(w == "house"), 2.0 * (w in loud), 0.0)
            for w in random.choice(WORDS, 5)
        ]
        found.append([*some, SpokenWord(".", None, None, None, None)])
    return found


@pytest.fixture(scope="module")
def speaker() -> prominence.Speaker:
    return prominence.Speaker(
        prominence.fit(CONFIG, lexicon(), spoken(), None, epochs=40, batch=8, rate=1e-2), lexicon()
    )


def test_it_learns_which_words_are_stressed_and_where_to_pause(speaker):
    (said,) = speaker.read([["the", "old", "house", "of", "river"]])
    assert (said.prominent > 0.5).tolist() == [False, True, True, False, True]
    assert said.boundary.argmax() == 2 and said.value[1] > 1.0 > said.value[0] >= 0.0


def test_the_same_seed_makes_the_same_network():
    one, other = (prominence.fit(CONFIG, lexicon(), spoken(), None, epochs=1) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_a_causal_reading_sees_no_word_to_come(speaker):
    one, other = ["the", "old", "house", "of"], ["the", "old", "river", "a"]
    causal = [np.stack(said)[:, :2] for said in speaker.read([one, other], causal=True)]
    whole = [np.stack(said)[:, :2] for said in speaker.read([one, other])]
    assert np.array_equal(*causal) and not np.array_equal(*whole)


def test_sentences_do_not_depend_on_their_batch(speaker):
    texts = [["the", "house"], ["old", "river", "of", "日本", "!"]]
    alone = [speaker.read([text])[0] for text in texts]
    for one, other in zip(speaker.read(texts), alone, strict=True):
        assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(one, other, strict=True))


def test_a_stored_network_says_the_same(speaker, tmp_path):
    prominence.save(speaker, tmp_path / "p.safetensors", {"seed": 0})
    other = prominence.load(tmp_path / "p.safetensors")
    (one,), (two,) = speaker.read([WORDS]), other.read([WORDS])
    assert np.allclose(one.prominent, two.prominent, atol=0.03) and other.lexicon.stress == {"river": "10"}


def test_stress_and_frequency_are_facts_of_a_word():
    river, other = lexicon().facts("River"), lexicon().facts("stone")
    assert river[:4] == [1.0, 1.0, 1.0, 0.0] and river[4] > other[4] == 0.0 and other[2:4] == [0.5, 0.5]


def test_empty_and_foreign_input_is_named(speaker, tmp_path):
    with pytest.raises(UsageError, match=r"prominence: got an empty sentence, expected words.\nLeave it out."):
        speaker.read([[]])
    with pytest.raises(UsageError, match="got no word with a prominence"):
        prominence.fit(CONFIG, lexicon(), [[]], None)
    with pytest.raises(UsageError, match=r"prosody: got a text without a word, expected some.\nGive a text."):
        channel.read(speaker, " \n")
    with pytest.raises(MissingError, match="no such file"):
        prominence.load(tmp_path / "none")
    (tmp_path / "torn").write_bytes(b"torn")
    with pytest.raises(FormatError, match="truncated or foreign"):
        prominence.load(tmp_path / "torn")


def pieces(text: str) -> list[bytes]:
    """Tokens of at most three bytes, a space before a word as byte-level tokenizers have it."""
    data = text.encode()
    return [data[i : i + 3] for i in range(0, len(data), 3)]


def test_words_know_where_they_stand():
    assert channel.words("It's “old”.") == [("It's", 0, 4), ("“", 5, 6), ("old", 6, 9), ("”", 9, 10), (".", 10, 11)]
    assert channel.words("日本") == [("日本", 0, 2)]


def test_signs_are_not_spoken(speaker):
    found, said = channel.read(speaker, "the house, a river!")
    signs = [word in ",!" for word, _, _ in found]
    assert not said.prominent[signs].any() and not said.boundary[signs].any() and said.prominent[~np.array(signs)].all()


def test_tokens_are_found_in_the_text():
    assert channel.token_spans([b"a ", "é".encode()[:1], "é".encode()[1:], b"x"], "a éx") == [
        (0, 2),
        (2, 3),
        (3, 3),
        (3, 4),
    ]
    with pytest.raises(UsageError, match=r"prosody: the tokens do not spell the text.\nGive the tokens of this text"):
        channel.token_spans([b"b"], "a")


@pytest.mark.parametrize("changed", [10, 14, 20])
def test_the_causal_channel_of_a_token_is_told_by_the_text_before_its_end(speaker, changed):
    text = "the old house of a river the old house"
    other = text[:changed] + "xyz of a river"

    def rows(some: str) -> tuple[np.ndarray, list[tuple[int, int]]]:
        found, said = channel.read(speaker, some, causal=True)
        spans = channel.token_spans(pieces(some), some)
        return channel.align([(a, b) for _, a, b in found], channel.rows(said), spans, causal=True), spans

    (one, spans), (two, _) = rows(text), rows(other)
    before = sum(last <= changed for _, last in spans)
    assert before >= 3 and np.array_equal(one[:before], two[:before]) and one[:before].any()


def test_the_whole_channel_lies_on_a_word_and_the_causal_one_behind_it():
    values = np.array([[1.0, 1.0, 0.0], [2.0, 2.0, 1.0]], np.float32)
    spans, tokens = [(0, 5), (6, 9)], [(0, 3), (3, 5), (5, 9), (9, 9), (9, 10)]
    whole = channel.align(spans, values, tokens, causal=False)
    causal = channel.align(spans, values, tokens, causal=True)
    assert whole[:, 0].tolist() == [1, 1, 2, 0, 0] and causal[:, 0].tolist() == [0, 0, 1, 0, 2]
    with pytest.raises(UsageError, match="got 2 rows for 1 words, expected one each"):
        channel.align(spans[:1], values, tokens, causal=True)


def test_it_reaches_the_amygdala(speaker, tiny_brain, tokens):
    brain = tiny_brain()
    found, said = channel.read(speaker, "the old house of a river.")
    rows = torch.from_numpy(channel.rows(said)).unsqueeze(0)
    ids = tokens(1, len(found))
    with torch.no_grad():
        loud = brain.scan(ids, brain.init_state(1), rows)
        silent = brain.scan(ids, brain.init_state(1))
    assert not torch.equal(loud.events.salience, silent.events.salience)
