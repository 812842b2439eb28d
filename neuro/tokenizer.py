"""Text to token ids and back: byte-level BPE (every string round-trips) or words; the only door to `tokenizers`."""

from __future__ import annotations

import codecs
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from neuro import atomic
from neuro.errors import FormatError, MissingError, UsageError

BOS = "<bos>"
UNKNOWN = "<unk>"
EOS = "<eos>"
_FIXED_WORDS = (EOS, UNKNOWN)
_BYTES = 256
# Cuts a literal "<bos>" in two: text can never forge the start of a document, and still round-trips.
_BOS_INSIDE = re.compile("(?<=<bo)(?=s>)")
_CHUNK = 1 << 20  # characters handed to the library at once: its offsets cost many times the text


def _byte_symbols() -> list[str]:
    """The 256 printable stand-ins that byte-level BPE writes for bytes 0..255 (GPT-2's table)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [b for b in range(_BYTES) if b not in printable]
    symbols = {b: chr(b) for b in printable} | {b: chr(_BYTES + i) for i, b in enumerate(others)}
    return [symbols[b] for b in range(_BYTES)]


class Tokenizer:
    """A trained vocabulary: text to token ids and back.

    kind "bpe": byte-level BPE. `<bos>` is id 0 and `<unk>` id 1; the literal text ``<unk>`` is that one token, a line
    feed is always a token of its own, and ``decode(encode(s)) == s`` for every string that UTF-8 can hold.
    kind "words": one token per whitespace-separated word and `<eos>` for the end of each line (the published WikiText
    protocol); unknown words become `<unk>`, and only the words come back, not the spacing.
    """

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        self._inner = inner
        self.kind: Literal["bpe", "words"] = "words" if isinstance(inner.model, models.WordLevel) else "bpe"
        self._bytes: list[bytes] | None = None
        self._words: dict[str, int] | None = None

    @property
    def vocab_size(self) -> int:
        """Number of ids: every id is below it."""
        return self._inner.get_vocab_size()

    @property
    def bos_id(self) -> int:
        """Id of the token that stands before a document: `<bos>`, or `<eos>` for kind "words" (a line ended before)."""
        return self._id(BOS if self.kind == "bpe" else EOS)

    @property
    def unk_id(self) -> int | None:
        """Id of the literal `<unk>`; None if the vocabulary has none."""
        return self._inner.token_to_id(UNKNOWN)

    @property
    def eos_id(self) -> int | None:
        """Id of the end-of-line word of kind "words"; None for kind "bpe"."""
        return self._inner.token_to_id(EOS)

    @property
    def never_written(self) -> tuple[int, ...]:
        """Ids that text never continues with: `<unk>`, and `<bos>` of kind "bpe" (of kind "words" it ends a line)."""
        ids = (self.unk_id, self.bos_id if self.kind == "bpe" else None)
        return tuple(sorted(i for i in ids if i is not None))

    @property
    def fingerprint(self) -> str:
        """Sha256 (hex) of the canonical JSON: equal for equal vocabularies, whatever the file's spacing."""
        canonical = json.dumps(
            json.loads(self._inner.to_str()), sort_keys=True, ensure_ascii=False, separators=(",", ":")
        )
        return hashlib.sha256(canonical.encode("utf-8")).hexdigest()

    def encode(self, text: str) -> list[int]:
        """The token ids of a text of any length; no `<bos>` is added."""
        ids: list[int] = []
        if self.kind == "words":
            unknown = self._id(UNKNOWN)
            end = self._id(EOS)
            if self._words is None:
                self._words = self._inner.get_vocab()
            for line in _lines(text):
                ids += (self._words.get(word, unknown) for word in line.split())
                if line.endswith("\n"):
                    ids.append(end)
            return ids
        for chunk in _chunks(text):
            try:
                for part in _BOS_INSIDE.split(chunk):
                    ids += self._inner.encode(part, add_special_tokens=False).ids
            except (TypeError, UnicodeEncodeError) as error:
                raise UsageError(
                    "encode: got text with a lone surrogate, expected text that UTF-8 can hold.",
                    "Read the text with encoding='utf-8' and errors='strict' or 'replace'.",
                ) from error
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids; bytes that are not UTF-8 (a cut character) become U+FFFD.

        Raises:
            UsageError: an id outside 0..vocab_size-1.
        """
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes one token stands for; part of a character where a token ends inside one.

        Raises:
            UsageError: an id outside 0..vocab_size-1.
        """
        if self._bytes is None:
            self._bytes = self._all_bytes()
        if not 0 <= token_id < len(self._bytes):
            raise UsageError(
                f"decode: got token id {token_id}, expected 0..{len(self._bytes) - 1}.",
                "Use the tokenizer that encoded these ids.",
            )
        return self._bytes[token_id]

    def save(self, path: Path | str) -> None:
        """Write the vocabulary as one JSON file in the `tokenizers` format."""
        atomic.write_text(path, self._inner.to_str(pretty=True))

    @classmethod
    def load(cls, path: Path | str) -> Tokenizer:
        """Read a file that `save` wrote.

        Raises:
            MissingError: there is no such file.
            FormatError: the file is truncated, or is not a byte-level BPE or word vocabulary.
        """
        path = Path(path)
        if not path.is_file():
            raise MissingError(
                f"{path}: got no such file, expected a tokenizer (tokenizer.json).",
                "Check the path, or train one with Tokenizer.train.",
            )
        try:
            text = path.read_text(encoding="utf-8")
            json.loads(text)
        except ValueError as error:
            raise FormatError(
                f"{path}: got a truncated or foreign file ({error}), expected a tokenizer in JSON.",
                "Copy the file again, or save the tokenizer again.",
            ) from error
        foreign = FormatError(
            f"{path}: got a JSON file that is not ours, expected a byte-level BPE or word vocabulary.",
            "Name a tokenizer.json that neuro wrote, or train one with Tokenizer.train.",
        )
        try:
            inner = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises a bare Exception for any bad file
            raise foreign from error
        words = isinstance(inner.model, models.WordLevel) and inner.token_to_id(EOS) is not None
        byte_level = isinstance(inner.model, models.BPE) and isinstance(inner.decoder, decoders.ByteLevel)
        byte_level = byte_level and inner.token_to_id(BOS) is not None
        if not (words or byte_level):
            raise foreign
        return cls(inner)

    @classmethod
    def train(cls, lines: Iterable[str], vocab_size: int, kind: Literal["bpe", "words"] = "bpe") -> Tokenizer:
        """Learn a vocabulary from lines (each without its line feed).

        Args:
            lines: the training text.
            vocab_size: number of ids including special tokens; training stops earlier when the text holds no more.
            kind: "bpe" (byte-level) or "words" (the most frequent whitespace words).

        Raises:
            UsageError: an unknown kind, or a vocabulary too small for its fixed part.
        """
        if kind == "words":
            return cls(_train_words(lines, vocab_size))
        if kind != "bpe":
            raise UsageError(f"Tokenizer.train: got kind '{kind}', expected 'bpe' or 'words'.", "Choose one of them.")
        special = [BOS, UNKNOWN]
        if vocab_size < _BYTES + len(special):
            raise UsageError(
                f"Tokenizer.train: got vocab_size {vocab_size}, expected at least {_BYTES + len(special)} "
                "(256 bytes and 2 special tokens).",
                "Ask for a larger vocabulary.",
            )
        inner = tokenizers.Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.Sequence(
            [
                # First, so that no run of line feeds or spaces merges with a line feed.
                pre_tokenizers.Split("\n", behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
        inner.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=special,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        inner.train_from_iterator(lines, trainer)
        return cls(inner)

    @classmethod
    def numbered(cls, size: int) -> Tokenizer:
        """A vocabulary of kind "words" in which every word is its own id, ``"17"`` is 17, after `<eos>` 0 and `<unk>` 1.

        Raises:
            UsageError: a size below 2.
        """
        _need_fixed(size)
        return cls(_words([str(number) for number in range(len(_FIXED_WORDS), size)]))

    def _id(self, token: str) -> int:
        number = self._inner.token_to_id(token)
        if number is None:
            raise FormatError(
                f"tokenizer: got a vocabulary without {token}, expected one that neuro trained.",
                "Train the vocabulary again with Tokenizer.train.",
            )
        return number

    def _all_bytes(self) -> list[bytes]:
        special = {number: token.content for number, token in self._inner.get_added_tokens_decoder().items()}
        byte_of = {symbol: byte for byte, symbol in enumerate(_byte_symbols())}
        table: list[bytes] = []
        for number in range(self.vocab_size):
            token = self._inner.id_to_token(number) or ""
            if self.kind == "words":
                table.append(b"\n" if token == EOS else f"{token} ".encode())
            elif number in special:
                table.append(b"" if token == BOS else special[number].encode())
            else:
                table.append(bytes(byte_of[symbol] for symbol in token))
        return table


class StreamDecoder:
    """Token ids to text as they come, never half a character: a cut UTF-8 character waits for its other bytes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """The text that this token completes, possibly empty."""
        return self._decoder.decode(self._tokenizer.token_bytes(token_id))

    def flush(self) -> str:
        """The end of the text: U+FFFD for bytes that never became a character. The decoder can be used again."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


def _train_words(lines: Iterable[str], vocab_size: int) -> tokenizers.Tokenizer:
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(line.split())
    counts.pop(EOS, None)
    counts.pop(UNKNOWN, None)
    _need_fixed(vocab_size)
    # Ties by spelling: the vocabulary depends on the text alone.
    return _words(sorted(counts, key=lambda word: (-counts[word], word))[: vocab_size - len(_FIXED_WORDS)])


def _need_fixed(vocab_size: int) -> None:
    if vocab_size < len(_FIXED_WORDS):
        raise UsageError(
            f"Tokenizer.train: got vocab_size {vocab_size}, expected at least {len(_FIXED_WORDS)} ({EOS} and {UNKNOWN}).",
            "Ask for a larger vocabulary.",
        )


def _words(words: list[str]) -> tokenizers.Tokenizer:
    vocabulary = {word: number for number, word in enumerate([*_FIXED_WORDS, *words])}
    inner = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return inner


def _lines(text: str) -> Iterator[str]:
    """Lines with their line feed; the last may have none. Only ``"\\n"`` ends a line."""
    start = 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        yield text[start:end]
        start = end


def _chunks(text: str) -> Iterator[str]:
    """Pieces of about a megabyte that end after a line feed, so that no token straddles two of them."""
    start = 0
    while len(text) - start > _CHUNK:
        end = text.find("\n", start + _CHUNK) + 1
        if not end:
            break
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]
