"""What a model has read in training, as hashes: so that an evaluation on training text is refused, and duplicates are named.

A text is cut into windows of 8 words in a row (letters and digits, case folded: line breaks, punctuation and WikiText's
spelling make no difference). Kept are the windows whose 64-bit hash is 0 modulo a power of two, the smallest that leaves
at most 32,768 of them: a sample that any text is sampled by in the same way, without a word of the text itself. So
copies are found whole or in part, and the file has at most 256 kB. Manber 1994 (USENIX Winter), Broder 1997 (SEQUENCES).

Measured with all windows of WikiText-2 train and *War and Peace*: of WikiText-2 valid 0.4 % of the windows are in them, of
test 0.2 %, of Alice, Grimm and Shakespeare below 0.01 %. A text counts as read
where `SEEN` of its sampled windows are known.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch

from neuro import tensor_file, text
from neuro.errors import CheckError, UsageError

SCHEMA = "neuro.training_text/1"
NAME = "training_text.safetensors"
WORDS = 8
MOST = 32768  # windows kept
SEEN = 0.1  # share of known windows from which on a text counts as read
LEAST = 8  # sampled windows below which nothing is said about a text
DUPLICATE = 0.5  # share of an article's windows from which on it is a duplicate
_WORD = re.compile(r"\w+")


@dataclasses.dataclass(frozen=True)
class TrainingText:
    """The sampled windows of all that a model was trained on."""

    hashes: np.ndarray  # sorted uint64, each a multiple of ``every``
    every: int  # a power of two

    def share(self, raw: str) -> float | None:
        """Share of a text's sampled windows that are known; None for a text too short to tell."""
        found = windows(raw)
        found = found[found % np.uint64(self.every) == 0]
        return float(np.isin(found, self.hashes).mean()) if len(found) >= LEAST else None


def record(hashes: np.ndarray) -> TrainingText:
    """The sample of all windows (`windows`) of a training text."""
    every, kept = 1, np.unique(hashes)
    while len(kept) > MOST:
        every *= 2
        kept = kept[kept % np.uint64(every) == 0]
    return TrainingText(kept, every)


def joined(first: TrainingText, second: TrainingText) -> TrainingText:
    """The sample of two trainings, one after the other."""
    every = np.uint64(max(first.every, second.every))
    both = np.concatenate([part.hashes[part.hashes % every == 0] for part in (first, second)])
    found = record(both)
    return dataclasses.replace(found, every=max(int(every), found.every))


def write(folder: Path, made: TrainingText) -> None:
    """Put the record into a model's folder."""
    tensors = {"hashes": torch.from_numpy(made.hashes.astype(np.uint64).view(np.int64))}
    tensor_file.write(folder / NAME, tensors, {"schema": SCHEMA, "every": made.every, "words": WORDS})


def read(folder: Path) -> TrainingText | None:
    """The record of a model's folder; None where there is none.

    Raises:
        FormatError: truncated or foreign.
    """
    if not (folder / NAME).is_file():
        return None
    tensors, header = tensor_file.read(folder / NAME, SCHEMA)
    return TrainingText(tensors["hashes"].numpy().view(np.uint64), int(header["every"]))


def refuse_read(folder: Path, texts: dict[str, str], forced: bool) -> dict[str, float | None] | None:
    """Of each text by its name, the share that the model was trained on; None for a model that keeps no record.

    Raises:
        CheckError: a text was read in training, and ``forced`` is false.
    """
    made = read(folder)
    if made is None:
        return None
    shares = {name: made.share(raw) for name, raw in texts.items()}
    for name, share in shares.items():
        if share is not None and share >= SEEN and not forced:
            raise CheckError(
                f"{name}: got a text of which {100 * share:.0f} % was read in the training of this model, expected one that "
                f"it has not seen (below {100 * SEEN:.0f} %).",
                "Give another text, or --force to measure on this one all the same.",
            )
    return shares


def refuse_duplicates(train: np.ndarray, documents: Sequence[str], where: str) -> None:
    """Refuse articles of a validation text that the training text holds too.

    Args:
        train: windows of the training text.
        documents: of the validation text; WikiText's are looked at article by article.
        where: they come from.

    Raises:
        UsageError: naming the first of them.
    """
    articles = [article for document in documents for article in _articles(document)]
    known = np.unique(train)
    names = []
    for number, article in enumerate(articles, 1):
        found = windows(article)
        if len(found) and _known(found, known).mean() >= DUPLICATE:
            title = next(line for line in article.split("\n") if line.strip()).strip()[:40]
            names.append(f"{number} ('{title}')")
    if names:
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        raise UsageError(
            f"{where}: got {len(names)} of {len(articles)} articles that the training text holds too: {shown}; expected none.",
            "Take them out of data.train or data.valid; without data.valid the end of the training text is held out.",
        )


def _known(found: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which of ``found`` are among the sorted ``known``; unlike `numpy.isin` it does not sort millions for each article."""
    place = np.searchsorted(known, found)
    return np.append(known, np.uint64(0))[place] == found if len(known) else np.zeros(len(found), bool)


def of_documents(documents: Iterable[str]) -> np.ndarray:
    """The windows of all documents, none across two of them."""
    return np.concatenate([np.empty(0, np.uint64), *(windows(document) for document in documents)])


def windows(raw: str) -> np.ndarray:
    """A 64-bit hash of every window of 8 words -> [words - 7] uint64; of a text with fewer words, of all it has."""
    words = _WORD.findall(raw.casefold())
    numbers: dict[str, int] = {}
    for word in words:
        if word not in numbers:
            numbers[word] = int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little")
    ids = np.array([numbers[word] for word in words], dtype=np.uint64)
    size = min(WORDS, len(ids))
    found = np.zeros(len(ids) - size + 1 if size else 0, np.uint64)
    for place in range(size):
        found = found * np.uint64(0x9E3779B97F4A7C15) + ids[place : place + len(found)]
    # The finish of splitmix64: the low bits, by which is sampled, must depend on all.
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        found = (found ^ (found >> np.uint64(shift))) * np.uint64(factor)
    return found ^ (found >> np.uint64(31))


def _articles(document: str) -> list[str]:
    return ["\n".join(lines) for lines in text.articles(document.split("\n"))]
