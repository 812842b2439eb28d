"""Token streams: in document order without a gap, rehearsing earlier spans, and resumable to the token."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from neuro import corpus
from neuro.config import DataConfig
from neuro.errors import FormatError, MissingError, UsageError
from neuro.train import streams as module
from neuro.train.streams import REHEARSAL_REACH, Streams

LENGTHS = (37, 5, 120, 1, 64, 200)
STARTS = np.cumsum([0, *LENGTHS[:-1]])
TOKENS = np.arange(sum(LENGTHS), dtype=np.int32)  # a token is its own place


def make(rehearsal: float = 0.0, seed: int = 0, batch: int = 3, span: int = 8) -> Streams:
    return Streams(TOKENS, STARTS, batch, span, rehearsal, seed)


@pytest.fixture
def never_fresh(monkeypatch):
    monkeypatch.setattr(module, "FRESH_START", 0.0)


def test_a_seed_gives_one_sequence():
    a, b, c = make(0.3), make(0.3), make(0.3, seed=1)
    found = [[s.window(4)[:2] for _ in range(30)] for s in (a, b, c)]
    for (x, fresh_x), (y, fresh_y) in zip(found[0], found[1], strict=True):
        assert np.array_equal(x, y) and np.array_equal(fresh_x, fresh_y)
        assert x.shape == (3, 32) and x.dtype == np.int64 and fresh_x.dtype == np.bool_
    assert any(not np.array_equal(x, y) for (x, _), (y, _) in zip(found[0], found[2], strict=True))


def test_no_token_is_lost_or_doubled_in_document_order(never_fresh):
    """After the place where it began, a row is whole documents, one after the other."""
    streams = make()
    rows = np.concatenate([streams.window(3)[0] for _ in range(200)], 1)
    for row in rows:
        following = np.diff(row) == 1
        for place in np.flatnonzero(~following):  # a jump: one document ended, another begins at its beginning
            assert row[place] in (STARTS + LENGTHS - 1)
            assert row[place + 1] in STARTS
        # Inside a document nothing is skipped: a step of 1 never crosses a boundary unless the order happens to.
        assert set(row[1:][following] - row[:-1][following]) == {1}
    # And every token comes, also that of the document of one token.
    assert set(rows.ravel().tolist()) == set(TOKENS.tolist())


def test_a_pass_over_the_text_shows_every_document_once(never_fresh):
    """Whatever its length. (Chosen by length and then read whole, a document came as often as it was long.)"""
    streams = make(batch=20)
    tokens = np.concatenate([streams.window(10)[0] for _ in range(40)], 1).ravel()
    counts = np.bincount(tokens, minlength=len(TOKENS))
    mean = len(tokens) / len(TOKENS)
    # Each of the 20 rows has begun one document inside and is inside another.
    assert (np.abs(counts - mean) <= 20).all()
    for start, length in zip(STARTS, LENGTHS, strict=True):
        assert abs(counts[start : start + length].mean() / mean - 1) < 0.1


def test_rows_begin_at_different_places():
    assert len({int(x) for x in make(batch=30).window(1)[0][:, 0]}) > 15


def test_rehearsal_repeats_an_earlier_span_of_the_same_row_and_loses_nothing(never_fresh, monkeypatch):
    monkeypatch.setattr(module, "LIFE_SPANS", 10_000)  # one document, read from end to end
    streams = Streams(np.arange(50_000, dtype=np.int32), np.zeros(1, dtype=np.int64), 3, 8, 0.4, 0)
    spans: list[list[np.ndarray]] = [[], [], []]
    for _ in range(600):
        for row, window in enumerate(streams.window(2).tokens):
            spans[row] += list(window.reshape(2, 8))
    low, high = REHEARSAL_REACH
    for row in spans:
        new, reaches = [row[0]], []
        for span in row[1:]:
            if span[0] == (new[-1][-1] + 1) % 50_000:  # goes on where it was
                new.append(span)
                continue
            past = range(low, min(high, len(new)) + 1)
            reach = [back for back in past if np.array_equal(new[-back], span)]
            assert len(reach) == 1
            reaches += reach
        assert 0.25 < len(reaches) / len(row) < 0.55
        assert min(reaches) == low and 0.8 * high < max(reaches) <= high
        near, far = (sum(a <= reach < b for reach in reaches) for a, b in ((2, 4), (16, 32)))
        assert 0.5 < near / far < 2  # even in the logarithm


def test_no_rehearsal_without_a_past(never_fresh):
    streams = make(rehearsal=1.0)
    low = REHEARSAL_REACH[0]
    for row in np.concatenate([streams.window(1)[0] for _ in range(low + 2)], 1):
        spans = row.reshape(-1, 8)
        assert len(np.unique(spans, axis=0)) == low + 1  # that many before there is something to repeat
        assert np.array_equal(spans[-1], spans[1])


def test_one_long_document_is_read_everywhere_and_not_its_opening_alone():
    """Its parts are a life apart, and each is read after the first token; 40,000 windows are 16 of its lengths."""
    length, first = 40_000, -7
    tokens = np.arange(length, dtype=np.int32)
    tokens[0] = first
    streams = Streams(tokens, np.zeros(1, dtype=np.int64), 20, 8, 0.0, 0)
    life = module.LIFE_SPANS * 8
    read = np.zeros(4)
    for _ in range(1500):
        window = streams.window(2)
        read += np.histogram(window.tokens, 4, (0, length))[0]
        for row in window.tokens[window.fresh]:
            assert row[0] == first and (row[1] == 1 or row[1] % life == 0)
            assert (np.diff(row[1:]) == 1).all()
    assert (read / read.sum() > 0.2).all()


def test_a_fresh_row_begins_a_document_and_forgets_its_past():
    streams = make(rehearsal=0.5, batch=8)
    seen = 0
    for _ in range(300):
        tokens, fresh, scored = streams.window(2)
        assert scored is None  # every token
        seen += int(fresh.sum())
        assert all(tokens[row, 0] in STARTS for row in np.flatnonzero(fresh))
        assert all(len(streams.history[row]) <= 2 for row in np.flatnonzero(fresh))
    assert 0.3 < seen / (300 * 8) / module.FRESH_START < 3


@pytest.mark.parametrize("life", [module.LIFE_SPANS, 2])
@pytest.mark.parametrize("steps", [0, 1, 17, 40])
def test_restoring_a_position_continues_exactly(steps, life, monkeypatch):
    """Through JSON, into a stream of another seed; documents whole and in parts."""
    monkeypatch.setattr(module, "LIFE_SPANS", life)
    streams = make(0.4)
    for _ in range(steps):
        streams.window(2)
    position = json.loads(json.dumps(streams.state()))
    expected = [streams.window(2)[:2] for _ in range(40)]
    other = make(0.4, seed=99)
    other.window(3)
    other.restore(position)
    for tokens, fresh in expected:
        found = other.window(2)
        assert np.array_equal(found[0], tokens) and np.array_equal(found[1], fresh)
    assert other.state() == streams.state()


def test_a_position_is_a_copy():
    streams = make(0.4)
    streams.window(20)
    position = streams.state()
    before = json.dumps(position)
    streams.window(20)
    assert json.dumps(position) == before


def test_a_position_in_another_text_is_refused():
    position = make().state()
    other = Streams(TOKENS + 1, STARTS, 3, 8, 0.0, 0)
    with pytest.raises(FormatError, match=r"the training text is not the one this run began with\.\n"):
        other.restore(position)


def test_a_position_of_another_order_is_refused():
    position = make().state()
    del position["parts"], position["bag"]
    with pytest.raises(FormatError, match=r"begun by a version that read documents in another order\.\n"):
        make().restore(position)


def test_a_text_shorter_than_a_span_is_repeated():
    streams = Streams(np.arange(3, dtype=np.int32), np.zeros(1, dtype=np.int64), 1, 8, 0.0, 0)
    row = np.concatenate([streams.window(2)[0] for _ in range(3)], 1)[0]
    assert set((np.diff(row) % 3).tolist()) == {1}


# From files to streams.


def write(folder: Path, documents: dict[str, str]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in documents.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def texts() -> dict[str, str]:
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdef", k=4)) for _ in range(30)]
    return {f"{i}.txt": "".join(" ".join(rng.choices(words, k=6)) + "\n" for _ in range(12)) for i in range(3)}


@pytest.mark.parametrize("kind", ["bpe", "words"])
def test_documents_are_files_for_either_kind_of_tokenizer(kind, tmp_path):
    """In a vocabulary of words every line ends with the token that stands before a document: lines are not documents."""
    source = write(tmp_path / "text", texts())
    data = corpus.prepare(DataConfig(train=str(source), valid=str(held_out(tmp_path)), tokenizer=kind), 300)
    assert len(data.starts) == 3 and data.starts[0] == 0
    assert (data.train[data.starts] == data.tokenizer.bos_id).all()
    for (_, text), start, end in zip(
        sorted(texts().items()), data.starts, [*data.starts[1:], len(data.train)], strict=True
    ):
        ids = data.train[start:end].tolist()
        assert ids == [data.tokenizer.bos_id, *data.tokenizer.encode(text)]
    assert data.valid.tolist() == [data.tokenizer.bos_id, *data.tokenizer.encode(held_out(tmp_path).read_text())]
    streams = Streams(data.train, data.starts, 2, 16, 0.0, 0)
    assert len(streams.starts) == 3


def held_out(folder):
    """A text of its own."""
    path = folder / "held_out.txt"
    path.write_text("no boat here, and no lamp: only the sea, all night long")
    return path


def test_the_end_is_held_out_when_no_validation_text_is_named(tmp_path):
    source = write(tmp_path / "text", texts())
    whole = corpus.prepare(DataConfig(train=str(source), valid=str(held_out(tmp_path))), 300)
    cut = corpus.prepare(DataConfig(train=str(source)), 300)
    assert np.array_equal(np.concatenate([cut.train, cut.valid]), whole.train)
    assert len(cut.valid) == max(2, int(0.02 * len(whole.train)))
    assert (cut.starts < len(cut.train)).all()
    assert whole.tokenizer.fingerprint == cut.tokenizer.fingerprint


def test_missing_and_empty_texts_are_refused(tmp_path, monkeypatch):
    source = write(tmp_path / "text", texts())
    kept = tmp_path / "tokenizer.json"
    corpus.prepare(DataConfig(train=str(source)), 300).tokenizer.save(kept)
    for source, kind, match in (
        ("", UsageError, r"config data.train: is empty.*\nSet data.train"),
        (tmp_path / "none.txt", MissingError, r"none.txt: no such file or folder\.\nCorrect data.train"),
        (write(tmp_path / "nothing", {"a.csv": "x"}), MissingError, r"no .txt, .txt.gz or .md file in it\.\nPut text"),
    ):
        with pytest.raises(kind, match=match):
            corpus.prepare(DataConfig(train=str(source)), 300)
    monkeypatch.setattr(corpus, "read_documents", lambda source: [])  # a dataset without a row
    with pytest.raises(UsageError, match=r"0 tokens, expected at least 2\.\nGive more text"):
        corpus.prepare(DataConfig(train="hf:empty", valid="hf:empty", tokenizer=str(kept)), 300)
    monkeypatch.undo()
    with pytest.raises(UsageError, match=r"\d tokens, expected at least 2\.\nGive more text"):
        corpus.prepare(DataConfig(train=str(write(tmp_path / "short", {"a.txt": "a"}))), 300)


def test_a_kept_tokenizer_is_the_one_used_and_of_the_kind_asked_for(tmp_path):
    source, kept = write(tmp_path / "text", texts()), tmp_path / "tokenizer.json"
    small = corpus.prepare(DataConfig(train=str(source)), 270).tokenizer
    small.save(kept)
    assert corpus.prepare(DataConfig(train=str(source)), 300, kept).tokenizer.fingerprint == small.fingerprint
    with pytest.raises(UsageError, match=r"got a tokenizer of kind 'bpe', expected 'words'.*\nSet data.tokenizer back"):
        corpus.prepare(DataConfig(train=str(source), tokenizer="words"), 300, kept)
