"""Errors a user can cause: their two lines, exit codes, and the nearest word."""

from __future__ import annotations

import pytest

from backends import BackendError, ForbiddenOperatorError
from neuro import errors
from neuro.errors import CheckError, FormatError, MissingError, NeuroError, UsageError, nearest


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (NeuroError, 1),
        (FormatError, 1),
        (UsageError, 2),
        (MissingError, 3),
        (CheckError, 4),
        (BackendError, 3),
        (ForbiddenOperatorError, 1),
    ],
)
def test_an_error_is_two_lines_and_an_exit_code(kind, code):
    error = kind("where: got X, expected Y.", "Do Z.")
    assert (error.what, error.do, error.exit_code) == ("where: got X, expected Y.", "Do Z.", code)
    assert str(error) == "where: got X, expected Y.\nDo Z."


def test_every_error_of_the_brain_is_one_kind():
    kinds = [item for item in vars(errors).values() if isinstance(item, type) and not issubclass(item, Warning)]
    assert len(kinds) == 5 and all(issubclass(kind, NeuroError) for kind in kinds)


def test_the_nearest_word_is_named():
    assert nearest("slotz", ["slots", "top_k"]) == "Did you mean 'slots'?"


def test_without_a_near_word_all_are_listed_in_order():
    assert nearest("qqq", ("slots", "decay")) == "Known: decay, slots."
