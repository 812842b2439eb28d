"""Extras: the table agrees with pyproject.toml, absence is seen without importing, and its error says what to type."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path

import pytest

from neuro.errors import MissingError
from neuro.extras import EXTRAS, installed, require

PROJECT = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def plain(name: str) -> str:
    """The bare name of a requirement, without the dashes in which import names and distribution names differ."""
    return re.split(r"[\[<>=!~; ]", name)[0].replace("-", "").replace("_", "").lower()


def test_the_table_names_the_extras_of_the_project_and_looks_for_what_they_bring():
    declared = PROJECT["optional-dependencies"]
    assert set(EXTRAS) == set(declared)
    for extra, costs in EXTRAS.items():
        assert {plain(name) for name in costs} <= {plain(name) for name in declared[extra]}, extra
        assert all(costs.values())


def test_require_imports():
    assert require("json", "hf") is json


def test_require_names_the_extra():
    with pytest.raises(MissingError, match=re.escape("no_such_package")) as caught:
        require("no_such_package", "hf")
    assert caught.value.exit_code == 3 and caught.value.do == "pip install 'neuro-hybrid[hf]'"


def test_a_folder_of_the_same_name_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "some_extra").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not installed("some_extra")
    (tmp_path / "other_extra.py").write_text("raise SystemExit('imported')")
    assert installed("other_extra") and "other_extra" not in sys.modules


def test_a_module_without_a_spec_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_directml", None)
    assert not installed("torch_directml")
