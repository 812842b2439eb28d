"""What is given to a memory to keep, one item at a time: a text, a file of texts, or a table of pairs.

.txt .txt.gz .md      one item a file
a folder              its text files, sorted
.jsonl .jsonl.gz      one object a line: "text", or a pair ("question" and "answer", "prompt" and "completion", "key" and
                      "value"); "source" names where it came from
.csv .csv.gz          two columns, one pair a row; a first row of such names is a heading

A pair is read as one text, the first and then the second: asked for by the first, the second is what follows. Files are
read as they are asked for, so that a long one takes no memory.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from neuro import corpus, text
from neuro.errors import FormatError, MissingError, UsageError

Line = tuple[int, str | None, str]
"""Its number, its text and where that came from; or no text, and what is there instead."""
PAIRS = (("question", "answer"), ("prompt", "completion"), ("key", "value"))


class Item(NamedTuple):
    """One thing to remember, and where it came from."""

    text: str
    source: str


def read(path: str | Path) -> Iterator[Item]:
    """The items of a file or folder, in order; its existence is checked at once, its contents as they are asked for.

    Raises:
        MissingError: no such file.
        FormatError: a line that is no item, by number; not UTF-8; a damaged archive.
        UsageError: an empty file.
    """
    path = Path(path)
    if not path.exists():
        raise MissingError(f"{path}: no such file or folder.", "Check the path.")
    return _checked(path)


def pair(first: str, second: str) -> str:
    """Both as one text, the first leading to the second."""
    return f"{first.rstrip()} {second.strip()}"


def _checked(path: Path) -> Iterator[Item]:
    suffix = "".join(path.suffixes[-2:] if path.suffix == ".gz" else path.suffixes[-1:])
    if path.is_dir() or suffix.removesuffix(".gz") not in (".jsonl", ".csv"):
        files = corpus.text_files(path) if path.is_dir() else [path]
        found: Iterator[Item] = (Item(text.read_text(file), file.name) for file in files)
    else:
        found = _lines(path, _json if ".jsonl" in suffix else _csv)
    empty = True
    for item in found:
        if item.text.strip():
            empty = False
            yield item
    if empty:
        raise UsageError(f"{path}: is empty, expected something to remember.", "Write texts or pairs into it.")


def _lines(path: Path, parse: Callable[[Iterable[str]], Iterator[Line]]) -> Iterator[Item]:
    do = "Mend that line; what was read before it is kept."

    def decoded(file: Iterable[bytes]) -> Iterator[str]:
        for number, line in enumerate(file, 1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise FormatError(f"{path}:{number}: is no UTF-8 (byte {error.start}).", do) from error

    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            for number, text, source in parse(decoded(file)):
                if text is None:
                    raise FormatError(f"{path}:{number}: got {source}.", do)
                yield Item(text, source or f"{path.name}:{number}")
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise FormatError(f"{path}: cannot be read after line {number} ({error}).", "Use another copy.") from error


def _json(lines: Iterable[str]) -> Iterator[Line]:
    known = " or ".join(['"text"', *(f'"{a}" and "{b}"' for a, b in PAIRS)])
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            yield number, None, f"no JSON ({error.msg}), expected an object"
            return
        row = row if isinstance(row, dict) else {}
        for names in (("text",), *PAIRS):
            given = [row[name] for name in names if isinstance(row.get(name), str)]
            if len(given) == len(names):
                yield number, given[0] if len(given) == 1 else pair(*given), str(row.get("source", ""))
                break
        else:
            yield number, None, f"{line.strip()[:40]!r}, expected an object with {known}"
            return


def _csv(lines: Iterable[str]) -> Iterator[Line]:
    reader = csv.reader(lines, strict=True)
    for row in reader:
        if not row or (reader.line_num == 1 and tuple(cell.strip().lower() for cell in row) in PAIRS):
            continue
        if len(row) != 2:
            yield reader.line_num, None, f"{len(row)} columns, expected 2"
            return
        yield reader.line_num, pair(*row), ""
