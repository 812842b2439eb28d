"""Integers that add up while a module runs, by submodule and kind, and the workload they make."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable

import torch
from torch import Tensor, nn

from neuro.errors import NeuroError
from neuro.workload import Operation, Phase, Population, Traffic, Workload
from sims.counting.tags import DENSE, Drive, Tag

CHIP_WEIGHT_BITS = 8  # a wider synapse is quantized to it on a chip, as the exporters do


class Neurons:
    """What a population did so far."""

    def __init__(self, path: str, drive: Drive, bits: int) -> None:
        self.path, self.drive, self.bits = path, drive, bits
        self.neurons = self.spikes = self.synaptic_ops = self.updates = 0
        self.targets: dict[str, int] = {}  # most of a neuron, by projection
        self.step: object = None  # what their last step looked like, and the bytes of state that it moved
        self.moved = 0


class Tally:
    """What rules tell of the submodule that runs.

    Args:
        paths: submodules of what is counted, by path.
        allow_uncounted: list operators without a rule instead of raising.
    """

    def __init__(self, paths: dict[str, nn.Module], allow_uncounted: bool) -> None:
        self.paths, self.allow_uncounted = paths, allow_uncounted
        self.seconds, self.meta = 0.0, False
        self.neurons: dict[str, Neurons] = {}
        self.awaited: set[str] = set()  # paths of neurons that have not run
        self.anywhere = False  # whether there may be others
        self.spiking = False  # whether it matters what drives neurons: some may still run for the first time
        self._rows: dict[tuple[str, str, str], list[int | None]] = {}
        self._traffic: dict[tuple[str, str], list[int]] = {}
        self._uncounted: dict[str, int] = {}
        self._products: dict[str, int] = {}  # of each weight, how often it was multiplied
        self.places = [""]  # paths of what runs, the innermost last
        self.updating = 0  # depth of neurons, whose arithmetic is their update
        self.covering = 0  # depth of those of them without a matrix, whose operators may all be unknown

    @property
    def path(self) -> str:
        """Of the submodule that runs."""
        return self.places[-1]

    def emit(
        self, kind: str, count: int, signal: str = DENSE, effective: int | None = None, path: str | None = None
    ) -> None:
        """Add operations to the running submodule, or to the one at ``path``."""
        if not count or (self.updating and kind != "mac"):
            return
        key = (self.places[-1] if path is None else path, kind, signal)
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = [0, 0]
        row[0] = (row[0] or 0) + count
        row[1] = None if effective is None or row[1] is None else row[1] + effective

    def move(self, store: str, read: int, written: int, path: str | None = None) -> None:
        """Add bytes that the running submodule, or the one at ``path``, reads from and writes to a store."""
        key = (self.places[-1] if path is None else path, store)
        row = self._traffic.get(key)
        if row is None:
            row = self._traffic[key] = [0, 0]
        row[0] += read
        row[1] += written

    def multiplied_unseen(self, name: str, size: int, path: str | None = None) -> None:
        """A product was made with so many bytes of weights, of those that its kernel has."""
        self._products[name] = self._products.get(name, 0) + 1
        self.move("weights", size, 0, path)

    def mac(
        self,
        tag: Tag,
        count: int,
        x: Tensor,
        left: Callable[[Tensor], int] | None,
        fan_out: int,
        bits: int,
        path: str | None = None,
    ) -> None:
        """Multiply-accumulates on a signal x.

        Args:
            left: how many of them are left of a signal; None: only shapes are known.
            fan_out: the most that one value takes part in.
            bits: of a weight.
        """
        if tag.shared is None or left is None:
            self.mac_of(tag, count, None if left is None else left(x), fan_out, bits, path)
            return
        effective = 0
        for index, source in enumerate(tag.shared.sources):
            part = left(torch.where(tag.shared.owners == index, x, 0))
            effective += part
            self._arrive(source, part, fan_out, bits, path)
        self.emit("mac", count, tag.signal, effective, path)

    def mac_of(
        self, tag: Tag, count: int, effective: int | None, fan_out: int, bits: int, path: str | None = None
    ) -> None:
        """`mac` where it is known how many are left."""
        self.emit("mac", count, tag.signal, effective, path)
        if effective is not None:
            self._arrive(tag.source, effective, fan_out, bits, path)

    def _arrive(self, source: str | None, effective: int, fan_out: int, bits: int, path: str | None) -> None:
        if source is None:
            return
        neurons = self.neurons[source]
        where = self.path if path is None else path
        neurons.synaptic_ops += effective
        neurons.targets[where] = max(neurons.targets.get(where, 0), fan_out)
        neurons.bits = bits

    def fired(self, path: str, spikes: int, updates: int, neurons: int, drive: Drive | None, bits: int) -> None:
        """A population was updated."""
        found = self.neurons.get(path)
        if found is None:
            found = self.neurons[path] = Neurons(path, drive or Drive(DENSE, 1, None), bits)
            self.awaited.discard(path)
            self.spiking = self.anywhere or bool(self.awaited)
        found.spikes += spikes
        found.updates += updates
        found.neurons = max(found.neurons, neurons)

    def uncounted(self, name: str) -> None:
        """An operator without a rule.

        Raises:
            NeuroError: unless these are to be listed.
        """
        if self.covering:
            return
        where = self._where()
        if not self.allow_uncounted:
            raise NeuroError(
                f"count: got operator {name} in {where}, expected one with a counting rule.",
                "Count with allow_uncounted=True to have it listed, or add its rule to sims/counting/rules.py.",
            )
        key = f"{name} in {where}"
        self._uncounted[key] = self._uncounted.get(key, 0) + 1

    def unknown_mask(self) -> None:
        raise NeuroError(
            f"count: got an attention mask without values in {self._where()}, "
            "expected is_causal or none on meta tensors.",
            "Count on real tensors, or say is_causal=True where the mask is that.",
        )

    def _where(self) -> str:
        return f"'{self.path}'" if self.path else "the model itself"

    def collected(self, module: nn.Module, tokens: int, unit: str, parameters: int) -> Workload:
        """The workload of ``module``, of ``tokens`` tokens or samples."""
        device = next((x.device for x in [*module.parameters(), *module.buffers()]), torch.device("cpu"))
        phase = Phase(
            "inference",
            tokens,
            max(self._products.values(), default=1),
            self.seconds,
            self._populations(),
            tuple(
                Operation(*self._place(path), kind, signal, count or 0, None if self.meta else effective)
                for (path, kind, signal), (count, effective) in self._rows.items()
            ),
            tuple(Traffic(*self._place(path), store, *moved) for (path, store), moved in self._traffic.items()),
            # A weight that is used again within a forward is a further step of every sample.
            tokens * max(self._products.values(), default=1) if unit == "sample" else None,
        )
        return Workload(
            model=type(module).__name__,
            parameters=parameters,
            layers=len(self._products),
            spans=0,
            hardware=(platform.processor() or platform.machine()) if device.type == "cpu" else str(device),
            backend=f"torch {device.type}",
            phases=(phase,),
            unit=unit,
            uncounted=tuple(f"{name}: {times}" for name, times in self._uncounted.items()),
        )

    def _place(self, path: str) -> tuple[str, str]:
        """(region, name): the top-level child, or that of a table of modules; and what is left of the path."""
        parts = path.split(".") if path else []
        if len(parts) > 1 and isinstance(self.paths.get(parts[0]), nn.ModuleDict):
            parts = parts[1:]
        return (parts[0] if parts else "model"), ".".join(parts[1:]) or "self"

    def _populations(self) -> tuple[Population, ...]:
        behind: dict[str, list[Neurons]] = {}
        for one in self.neurons.values():
            if one.drive.source is not None:
                behind.setdefault(one.drive.source, []).append(one)
        rows = []
        for one in self.neurons.values():
            region, _ = self._place(one.path)
            fan_out = max(sum(one.targets.values()), math.ceil(one.synaptic_ops / max(1, one.spikes)))
            reached = behind.get(one.path, [])
            rows.append(
                Population(
                    name=self._name(one),
                    region=region,
                    neurons=one.neurons,
                    fan_out=fan_out,
                    fan_in=one.drive.inputs,
                    input_signal=one.drive.signal,
                    weight_bits=min(one.bits, CHIP_WEIGHT_BITS),
                    spikes=one.spikes,
                    synaptic_ops=one.synaptic_ops,
                    updates=one.updates,
                    target=self._name(reached[0]) if len(reached) == 1 else "",
                )
            )
        return tuple(rows)

    def _name(self, one: Neurons) -> str:
        region, name = self._place(one.path)
        return region if name == "self" else f"{region}.{name}"
