"""Prosody of words as the input of a brain: one row of the channel ``prosody`` for each token.

A brain reads nothing that lies ahead. What a word is known to be only when it has ended, so a causal channel carries a word's
prosody on the first token after it; the other one carries it on the word's own tokens and may look ahead: for a text
that was heard, or is read a second time.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import numpy as np

from neuro.affect.prominence import Prominence, Speaker
from neuro.errors import UsageError

CHANNELS = 3  # pitch, energy, duration
_TOKEN = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
_END = frozenset(".!?")


def words(text: str) -> list[tuple[str, int, int]]:
    """Words and signs of a text with the characters they begin at and end before."""
    return [(found[0], found.start(), found.end()) for found in _TOKEN.finditer(text)]


def read(speaker: Speaker, text: str, causal: bool = False) -> tuple[list[tuple[str, int, int]], Prominence]:
    """The words and signs of a text and their prosody, sentence by sentence; signs are not spoken and have none.

    Raises:
        UsageError: there is no word in it.
    """
    found = words(text)
    if not found:
        raise UsageError("prosody: got a text without a word, expected some.", "Give a text.")
    sentences: list[list[str]] = [[]]
    for word, _, _ in found:
        sentences[-1].append(word)
        if word in _END:
            sentences.append([])
    said = speaker.read([sentence for sentence in sentences if sentence], causal)
    spoken = np.array([any(letter.isalnum() for letter in word) for word, _, _ in found])
    whole = (np.concatenate([getattr(part, name) for part in said]) for name in Prominence._fields)
    return found, Prominence(*(values * spoken for values in whole))


def rows(prosody: Prominence) -> np.ndarray:
    """float32 [W, 3]: what text tells of pitch, energy and duration.

    Prominence is one value of pitch, energy and duration together, so pitch and energy both carry it; duration carries the
    boundary, before which speech slows down.
    """
    return np.stack([prosody.value, prosody.value, prosody.boundary], 1).astype(np.float32)


def align(
    spans: Sequence[tuple[int, int]], values: np.ndarray, tokens: Sequence[tuple[int, int]], causal: bool
) -> np.ndarray:
    """float32 [T, C]: the prosody of words on the tokens of the same text.

    Args:
        spans: of each word, the characters it begins at and ends before, in order.
        values: [W, C].
        tokens: of each token, the same; one of no characters takes nothing.
        causal: a word's values go to the first token that begins where the word has ended or later, added up where
            several words end; else to every token that overlaps it, the largest winning.

    Raises:
        UsageError: not one row of values for each word.
    """
    if len(spans) != len(values):
        raise UsageError(
            f"prosody: got {len(values)} rows for {len(spans)} words, expected one each.", "Read both from one text."
        )
    out = np.zeros((len(tokens), values.shape[1] if values.ndim == 2 else CHANNELS), np.float32)
    begins = np.array([first for first, _ in tokens], np.int64)
    ends = np.array([last for _, last in tokens], np.int64)
    for (begin, end), value in zip(spans, values, strict=True):
        if causal:
            after = np.flatnonzero((begins >= end) & (ends > begins))[:1]
            out[after] += value
        else:
            own = np.flatnonzero((begins < end) & (ends > begin))
            out[own] = np.where(np.abs(value) > np.abs(out[own]), value, out[own])
    return out


def token_spans(pieces: Sequence[bytes], text: str) -> list[tuple[int, int]]:
    """Of each token the characters it begins at and ends before; one that ends inside a character ends before it.

    Raises:
        UsageError: the tokens do not spell the text.
    """
    if b"".join(pieces) != text.encode("utf-8"):
        raise UsageError("prosody: the tokens do not spell the text.", "Give the tokens of this text, without <bos>.")
    character = np.cumsum(
        [0, *(byte & 0xC0 != 0x80 for byte in text.encode("utf-8"))]
    )  # characters begun before a byte
    stops = np.cumsum([0, *map(len, pieces)])
    places = [int(character[stop]) for stop in stops]
    return [(a, max(a, b)) for a, b in itertools.pairwise(places)]
