"""What MODEL names on the command line: a shipped model, a folder, or a model on the Hugging Face hub."""

from __future__ import annotations

import argparse
from pathlib import Path

from neuro import folder
from neuro.brain import Brain
from neuro.errors import MissingError
from neuro.extras import installed
from neuro.hf import hub


def locate(name: str) -> Path:
    """The folder of MODEL; a Hugging Face id (``org/name``) is downloaded where it is not cached.

    Raises:
        MissingError: none of the three; where the hub cannot be asked, how to get what asks it.
    """
    try:
        return folder.locate(name)
    except MissingError as error:
        if not Path(name).exists() and any(map(str.isspace, name)):
            do = "The model comes before the text, for example: neuro run small 'Once upon a time'."
            raise MissingError(error.what, do) from None
        if Path(name).exists() or not hub.is_repository(name):
            raise
        if not installed("huggingface_hub"):
            do = f"{error.do} A model of the Hugging Face hub needs: pip install 'neuro-hybrid[hf]'"
            raise MissingError(error.what, do) from None
    return hub.local_folder(name, {})


def load(name: str, args: argparse.Namespace, record_raster: bool = False, record_membrane: bool = False) -> Brain:
    """MODEL as the common options ask for it."""
    return folder.load(locate(name), args.backend, record_raster, args.set, record_membrane)
