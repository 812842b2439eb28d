"""A spiking network as a chip sees it: groups of neurons, how often they fire, and projections between them.

Torch-free, JSON on disk. Neurons are numbered through all groups in the order given. A group with a shape ``(x, y, c)``
numbers its neurons with x slowest and the channel fastest, so that columns of a picture stay together.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro import atomic
from neuro.errors import FormatError, MissingError, UsageError, nearest
from neuro.workload import Population, of_schema

SCHEMA = "neuro.network/1"
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Group:
    """Neurons of one kind.

    Args:
        rate: spikes per neuron and step, one number or one per neuron.
        placed: False for inputs that come from outside and take no place on the chip.
        shape: (x, y, channels) where a convolution reads or writes it.
        region: of the brain, if any.
    """

    name: str
    neurons: int
    rate: float | Floats = 0.0
    placed: bool = True
    shape: tuple[int, int, int] | None = None
    region: str = ""

    def __post_init__(self) -> None:
        where = f"network group '{self.name}'"
        if isinstance(self.neurons, bool) or not isinstance(self.neurons, int) or self.neurons < 0:
            raise UsageError(f"{where}: got neurons={self.neurons!r}, expected a count >= 0.", "Correct the count.")
        if not isinstance(self.placed, bool):
            raise UsageError(f"{where}: got placed={self.placed!r}, expected true or false.", "Give one of the two.")
        if self.shape is not None and (len(self.shape) != 3 or math.prod(self.shape) != self.neurons):
            raise UsageError(
                f"{where}: got shape {list(self.shape)}, expected [x, y, channels] of {self.neurons} neurons.",
                "Give a shape whose product is the number of neurons.",
            )
        try:
            rate = np.asarray(self.rate, dtype=np.float64)
        except (TypeError, ValueError):
            rate = np.array(np.nan)
        if rate.shape not in ((), (self.neurons,)) or not np.isfinite(rate).all() or (rate < 0).any():
            raise UsageError(
                f"{where}: got a rate that is no finite number >= 0 (or one for each of {self.neurons} neurons).",
                "Give spikes per neuron and step.",
            )

    @property
    def rates(self) -> Floats:
        """Spikes per step [neurons]."""
        return np.broadcast_to(np.asarray(self.rate, np.float64), (self.neurons,))


@dataclasses.dataclass(frozen=True)
class Dense:
    """Every neuron of the source reaches every neuron of the target."""

    source: str
    target: str
    weight_bits: int = 8


@dataclasses.dataclass(frozen=True)
class Conv2d:
    """A convolution between two groups with shapes; all positions share one kernel."""

    source: str
    target: str
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    groups: int = 1
    weight_bits: int = 8


@dataclasses.dataclass(frozen=True)
class Sparse:
    """Source neuron i reaches ``targets[offsets[i]:offsets[i + 1]]``; every synapse has its own weight."""

    source: str
    target: str
    offsets: Ints
    targets: Ints
    weight_bits: int = 8


Projection = Dense | Conv2d | Sparse
KINDS: dict[str, type[Dense] | type[Conv2d] | type[Sparse]] = {"dense": Dense, "conv2d": Conv2d, "sparse": Sparse}


@dataclasses.dataclass(frozen=True)
class Network:
    """Groups and projections, checked against each other."""

    name: str
    groups: tuple[Group, ...]
    projections: tuple[Projection, ...]

    def __post_init__(self) -> None:
        names = [group.name for group in self.groups]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"network: got two groups '{name}', expected each name once.", "Rename one of them.")
        for projection in self.projections:
            for end in (projection.source, projection.target):
                if end not in names:
                    raise UsageError(f"network: got a projection of '{end}', expected a group.", nearest(end, names))
            where = f"network projection '{projection.source}' to '{projection.target}'"
            _check(where, projection, self[projection.source], self[projection.target])

    def __getitem__(self, name: str) -> Group:
        return next(group for group in self.groups if group.name == name)

    @cached_property
    def starts(self) -> dict[str, int]:
        """The number of each group's first neuron."""
        ends = np.cumsum([0, *(group.neurons for group in self.groups)])
        return {group.name: int(start) for group, start in zip(self.groups, ends[:-1], strict=True)}

    @property
    def neurons(self) -> int:
        return sum(group.neurons for group in self.groups)

    def incoming(self, group: str) -> list[Projection]:
        return [projection for projection in self.projections if projection.target == group]

    def span(self, group: str) -> slice:
        """The group's neurons among all."""
        return slice(self.starts[group], self.starts[group] + self[group].neurons)

    @property
    def rates(self) -> Floats:
        """Spikes per step [neurons]."""
        return np.concatenate([np.zeros(0), *(group.rates for group in self.groups)])

    def without(self, names: Sequence[str]) -> Network:
        """The network that is left when groups and their projections are taken out."""
        if not names:
            return self
        kept = tuple(p for p in self.projections if p.source not in names and p.target not in names)
        return Network(self.name, tuple(group for group in self.groups if group.name not in names), kept)

    def to_json(self) -> str:
        kinds = {kind: name for name, kind in KINDS.items()}
        record = {
            "schema": SCHEMA,
            "name": self.name,
            "groups": [_plain(group) for group in self.groups],
            "projections": [{"kind": kinds[type(p)]} | _plain(p) for p in self.projections],
        }
        return json.dumps(record) + "\n"

    def write(self, path: str | Path) -> None:
        atomic.write_text(path, self.to_json())


