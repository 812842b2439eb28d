"""From a data configuration to token arrays: reads text, trains or loads the tokenizer, marks documents with <bos>."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from neuro import text, training_text
from neuro.config import DataConfig
from neuro.errors import MissingError, UsageError
from neuro.tokenizer import Tokenizer

VALID_SHARE = 0.02  # of the training documents' tokens, from the end, when no validation text is named


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Token ids (int32); every document starts with <bos> (in a vocabulary of words: the <eos> of the line before)."""

    train: np.ndarray
    starts: np.ndarray  # where the documents of train begin
    valid: np.ndarray
    tokenizer: Tokenizer
    seen: training_text.TrainingText  # of all training documents, the end that is held out among them


def prepare(data: DataConfig, vocab_size: int, kept: Path | None = None) -> Corpus:
    """Read and tokenize; nothing is written.

    Args:
        data: what to read.
        vocab_size: of a tokenizer that is trained here.
        kept: the tokenizer.json of a run that goes on; None makes or loads the one that ``data`` asks for.

    Raises:
        UsageError: no training text, too little of it, a kept tokenizer of another kind than asked for, or articles that
            both the training and the validation text hold.
        MissingError, FormatError: a file that is not there or cannot be read as text.
    """
    if not data.train:
        raise UsageError("config data.train: is empty, expected a text file, a folder or 'hf:NAME'.", "Set data.train.")
    documents = read_documents(data.train)
    kind = data.tokenizer
    if kept is not None:
        tokenizer = Tokenizer.load(kept)
        if kind in ("bpe", "words") and tokenizer.kind != kind:
            raise UsageError(
                f"{kept}: got a tokenizer of kind '{tokenizer.kind}', expected '{kind}' as in data.tokenizer.",
                "Set data.tokenizer back, or choose another --out.",
            )
    elif kind in ("bpe", "words"):
        lines = (line + "\n" for document in documents for line in document.split("\n"))
        tokenizer = Tokenizer.train(lines, vocab_size, kind="words" if kind == "words" else "bpe")
    else:
        tokenizer = Tokenizer.load(Path(kind))
    parts = [encode([document], tokenizer) for document in documents]
    train, starts = np.concatenate([encode([], tokenizer), *parts]), np.cumsum([0, *map(len, parts[:-1])])
    windows = training_text.of_documents(documents)
    if data.valid:
        held_out = read_documents(data.valid)
        training_text.refuse_duplicates(windows, held_out, f"train: {data.valid}")
        valid = encode(held_out, tokenizer)
    else:
        cut = len(train) - max(2, int(len(train) * VALID_SHARE))
        train, starts, valid = train[:cut], starts[starts < cut], train[cut:]
    if len(train) < 2:
        raise UsageError(f"{data.train}: {len(train)} tokens, expected at least 2.", "Give more text.")
    return Corpus(train, starts, valid, tokenizer, training_text.record(windows))


def read_documents(source: str) -> list[str]:
    """The documents of a file (one), a folder (one per file, sorted), or a Hugging Face dataset (one per row)."""
    if source.startswith("hf:"):
        from neuro.hf.datasets import read_documents as read_rows

        return read_rows(source.removeprefix("hf:"))
    path = Path(source)
    if not path.exists():
        raise MissingError(f"{path}: no such file or folder.", "Correct data.train or data.valid.")
    return [text.read_text(file) for file in (text_files(path) if path.is_dir() else [path])]


def text_files(folder: Path) -> list[Path]:
    """Its text files, sorted.

    Raises:
        MissingError: it has none.
    """
    files = sorted(path for path in folder.iterdir() if path.name.endswith((".txt", ".txt.gz", ".md")))
    if not files:
        raise MissingError(f"{folder}: no .txt, .txt.gz or .md file in it.", "Put text files there.")
    return files


def encode(documents: list[str], tokenizer: Tokenizer) -> np.ndarray:
    """Ids of all documents in order, each after a <bos>."""
    ids: list[int] = []
    for document in documents:
        ids.append(tokenizer.bos_id)
        ids += tokenizer.encode(document)
    return np.array(ids, dtype=np.int32)
