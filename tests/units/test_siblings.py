"""The check that backends, export and sims lie beside neuro."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuro import _siblings
from neuro.errors import MissingError

HOME = Path(_siblings.__file__).resolve().parents[1]


def test_the_four_packages_lie_together():
    assert _siblings.origins() == {name: str(HOME / name) for name in ("neuro", "backends", "export", "sims")}
    _siblings.check()


@pytest.mark.parametrize(
    ("origin", "says"),
    [
        ("", "'sims' is not installed"),
        ("/elsewhere/sims", "'sims' would come from /elsewhere/sims"),
        (str(HOME / "sims.py"), "'sims' would come from "),
        (str(HOME / "simulators"), "'sims' would come from "),
    ],
)
def test_anything_else_is_refused(monkeypatch, origin, says):
    found = _siblings.origins() | {"sims": origin}
    monkeypatch.setattr(_siblings, "origins", lambda: found)
    with pytest.raises(MissingError, match=says):
        _siblings.check()
    with pytest.raises(MissingError):
        _siblings.check("sims")
    _siblings.check("export", "backends")


def test_another_distribution_with_our_names_is_told(monkeypatch):
    owners = {"sims": ["neuro-hybrid", "sims"], "export": ["neuro-hybrid"], "torch": ["torch"]}
    monkeypatch.setattr(_siblings.metadata, "packages_distributions", lambda: owners)
    assert _siblings.rivals() == {"sims": ["sims"]}