def from_populations(populations: Sequence[Population], name: str = "workload") -> Network:
    """Spiking populations as a run counted them.

    Each reaches all neurons of its target where it says so and has as many, else compartments of its own: how a convolution
    goes from one population to the next is not in the counts.
    """
    groups: list[Group] = []
    projections: list[Projection] = []
    neurons = {p.name: p.neurons for p in populations}
    for p in populations:
        rate = p.spikes / p.updates if p.updates else 0.0
        groups.append(Group(p.name, p.neurons, rate, region=p.region))
        if p.fan_out and neurons.get(p.target) == p.fan_out:
            projections.append(Dense(p.name, p.target, p.weight_bits))
        elif p.fan_out:
            targets = f"{p.name}, its targets"
            groups.append(Group(targets, p.fan_out, region=p.region))
            projections.append(Dense(p.name, targets, p.weight_bits))
    return Network(name, tuple(groups), tuple(projections))


def from_json(text: str, where: str = "network") -> Network:
    """Read a network written by `Network.to_json`.

    Raises:
        FormatError: not JSON, another schema, a missing or unknown key, or a network that is none.
    """
    again = "Write it again with Network.write."
    data = of_schema(text, SCHEMA, where, again)
    try:
        groups = tuple(Group(**{key: _group_value(key, value) for key, value in row.items()}) for row in data["groups"])
        projections = []
        for row in data["projections"]:
            if row["kind"] not in KINDS:
                kinds = list(KINDS)
                what = f"{where}: got a projection of kind {row['kind']!r}, expected one of {', '.join(kinds)}."
                raise FormatError(what, nearest(str(row["kind"]), kinds))
            values = {key: _projection_value(key, value) for key, value in row.items() if key != "kind"}
            projections.append(KINDS[row["kind"]](**values))
        return Network(data["name"], groups, tuple(projections))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise FormatError(f"{where}: not a network ({error}).", again) from error
    except UsageError as error:
        raise FormatError(f"{where}: {error.what}", error.do) from error


def read(path: str | Path) -> Network:
    """Read a network's file.

    Raises:
        MissingError: no such file.
        FormatError: it cannot be read or is no network.
    """
    if not Path(path).exists():
        raise MissingError(f"{path}: no such file.", "Give a network that Network.write wrote.")
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: {error}.", "Give a network that Network.write wrote.") from error
    return from_json(text, str(path))


def _check(where: str, projection: Projection, source: Group, target: Group) -> None:
    bits = projection.weight_bits
    if isinstance(bits, bool) or not isinstance(bits, int) or bits < 1:
        raise UsageError(f"{where}: got weight_bits={bits!r}, expected 1 or more.", "Give the width of one weight.")
    if not target.placed:
        raise UsageError(f"{where}: the target comes from outside.", "Give the target placed=true.")
    if isinstance(projection, Sparse):
        offsets, targets = projection.offsets, projection.targets
        rising = len(offsets) == source.neurons + 1 and offsets[0] == 0 and bool((np.diff(offsets) >= 0).all())
        if not rising or offsets[-1] != len(targets):
            raise UsageError(
                f"{where}: got {len(offsets)} offsets for {source.neurons} neurons and {len(targets)} targets, "
                f"expected {source.neurons + 1}, rising from 0 to {len(targets)}.",
                "Give the rows of a compressed sparse matrix.",
            )
        if len(targets) and not (0 <= targets.min() and targets.max() < target.neurons):
            raise UsageError(f"{where}: got a target outside 0 to {target.neurons - 1}.", "Correct the targets.")
        keys = np.sort(np.repeat(np.arange(source.neurons), np.diff(offsets)) * max(1, target.neurons) + targets)
        if (keys[1:] == keys[:-1]).any():
            raise UsageError(f"{where}: got a target twice in one row, expected once.", "Add their weights up.")
    if isinstance(projection, Conv2d):
        if source.shape is None or target.shape is None:
            raise UsageError(f"{where}: a convolution needs two groups with shapes.", "Give both shape=(x, y, c).")
        numbers = (*projection.kernel, *projection.stride, projection.groups)
        if min(numbers) < 1 or min(projection.padding) < 0:
            raise UsageError(
                f"{where}: got kernel {list(projection.kernel)}, stride {list(projection.stride)}, padding "
                f"{list(projection.padding)}, groups {projection.groups}, expected counts.",
                "Give kernel, stride and groups of at least 1, padding of at least 0.",
            )
        if source.shape[2] % projection.groups or target.shape[2] % projection.groups:
            raise UsageError(
                f"{where}: got {source.shape[2]} and {target.shape[2]} channels in {projection.groups} groups.",
                "Give groups that divide both.",
            )
        expected = [
            (n + 2 * pad - k) // step + 1
            for n, k, step, pad in zip(
                source.shape, projection.kernel, projection.stride, projection.padding, strict=False
            )
        ]
        if expected != list(target.shape[:2]):
            raise UsageError(
                f"{where}: got a target of {target.shape[0]}x{target.shape[1]}, "
                f"expected {expected[0]}x{expected[1]} from kernel, stride and padding.",
                "Correct the target's shape.",
            )


def _plain(row: Group | Projection) -> dict[str, Any]:
    record = {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
    return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in record.items()}


def _group_value(key: str, value: Any) -> Any:
    if key == "shape" and value is not None:
        return tuple(int(x) for x in value)
    return np.array(value, np.float64) if key == "rate" and isinstance(value, list) else value


def _projection_value(key: str, value: Any) -> Any:
    if key in ("offsets", "targets"):
        found = np.array(value)
        if found.size and found.dtype != np.int64:
            raise TypeError(f"{key} are no whole numbers")
        return found.astype(np.int64)
    return tuple(int(x) for x in value) if key in ("kernel", "stride", "padding") else value
