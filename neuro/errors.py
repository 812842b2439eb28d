"""Errors a user can cause, each with what happened, what to do about it, and the exit code of the command line.

The text is always two lines: ``where: got X, expected Y.`` and ``Do Z.``
"""

from __future__ import annotations


class NeuroError(Exception):
    """Something failed while running (exit code 1).

    Args:
        what: where it happened, what was found and what was expected.
        do: what the user can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, do: str) -> None:
        super().__init__(f"{what}\n{do}")
        self.what = what
        self.do = do


class UsageError(NeuroError):
    """A wrong argument, option, configuration key or shape (exit code 2)."""

    exit_code = 2


class MissingError(NeuroError):
    """Something this job needs is not here: a model, an extra, a backend, a file (exit code 3)."""

    exit_code = 3


class FormatError(NeuroError):
    """A file that is truncated, foreign, or of another version (exit code 1)."""


class CheckError(NeuroError):
    """A check said no: parity broken, fingerprint differs (exit code 4)."""

    exit_code = 4


class NeuroWarning(UserWarning):
    """Something that runs, but not as its settings seem to say."""


def nearest(word: str, known: list[str] | tuple[str, ...]) -> str:
    """``"did you mean 'x'?"`` for the closest known word, or the list of all of them."""
    import difflib

    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f"Did you mean '{close[0]}'?"
    return "Known: " + ", ".join(sorted(known)) + "."
