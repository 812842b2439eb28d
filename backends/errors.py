"""Errors of the backend layer; they carry the same `what`, `do` and `exit_code` as the errors of the brain."""

from __future__ import annotations


class BackendError(RuntimeError):
    """A backend that is not here, or an operator that the backend's rules forbid (exit code 3)."""

    exit_code = 3

    def __init__(self, what: str, do: str) -> None:
        super().__init__(f"{what}\n{do}")
        self.what = what
        self.do = do


class ForbiddenOperatorError(BackendError):
    """A dispatched operator that scatter-free devices cannot run (see `backends.guard`)."""

    exit_code = 1
