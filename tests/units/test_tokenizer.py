"""Tokenizer: every string comes back, line feeds and `<unk>` are tokens of their own, and files are checked."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from neuro.errors import FormatError, MissingError, UsageError
from neuro.text import read_text
from neuro.tokenizer import StreamDecoder, Tokenizer

LINES = [
    "the cat sat on the <unk> mat.",
    "",
    "the dog's role-playing, the cat's mat 1,000 times",
    "über ☃ 😀 日本語",
] * 5


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    return Tokenizer.train(LINES, 300)


def random_strings() -> list[str]:
    rng = random.Random(0)
    code_points = [*range(0xD800), *range(0xE000, 0x110000)]
    pieces = [" ", "  ", "\n", "\n\n", "\r\n", "\t", "\x00", "<unk>", "<bos>", "<bos", "the", "😀", "e\u0301", "\u2028"]
    strings = ["".join(map(chr, rng.sample(code_points, 30))) for _ in range(100)]
    strings += ["".join(rng.choices(pieces, k=20)) for _ in range(200)]
    strings += [bytes(rng.choices(range(256), k=40)).decode("latin-1") for _ in range(50)]
    return ["", *strings]


def test_every_string_comes_back(bpe: Tokenizer) -> None:
    for text in random_strings():
        ids = bpe.encode(text)
        assert bpe.decode(ids) == text
        assert all(0 <= number < bpe.vocab_size for number in ids)


def test_special_tokens(bpe: Tokenizer) -> None:
    assert (bpe.kind, bpe.vocab_size, bpe.bos_id, bpe.unk_id, bpe.eos_id) == ("bpe", 300, 0, 1, None)
    assert bpe.encode("<unk>") == [1]
    assert bpe.encode("a<unk>'s").count(1) == 1
    assert bpe.bos_id not in bpe.encode("text cannot forge <bos> or <<bos>>")
    assert bpe.decode([0, *bpe.encode("the cat")]) == "the cat"


def test_line_feed_is_its_own_token(bpe: Tokenizer) -> None:
    newline = bpe.encode("\n")
    assert len(newline) == 1
    assert bpe.encode("the cat\n\n  sat\n") == [
        *bpe.encode("the cat"), *newline, *newline, *bpe.encode("  sat"), *newline
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["the cat sat on\n" * 80_000, "the cat sat on the mat. " * 50_000, "ab" * 600_000])
def test_megabytes_are_encoded(bpe: Tokenizer, text: str) -> None:
    assert bpe.decode(bpe.encode(text)) == text


def test_chunks_do_not_change_the_ids(bpe: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\n".join(LINES) + "\n\n  \n"
    whole = bpe.encode(text)
    monkeypatch.setattr("neuro.tokenizer._CHUNK", 7)
    assert bpe.encode(text) == whole


def test_save_load_fingerprint(bpe: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    bpe.save(path)
    loaded = Tokenizer.load(path)
    assert loaded.fingerprint == bpe.fingerprint
    assert len(bpe.fingerprint) == 64
    assert loaded.encode("\n".join(LINES)) == bpe.encode("\n".join(LINES))
    assert Tokenizer.train(LINES, 300).fingerprint == bpe.fingerprint
    assert Tokenizer.train(LINES, 290).fingerprint != bpe.fingerprint


def test_load_says_what_is_wrong_and_what_to_do(bpe: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(MissingError, match=r"tokenizer\.json: got no such file.*\nCheck the path"):
        Tokenizer.load(path)
    bpe.save(path)
    path.write_text(path.read_text(encoding="utf-8")[:500], encoding="utf-8")
    with pytest.raises(FormatError, match=r"tokenizer\.json: got a truncated or foreign file.*\nCopy the file again"):
        Tokenizer.load(path)
    path.write_bytes(b"\x89PNG\xff")
    with pytest.raises(FormatError, match="truncated or foreign"):
        Tokenizer.load(path)
    unigram = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}
    for foreign in ([1], {"some": "json"}, unigram):
        path.write_text(json.dumps(foreign), encoding="utf-8")
        with pytest.raises(FormatError, match=r"got a JSON file that is not ours.*\nName a tokenizer\.json"):
            Tokenizer.load(path)


def test_wrong_arguments_say_what_to_do(bpe: Tokenizer) -> None:
    with pytest.raises(UsageError, match=r"got vocab_size 257, expected at least 258.*\nAsk for a larger"):
        Tokenizer.train(LINES, 257)
    with pytest.raises(UsageError, match=r"got vocab_size 1, expected at least 2.*\nAsk for a larger"):
        Tokenizer.train(LINES, 1, "words")
    with pytest.raises(UsageError, match=r"got kind 'chars', expected 'bpe' or 'words'.*\nChoose one"):
        Tokenizer.train(LINES, 300, "chars")
    for number in (-1, 300):
        with pytest.raises(UsageError, match=rf"got token id {number}, expected 0\.\.299.*\nUse the tokenizer"):
            bpe.decode([number])
    with pytest.raises(UsageError, match=r"got text with a lone surrogate.*\nRead the text"):
        bpe.encode("a\ud800b")


def test_stream_never_gives_half_a_character(bpe: Tokenizer) -> None:
    text = "the cat's 😀 日本語 über <unk>\n"
    stream = StreamDecoder(bpe)
    pieces = [stream.push(number) for number in bpe.encode(text)]
    assert "".join(pieces) + stream.flush() == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_stream_flush_marks_a_cut_character_once(bpe: Tokenizer) -> None:
    stream = StreamDecoder(bpe)
    cut = bpe.encode("🦉")[:-1]
    assert "".join(stream.push(number) for number in cut) == ""
    assert stream.flush() == "\ufffd"
    assert stream.flush() == ""
    assert "".join(stream.push(number) for number in bpe.encode("owl")) == "owl"


def test_words_count_one_end_per_line(tmp_path: Path) -> None:
    words = Tokenizer.train([" a b a ", " ", " <unk> c "], 5, "words")
    assert (words.kind, words.vocab_size, words.bos_id) == ("words", 5, words.eos_id)
    ids = words.encode(" a c zebra \n \n")
    assert len(ids) == 5
    assert (ids[2], ids[3], ids[4]) == (words.unk_id, words.eos_id, words.eos_id)
    assert words.decode(ids) == "a c <unk> \n\n"
    path = tmp_path / "words.json"
    words.save(path)
    assert Tokenizer.load(path).fingerprint == words.fingerprint


def test_words_give_the_published_wikitext_counts() -> None:
    data = os.environ.get("NEURO_DATA")
    if not data:
        pytest.skip("NEURO_DATA is not set: it names the folder with wikitext-2/")
    texts = {name: read_text(Path(data) / "wikitext-2" / f"{name}.txt.gz") for name in ("train", "valid")}
    words = Tokenizer.train(texts["train"].split("\n"), 33_278, "words")
    assert words.vocab_size == 33_278
    assert {name: len(words.encode(text)) for name, text in texts.items()} == {"train": 2_088_628, "valid": 217_646}


def test_the_unknown_word_and_the_beginning_of_a_text_are_never_written(bpe):
    assert bpe.never_written == (bpe.bos_id, bpe.unk_id)
    words = Tokenizer.train(LINES, 300, "words")
    assert words.never_written == (words.unk_id,), "<eos> ends lines: banning it would never end one"


def test_in_a_numbered_vocabulary_every_word_is_its_own_id(tmp_path):
    tokenizer = Tokenizer.numbered(300)
    assert (tokenizer.kind, tokenizer.vocab_size, tokenizer.bos_id, tokenizer.unk_id) == ("words", 300, 0, 1)
    assert tokenizer.encode("17 299 2") == [17, 299, 2] and tokenizer.encode("300 1") == [1, 1]
    assert tokenizer.decode([17, 299]) == "17 299 "
    tokenizer.save(tmp_path / "tokenizer.json")
    assert Tokenizer.load(tmp_path / "tokenizer.json").fingerprint == tokenizer.fingerprint
    with pytest.raises(
        UsageError, match=r"got vocab_size 1, expected at least 2 \(<eos> and <unk>\)\.\nAsk for a larger"
    ):
        Tokenizer.numbered(1)
