"""Labelled texts: GoEmotions, EmoBank, CLINC150, sentence polarity, subjectivity, Helsinki prosody, and the VADER lexicon.

Every loader takes the folder that holds the data sets (``root``; None is the variable NEURO_DATA). Sources:
GoEmotions (Demszky et al. 2020, arXiv:2005.00547), EmoBank (Buechel and Hahn 2017, EACL), CLINC150 (Larson et al. 2019,
arXiv:1909.02027), polarity and subjectivity (Pang and Lee 2005, 2004), Helsinki prosody (Talman et al. 2019, arXiv:1908.02262),
VADER (Hutto and Gilbert 2014, ICWSM).
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from neuro.errors import FormatError
from neuro.sensors.files import locate

SPLITS = ("train", "dev", "test")
OUT_OF_SCOPE = "oos"
_POLARITY = ("polarity-subjectivity/sentence_polarity.zip", "rt-polarity.neg", "rt-polarity.pos")
_SUBJECTIVITY = ("polarity-subjectivity/subjectivity.zip", "plot.tok.gt9.5000", "quote.tok.gt9.5000")


@dataclasses.dataclass(frozen=True)
class Labelled:
    """Texts and what they are labelled with."""

    texts: list[str]
    labels: np.ndarray  # float32 [S, C]: 0 or 1, or a value; int64 [S] where classes exclude each other
    names: tuple[str, ...]  # of the C columns or of the classes


@dataclasses.dataclass(frozen=True)
class SpokenWord:
    """A word as one reader said it; None for punctuation. Prominence and boundary are 0, 1, 2 and a real value (wavelets)."""

    text: str
    prominence: int | None
    boundary: int | None
    prominence_value: float | None
    boundary_value: float | None


def goemotions(split: str, root: str | Path | None = None) -> Labelled:
    """28 emotions, several of them to a text.

    Raises:
        MissingError, FormatError: not there, or not such a file.
    """
    names = tuple(_text("goemotions/emotions.txt", root).split())
    path = f"goemotions/{split}.tsv.gz"
    texts, rows = [], []
    for number, line in _lines(path, root):
        cells = line.split("\t")
        ids = cells[1].split(",") if len(cells) == 3 else []
        if not ids or not all(i.isdecimal() and int(i) < len(names) for i in ids):
            raise _foreign(path, number, "text, label numbers and a comment's id")
        texts.append(cells[0])
        rows.append([int(i) for i in ids])
    labels = np.zeros((len(texts), len(names)), np.float32)
    for label, numbers in zip(labels, rows, strict=True):
        label[numbers] = 1.0
    return Labelled(texts, labels, names)


def emobank(split: str, root: str | Path | None = None) -> Labelled:
    """Valence, arousal and dominance of sentences, 1 to 5, means over readers and writers (CC BY-SA: keep it and what learned
    from it out of what is licensed otherwise).

    Raises:
        MissingError, FormatError: not there, or not such a file.
    """
    path = "emobank/emobank.csv.gz"
    texts, rows = [], []
    try:
        for row in csv.DictReader(io.StringIO(_text(path, root), newline="")):
            if row["split"] == split:
                texts.append(row["text"])
                rows.append([float(row[key]) for key in "VAD"])
    except (KeyError, ValueError, TypeError) as error:
        raise _foreign(path, 0, f"columns split, V, A, D and text ({error})") from error
    return Labelled(texts, np.array(rows, np.float32).reshape(-1, 3), ("valence", "arousal", "dominance"))


def clinc150(split: str, root: str | Path | None = None) -> Labelled:
    """150 intents, and last the class of what belongs to none (``oos``); ``dev`` is the file's ``val``.

    Raises:
        MissingError, FormatError: not there, or not such a file.
    """
    path, part = "clinc150/data_full.json.gz", "val" if split == "dev" else split
    try:
        data = json.loads(_text(path, root))
        rows = [(str(text), str(name)) for text, name in [*data[part], *data[f"{OUT_OF_SCOPE}_{part}"]]]
        known = sorted({name for _, name in data["train"]})
        names = (*known, OUT_OF_SCOPE)
        labels = np.array([names.index(name) for _, name in rows], np.int64)
    except (KeyError, ValueError, TypeError) as error:
        raise _foreign(path, 0, f"lists of [text, intent] ({error})") from error
    return Labelled([text for text, _ in rows], labels, names)


def polarity(split: str, root: str | Path | None = None) -> Labelled:
    """Sentences of film reviews, 1 where positive. There is no official split: every tenth sentence of a class is test, the
    one after it dev."""
    return _two_classes(*_POLARITY, split, "positive", root)


def subjectivity(split: str, root: str | Path | None = None) -> Labelled:
    """Sentences of reviews (1) and of plot summaries (0), split as `polarity` is."""
    return _two_classes(*_SUBJECTIVITY, split, "subjective", root)


def prosody(split: str, root: str | Path | None = None) -> list[list[SpokenWord]]:
    """Sentences of read books with the prominence and boundary of each word as measured in the recording.

    Raises:
        MissingError, FormatError: not there, or not such a file.
    """
    return [words for _, words in prosody_by_file(split, root)]


def prosody_by_file(split: str, root: str | Path | None = None) -> list[tuple[str, list[SpokenWord]]]:
    """As `prosody`, with the name of each recording: reader, chapter and place."""
    path = f"helsinki-prosody/{split}.txt.gz"
    found: list[tuple[str, list[SpokenWord]]] = []
    for number, line in _lines(path, root):
        cells = line.split("\t")
        if cells[0] == "<file>" and len(cells) == 2:
            found.append((cells[1], []))
            continue
        try:
            values = [None if cell == "NA" else float(cell) for cell in cells[1:]]
            prominence, boundary, prominence_value, boundary_value = values
            classes = (None if prominence is None else int(prominence), None if boundary is None else int(boundary))
            found[-1][1].append(SpokenWord(cells[0], *classes, prominence_value, boundary_value))
        except (ValueError, IndexError, TypeError) as error:
            raise _foreign(path, number, "a word, two classes and two values") from error
    return found


def vader(root: str | Path | None = None) -> dict[str, float]:
    """Mean valence of words, -4 to 4."""
    path, found = "vader/vader_lexicon.txt.gz", {}
    for number, line in _lines(path, root):
        cells = line.split("\t")
        try:
            found[cells[0].lower()] = float(cells[1])
        except (ValueError, IndexError) as error:
            raise _foreign(path, number, "a word and its valence") from error
    return found


def stress(root: str | Path | None = None) -> dict[str, str]:
    """Stress of each syllable of a word's first pronunciation in CMUdict: "102" is primary, none, secondary.

    Raises:
        MissingError, FormatError: not there, or not such an archive.
    """
    path = locate("cmudict/cmudict.zip", root)
    found: dict[str, str] = {}
    try:
        with zipfile.ZipFile(path) as opened:
            lines = opened.read("cmudict/cmudict").decode("latin-1").split("\n")
    except (zipfile.BadZipFile, KeyError, zlib.error, EOFError, OSError) as error:
        raise FormatError(f"{path}: not a whole archive of cmudict ({error}).", "Use another copy.") from error
    for line in lines:
        word, _, sounds = line.partition(" ")
        marks = "".join(sound[-1] for sound in sounds.split()[1:] if sound[-1].isdigit())
        if marks:
            found.setdefault(word.lower(), marks)
    return found


def plain_texts(root: str | Path | None = None) -> list[str]:
    """Texts to learn word vectors from: the training splits of GoEmotions, CLINC150, polarity and subjectivity, and three books
    in the public domain. Nothing share-alike.

    Raises:
        MissingError, FormatError: a set is not there, or not whole.
    """
    found: list[str] = []
    for load in (goemotions, clinc150, polarity, subjectivity):
        found += load("train", root).texts
    for book in ("warpeace_input", "grimm_2591", "alice_11"):
        found += [line for _, line in _lines(f"books/{book}.txt.gz", root)]
    return found


def _two_classes(archive: str, low: str, high: str, split: str, name: str, root: str | Path | None) -> Labelled:
    path = locate(archive, root)
    texts: list[str] = []
    labels: list[float] = []
    try:
        with zipfile.ZipFile(path) as opened:
            members = {member.rpartition("/")[2]: member for member in opened.namelist()}
            for value, member in ((0.0, low), (1.0, high)):
                lines = [x for x in opened.read(members[member]).decode("latin-1").split("\n") if x.strip()]
                kept = [line for i, line in enumerate(lines) if SPLITS[{0: 2, 1: 1}.get(i % 10, 0)] == split]
                texts += kept
                labels += [value] * len(kept)
    except (zipfile.BadZipFile, KeyError, zlib.error, EOFError, OSError) as error:
        raise FormatError(f"{path}: not a whole archive of {low} and {high} ({error}).", "Use another copy.") from error
    return Labelled(texts, np.array(labels, np.float32)[:, None], (name,))


def _text(name: str, root: str | Path | None) -> str:
    path = locate(name, root)
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if name.endswith(".gz") else data).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: not a whole file of UTF-8 text ({error}).", "Use another copy.") from error


def _lines(name: str, root: str | Path | None) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not empty; a text may hold Unicode's own line separators."""
    return ((number, line) for number, line in enumerate(_text(name, root).split("\n"), 1) if line)


def _foreign(name: str, line: int, expected: str) -> FormatError:
    where = f"{name}, line {line}" if line else name
    return FormatError(f"{where}: expected {expected}.", "It is truncated or foreign: use another copy.")
