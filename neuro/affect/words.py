"""Words of a text, the pieces of a word, and both as numbers; any script, nothing to download.

Pieces are hashed (CRC-32), so that a word never seen still has a vector: its pieces' (fastText, arXiv:1607.04606).
"""

from __future__ import annotations

import dataclasses
import re
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

MOST_WORDS = 64  # of a text; what comes later is not read
_WORD = re.compile(r"[:;=][-'o^]?[)(\]\[dp/\\|*](?!\w)|<3|[a-z]+(?:'[a-z]+)?|\d+|[^\w\s]|\w+")
_LONG = re.compile(r"(.)\1{3,}", re.DOTALL)
_EMPTY = np.zeros(0, np.int64)


def cut(text: str) -> list[str]:
    """Lower-case words, numbers, emoticons, signs and emoji; what is repeated more than three times is cut to three."""
    return _WORD.findall(_LONG.sub(r"\1\1\1", text.lower().replace("’", "'")))


def pieces(word: str) -> list[str]:
    """The substrings of 3 to 5 characters of ``<word>``; a sign is its own piece."""
    if not word[0].isalnum():
        return [word]
    framed = f"<{word}>"
    return [framed[i : i + n] for n in (3, 4, 5) for i in range(len(framed) - n + 1)]


def hashed(text: str, rows: int) -> int:
    """A row of a table, the same on every machine."""
    return zlib.crc32(text.encode("utf-8", "surrogatepass")) % rows


class Lists:
    """Lists of integers, flat: values [sum of lengths], starts [L + 1]."""

    def __init__(self, lists: Sequence[Sequence[int]]) -> None:
        self.lengths = np.array([len(x) for x in lists], np.int64)
        self.starts = np.concatenate([_EMPTY, [0], self.lengths.cumsum()])
        self.values = np.fromiter((v for x in lists for v in x), np.int64, int(self.starts[-1]))

    def take(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(values, start, length) of these lists, one after the other."""
        lengths = self.lengths[rows]
        starts = lengths.cumsum() - lengths
        places = np.repeat(self.starts[rows] - starts, lengths) + np.arange(lengths.sum())
        return self.values[places], starts, lengths


class Batch(NamedTuple):
    """N texts of W words in all, of U different words.

    ``word`` [U] rows of the word table, ``piece`` and ``piece_start`` [U] their pieces, ``lexicon`` [U,3]; ``which`` [W] the
    different word of each word, ``place`` [W] where it lies in [N * longest]; ``length`` [N]; ``phrase``, ``phrase_start`` [N].
    """

    word: Tensor
    piece: Tensor
    piece_start: Tensor
    lexicon: Tensor
    which: Tensor
    place: Tensor
    length: Tensor
    phrase: Tensor
    phrase_start: Tensor


@dataclasses.dataclass(frozen=True)
class Texts:
    """Texts as numbers: different words, and of each text its words and its hashed phrases of two and three words."""

    vocabulary: Vocabulary
    word: np.ndarray  # int64 [U] row of the word table, 0 where unknown
    lexicon: np.ndarray  # float32 [U, 3]
    pieces: Lists  # of each different word
    words: Lists  # of each text, numbers of different words
    phrases: Lists

    def __len__(self) -> int:
        return len(self.words.lengths)

    def batch(self, rows: np.ndarray) -> Batch:
        """The texts of these numbers."""
        words, starts, lengths = self.words.take(rows)
        different, which = np.unique(words, return_inverse=True)
        longest = int(lengths.max())
        place = np.repeat(np.arange(len(rows)) * longest - starts, lengths) + np.arange(len(words))
        piece, piece_start, _ = self.pieces.take(different)
        phrase, phrase_start, _ = self.phrases.take(rows)
        arrays: list[np.ndarray] = [self.word[different], piece, piece_start, self.lexicon[different]]
        arrays += [which.reshape(-1), place, lengths.astype(np.float32), phrase, phrase_start]
        return Batch(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))


class Vocabulary:
    """Which words have a row of their own, and which have a valence in the lexicon.

    Args:
        known: words by frequency; the first has row 1, row 0 is every other word's.
        lexicon: valence of words, -4 to 4.
        piece_rows: rows of the table of pieces.
        phrase_rows: rows of the table of phrases.
    """

    def __init__(self, known: Sequence[str], lexicon: dict[str, float], piece_rows: int, phrase_rows: int) -> None:
        self.known = list(known)
        self.row = {word: number for number, word in enumerate(known, 1)}
        self.lexicon = lexicon
        self.piece_rows, self.phrase_rows = piece_rows, phrase_rows

    def encode(self, texts: Sequence[str]) -> Texts:
        """Texts as numbers; one without a word counts as a single word that nobody knows."""
        numbers: dict[str, int] = {}
        words, phrases = [], []
        for text in texts:
            found = cut(text)[:MOST_WORDS] or [" "]
            words.append([numbers.setdefault(word, len(numbers)) for word in found])
            framed = ["<s>", *found, "</s>"]
            runs = [" ".join(framed[i : i + n]) for n in (2, 3) for i in range(len(framed) - n + 1)]
            phrases.append([hashed(run, self.phrase_rows) for run in runs])
        rows = np.array([self.row.get(word, 0) for word in numbers], np.int64)
        lexicon = np.array([self._feeling(word) for word in numbers], np.float32).reshape(-1, 3)
        cuts = Lists([[hashed(piece, self.piece_rows) for piece in pieces(word)] for word in numbers])
        return Texts(self, rows, lexicon, cuts, Lists(words), Lists(phrases))

    def _feeling(self, word: str) -> tuple[float, float, float]:
        """Valence, its size, and whether the lexicon has the word."""
        value = self.lexicon.get(word)
        return (0.0, 0.0, 0.0) if value is None else (value / 2.0, abs(value) / 2.0, 1.0)
