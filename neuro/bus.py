"""The event bus inside a step: declared channels, wired once, run as straight-line code.

A region reads and writes channels by name. ``name~`` reads the value held since the last commit, so inside a span the
wiring has no cycle and a scan can equal a fold of steps.
"""

from __future__ import annotations

import dataclasses
import graphlib
from collections.abc import Sequence
from typing import Protocol

from neuro.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Channel:
    """A named tensor inside a step. ``silent``: its constant value when no region writes it (None: it has none)."""

    name: str
    axes: str
    silent: float | str | None = None  # a str names the channel of `INPUTS` that stands in for it


CHANNELS = {
    channel.name: channel
    for channel in (
        Channel("token", "[B,T]"),
        Channel("embedding", "[B,T,D]"),
        Channel("prosody", "[B,T,C]"),
        Channel("valid", "[B,T]"),
        Channel("relay", "[B,T,D]", "embedding"),
        Channel("route", "[B,T,L]", 1.0),
        Channel("route_drive", "[B,T,L]"),
        Channel("affect", "[B,T,2]", 0.0),
        Channel("salience", "[B,T]", 0.5),
        Channel("hidden", "[B,T,D]"),
        Channel("context", "[B,T,D]"),
        Channel("spikes", "[B,T,S]"),
        Channel("layer_rates", "[B,T,S]"),
        Channel("spike_rate", "[B,T]"),
        Channel("raster", "[B,T,S,N]"),
        Channel("membrane", "[B,T,S,N]"),
        Channel("recall", "[B,T,D]", 0.0),
        Channel("recall_gate", "[B,T]", 0.0),
        Channel("novelty", "[B,T]", 0.0),
        Channel("pair_key", "[B,T,K]"),
        Channel("pair_phrase", "[B,T,W]"),
        Channel("pair_value", "[B,T,D]"),
        Channel("pair_candidate", "[B,T]"),
        Channel("copied", "[B,T,V]"),
        Channel("place_share", "[B,T]"),
        Channel("eligibility", "[B,T,R]"),
        Channel("features", "[B,T,D]"),
        Channel("logits", "[B,T,V]"),
        Channel("read_before", "[B,T,D]"),
        Channel("modulators~", "[B,H]", 0.5),
        Channel("affect~", "[B,2]"),
        Channel("surprise~", "[B]"),
        Channel("novelty~", "[B]"),
        Channel("spike_rate~", "[B]"),
    )
}
INPUTS = ("token", "embedding", "prosody", "valid")
# What a commit reads, through the span buffer, of what the regions write; it makes surprise of the logits.
COMMITTED = (
    "affect", "salience", "spike_rate", "novelty", "pair_key", "pair_value", "pair_candidate", "eligibility", "logits",
    "read_before",
)  # fmt: skip


class Wired(Protocol):
    """What the bus needs to know of a region."""

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Wiring:
    """The checked result: regions in running order, and the channels that nobody writes."""

    order: tuple[str, ...]
    silent: tuple[str, ...]
    edges: tuple[tuple[str, str, str], ...]
    """(writer, channel, reader); the writer of feedback is "commit", of a constant "silent"."""


def wire(regions: Sequence[Wired]) -> Wiring:
    """Check the declarations and sort the regions once.

    Raises:
        UsageError: an unknown channel, two writers, no writer and no silent value, a write to feedback, one name twice,
            or a cycle inside a step.
    """
    writer = {name: "input" for name in INPUTS}
    names: set[str] = set()
    for region in regions:
        if region.name in names:
            raise UsageError(f"bus: two regions are called '{region.name}'.", "Give each region its own name.")
        names.add(region.name)
        for name in region.writes:
            if name not in CHANNELS:
                raise UsageError(
                    f"bus: {region.name} writes the unknown channel '{name}'.", "Declare it in neuro/bus.py."
                )
            if name.endswith("~"):
                raise UsageError(
                    f"bus: {region.name} writes the feedback channel '{name}'.",
                    "Feedback is written by the commit alone.",
                )
            if name in writer:
                raise UsageError(
                    f"bus: '{name}' has two writers, {writer[name]} and {region.name}.", "Give each channel one writer."
                )
            writer[name] = region.name
    silent: list[str] = []
    edges: list[tuple[str, str, str]] = []
    graph: dict[str, set[str]] = {}
    for region in regions:
        needs = graph.setdefault(region.name, set())
        for name in region.reads:
            if name not in CHANNELS:
                raise UsageError(
                    f"bus: {region.name} reads the unknown channel '{name}'.", "Declare it in neuro/bus.py."
                )
            if name.endswith("~"):
                edges.append(("commit", name, region.name))
                continue
            if name not in writer:
                stand_in = CHANNELS[name].silent
                if stand_in is None:
                    raise UsageError(
                        f"bus: {region.name} reads '{name}', which no region writes.", "Switch its writer on."
                    )
                if name not in silent:
                    silent.append(name)
                source = writer[stand_in] if isinstance(stand_in, str) else "silent"
                edges.append((source, name, region.name))
                continue
            edges.append((writer[name], name, region.name))
            if writer[name] != "input":
                needs.add(writer[name])
    try:
        order = tuple(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        circle = " -> ".join(error.args[1])
        raise UsageError(
            f"bus: a cycle inside a step: {circle}.", "Read one of them across the span as 'name~'."
        ) from None
    return Wiring(order, tuple(silent), tuple(edges))
