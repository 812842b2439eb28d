"""Finished pieces of an evaluation on disk, so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import neuro
from neuro import atomic, folder
from neuro.brain import Brain
from neuro.errors import FormatError

SCHEMA = "neuro.eval.part/1"


class Parts:
    """Reads a piece that was finished before, computes and keeps any other.

    A piece's file is named by a fingerprint of all that its numbers, but for rounding, follow from: the version of this
    package, the weights and configuration, the backend, the text and the settings. Another run in the same folder has
    other names: two evaluations never mix.

    Args:
        out: the evaluation's folder; pieces lie in ``out/parts``. None keeps nothing.
        suite: its name.
        model: what is evaluated: a brain, or all that the numbers of another model follow from, JSON-able.
        text: what it reads.
        settings: of the suite, JSON-able.
        say: told what is being computed, or was found.
    """

    def __init__(
        self,
        out: Path | None,
        suite: str,
        model: Brain | Mapping[str, Any],
        text: str,
        settings: dict[str, Any],
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.out, self.suite, self.say = out, suite, say
        self.key = ""
        if out is not None:
            follows_from = {
                "version": neuro.__version__,
                "suite": suite,
                **(_known_by(model) if isinstance(model, Brain) else model),
                "text": hashlib.sha256(text.encode("utf-8")).hexdigest(),
                "settings": settings,
            }
            self.key = hashlib.sha256(json.dumps(follows_from, sort_keys=True).encode()).hexdigest()

    def get(self, name: str, what: str, compute: Callable[[], Any]) -> Any:
        """The piece's JSON-able value.

        Args:
            name: of the file, unlike any other piece's of this evaluation.
            what: the same in words.
            compute: makes the value where there is none.

        Raises:
            FormatError: the file is not such a piece.
            NeuroError: it cannot be written.
        """
        if self.out is None:
            self.say(f"{what} ...")
            return compute()
        path = self.out / "parts" / f"{self.suite}-{self.key[:16]}-{name}.json"
        if path.is_file():
            self.say(f"{what}: finished before")
            return self._read(path)
        self.say(f"{what} ...")
        value = compute()
        atomic.write_text(path, json.dumps({"schema": SCHEMA, "key": self.key, "value": value}) + "\n")
        return value

    def _read(self, path: Path) -> Any:
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FormatError(f"{path}: {error}.", "Remove this file; it is computed again.") from error
        if not isinstance(record, dict) or record.get("schema") != SCHEMA or record.get("key") != self.key:
            raise FormatError(
                f"{path}: got another file, expected a finished piece of this evaluation.",
                "Remove this file; it is computed again.",
            )
        return record["value"]


def _known_by(brain: Brain) -> dict[str, Any]:
    return {
        "model": folder.fingerprint(brain),
        "tokenizer": brain.tokenizer.fingerprint,
        "backend": [brain.backend.name, str(brain.backend.dtype)],
    }
