"""Items from files: texts, folders, JSON lines and pairs, with where each came from; broken lines are named."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from neuro import items
from neuro.errors import FormatError, MissingError, NeuroError, UsageError
from neuro.items import Item


def test_texts_and_folders(tmp_path):
    (tmp_path / "b.txt").write_text("The tide is high.\n")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"The lamp is lit."))
    (tmp_path / "d.json").write_text("{}")
    assert list(items.read(tmp_path / "b.txt")) == [Item("The tide is high.\n", "b.txt")]
    assert list(items.read(tmp_path)) == [Item("The lamp is lit.", "a.txt.gz"), Item("The tide is high.\n", "b.txt")]


JSONL = """{"text": "The bridge was closed.", "source": "news"}

{"question": "Who keeps the lamp? ", "answer": " Victor."}
{"prompt": "The vault's word is", "completion": "crimson"}
{"key": "captain", "value": "Elinor", "year": 1974}
"""
CSV = 'Question,Answer\nThe vault\'s word is,crimson\n"Who, then, keeps it?","Victor,\nthe keeper"\n'


@pytest.mark.parametrize("packed", [False, True])
def test_lines_and_pairs_know_their_line(tmp_path, packed):
    def write(name: str, text: str) -> Path:
        path = tmp_path / (name + ".gz" * packed)
        path.write_bytes(gzip.compress(text.encode()) if packed else text.encode("utf-8-sig"))
        return path

    lines = list(items.read(write("a.jsonl", JSONL)))
    name = "a.jsonl" + ".gz" * packed
    assert lines == [
        Item("The bridge was closed.", "news"),
        Item("Who keeps the lamp? Victor.", f"{name}:3"),
        Item("The vault's word is crimson", f"{name}:4"),
        Item("captain Elinor", f"{name}:5"),
    ]
    pairs = list(items.read(write("b.csv", CSV)))
    assert [pair.text for pair in pairs] == ["The vault's word is crimson", "Who, then, keeps it? Victor,\nthe keeper"]
    assert [pair.source.rpartition(":")[2] for pair in pairs] == ["2", "4"]


BROKEN: list[tuple[str, bytes, type[NeuroError], str]] = [
    (
        "a.jsonl",
        b'{"text": "one"}\n{"text": 2}\n',
        FormatError,
        r"a\.jsonl:2: got '\{\"text\": 2\}', expected an object with",
    ),
    ("a.jsonl", b'{"text": "one"}\nword\n', FormatError, r"a\.jsonl:2: got no JSON \(Expecting value\)"),
    ("a.jsonl", b'{"text": "one"}\n{"text": "caf\xe9"}\n', FormatError, r"a\.jsonl:2: is no UTF-8 \(byte 13\)"),
    ("a.jsonl.gz", gzip.compress(b'{"text": "one"}\n' * 2)[:-9], FormatError, "cannot be read after line"),
    ("a.csv", b"one,two\nthree\n", FormatError, r"a\.csv:2: got 1 columns, expected 2"),
    ("a.csv", b'one,two\nthree,"four" five\n', FormatError, "cannot be read after line 1"),
    ("a.csv", b"question,answer\n", UsageError, "is empty, expected something to remember"),
    ("a.txt", b" \n", UsageError, "got empty text, expected at least one character"),
]


@pytest.mark.parametrize(
    ("name", "data", "error", "words"), BROKEN, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_broken_line_is_named_after_what_came_before_it(tmp_path, name, data, error, words):
    path = tmp_path / name
    path.write_bytes(data)
    found, raised = [], None
    try:
        for item in items.read(path):
            found.append(item.text)
    except NeuroError as caught:
        raised = caught
    assert isinstance(raised, error)
    with pytest.raises(error, match=words):
        raise raised
    assert raised.do and found == (
        ["one two" if "csv" in name else "one"] if b"one" in data and ".gz" not in name else found
    )


def test_a_file_that_is_not_there_is_missing_at_once(tmp_path):
    with pytest.raises(MissingError, match="no such file or folder"):
        items.read(tmp_path / "none.jsonl")
