"""Our tokenizer.json as a fast tokenizer of transformers, with the ids that `neuro.tokenizer.Tokenizer` gives."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from transformers import BatchEncoding, PreTrainedTokenizerFast

from neuro import atomic
from neuro.errors import UsageError
from neuro.hf.hub import local_folder
from neuro.tokenizer import BOS, UNKNOWN

# Cuts a literal "<bos>" in two, as our tokenizer does: text can never forge the start of a document.
_BOS_INSIDE = re.compile("(?<=<bo)(?=s>)")


class NeuroTokenizer(PreTrainedTokenizerFast):
    """Byte-level BPE with `<bos>` (id 0) and `<unk>` (id 1), padded on the left.

    ``tokenizer(text)["input_ids"]`` equals ``Tokenizer.encode(text)``. A document starts with `<bos>`, which that does
    not add: ``from_pretrained(folder, add_bos_token=True)`` adds it to every text (unless ``add_special_tokens=False``). It
    is a choice of every load, not kept by ``save_pretrained``: what is saved is our tokenizer.json, unchanged.
    Padding is written as `<unk>`, which no generation writes by default; the attention mask says where it lies.
    """

    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012 - transformers reads it from the class
    padding_side = "left"

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """Load from a shipped model's name, a model folder, or a Hugging Face id.

        Raises:
            MissingError: no such model.
            UsageError: the closed vocabulary of words, which cannot be a fast tokenizer.
        """
        folder = local_folder(pretrained_model_name_or_path, kwargs)
        special = {"bos_token": BOS, "unk_token": UNKNOWN, "pad_token": UNKNOWN, "eos_token": None}
        tokenizer = super().from_pretrained(folder, *args, **(special | kwargs))
        if type(tokenizer.backend_tokenizer.model).__name__ == "WordLevel":
            raise UsageError(
                f"{folder}: its tokenizer is a closed vocabulary of words, expected byte-level BPE.",
                "Use neuro.load(...).tokenizer, which knows lines and words.",
            )
        return tokenizer

    def _encode_plus(  # type: ignore[override]
        self, text: Any, text_pair: Any = None, *, is_split_into_words: bool = False, **kwargs: Any
    ) -> BatchEncoding:
        # The backend would read a literal "<bos>" as the token; the two halves it is cut into are "words" of one text.
        if not is_split_into_words and (_holds_bos(text) or _holds_bos(text_pair)):
            text, text_pair, is_split_into_words = _cut(text), _cut(text_pair), True
        return super()._encode_plus(text, text_pair, is_split_into_words=is_split_into_words, **kwargs)

    def _save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> tuple[str, ...]:
        files = super()._save_pretrained(save_directory, *args, **kwargs)
        path = Path(save_directory) / "tokenizer.json"
        # What transformers adds for itself would make it another tokenizer to `neuro.load`, which knows its fingerprint.
        record = json.loads(path.read_text(encoding="utf-8"))
        record |= {"post_processor": None, "truncation": None, "padding": None}
        atomic.write_text(path, json.dumps(record, indent=2, ensure_ascii=False))
        return files


def _holds_bos(text: Any) -> bool:
    return any(map(_holds_bos, text)) if isinstance(text, list | tuple) else isinstance(text, str) and BOS in text


def _cut(text: Any) -> Any:
    """A text as the list of its pieces; a batch of texts as a list of such lists."""
    if isinstance(text, list | tuple):
        return [_cut(item) for item in text]
    return text if text is None else _BOS_INSIDE.split(text)
