"""Where a model named to ``from_pretrained`` lies on this disk."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neuro import folder
from neuro.errors import MissingError
from neuro.extras import require

FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "generation_config.json",
    "tokenizer_config.json",
    "training_text.safetensors",
)
_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "token")
_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")  # not "./folder"


def is_repository(name: str | os.PathLike[str]) -> bool:
    """Whether a name has the form of a Hugging Face id, ``org/name``."""
    return _REPOSITORY.fullmatch(os.fspath(name)) is not None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within the block the hub's client does not report each of its attempts: the error says that none got through."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def local_folder(name: str | os.PathLike[str], options: dict[str, Any]) -> Path:
    """The folder of a shipped model's name, of a path, or of a Hugging Face id (downloaded where it is not cached).

    Args:
        name: what the user wrote.
        options: the call's keyword arguments; those that say how to download are taken out.

    Raises:
        MissingError: none of the three, or the hub cannot be reached.
    """
    download = {key: options.pop(key) for key in _OPTIONS if key in options}
    try:
        return folder.locate(os.fspath(name))
    except MissingError:
        if Path(name).exists() or not is_repository(name):
            raise
    hub = require("huggingface_hub", "hf")
    try:
        with quiet():
            return Path(hub.snapshot_download(os.fspath(name), allow_patterns=list(FILES), **download))
    except Exception as error:  # the library raises whatever its transport raises
        raise MissingError(
            f"model '{name}': neither a folder here nor to be had from the Hugging Face hub "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}).",
            "Check the name and the connection, or give a local folder.",
        ) from error
