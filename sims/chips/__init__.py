"""Chips as data."""

from __future__ import annotations

from sims.chips.chip import FOLDER, SCHEMA, Chip, Row, Topology, load, names

__all__ = ["FOLDER", "SCHEMA", "Chip", "Row", "Topology", "load", "names"]
