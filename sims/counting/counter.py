"""The counter: sees every operator that a module runs, in the order they run, and adds up integers by module and kind.

It stands between torch and its kernels (`TorchDispatchMode`), below autograd, so that `linear`, `lstm` or
`scaled_dot_product_attention` are seen as what was asked for and not as what a device makes of it; what has no rule
(`sims.counting.rules`) is taken apart into what has. Operators of our own (`backends.Ops`) and neurons do their work in
kernels that torch does not see: they are counted where they are called (`sims.counting.owned`).
"""

from __future__ import annotations

import contextlib
import math
import platform
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from neuro.errors import NeuroError, UsageError, nearest
from neuro.workload import SIGNALS, Operation, Phase, Population, Traffic, Workload
from sims.counting import connections, owned, rules
from sims.counting.connections import Convolution
from sims.counting.tags import BINARY, COUNTS, DENSE, GRADED, Drive, Tag, Tags, version

CHIP_WEIGHT_BITS = 8  # a wider synapse is quantized to it on a chip, as the exporters do


class _Neurons:
    """What a population did so far."""

    def __init__(self, path: str, drive: Drive, bits: int) -> None:
        self.path, self.drive, self.bits = path, drive, bits
        self.neurons = self.spikes = self.synaptic_ops = self.updates = 0
        self.targets: dict[str, int] = {}  # most of a neuron, by projection


class Weight:
    """A weight where it is used: whose it is, what it takes to read it, the fan-outs of its inputs."""

    def __init__(self, c: Counting, x: Tensor) -> None:
        self.x, self.version, self.tag, self._counting = x, version(x), c.tags.get(x), c
        self.path = c.owner(self.tag)
        self.bits = 8 * x.element_size()
        self.buffer = self.tag.weight in c.buffers
        self.name = self.tag.weight or f"{c.path} {list(x.shape)}"
        count = x.numel()
        if not x.is_contiguous():  # what is expanded lies there once
            count = math.prod(n for n, step in zip(x.shape, x.stride(), strict=True) if step)
        self.bytes = count * x.element_size()
        self._fans: dict[Any, Any] = {}

    def full(self) -> bool:
        """No weight is zero."""
        return self._counting.nonzero(self.x) == self.x.numel()

    def fans(self, axis: int) -> connections.Fans | None:
        """Of a matrix with its outputs along ``axis``; None: every input reaches all of them."""
        if axis not in self._fans:
            found = None if self.full() else connections.columns(connections.mask(self.x), axis)
            self._fans[axis] = None if found is None else connections.Fans.of(found)
        return self._fans[axis]

    def convolved(self, rule: Convolution, shape: tuple[int, ...]) -> tuple[int, connections.Fans | None, int]:
        """(connections, fan-outs of a channel or sample, channels that are alike) of a convolution's inputs."""
        key = (rule, shape)
        if key not in self._fans:
            x, sizes = self.x, tuple(shape[2:])
            fans, channels = None, 1
            if not self._counting.meta and self.full():
                outputs = x.shape[1] if rule.transposed else x.shape[0] // rule.groups
                fans, channels = connections.alike(rule, sizes, tuple(x.shape[2:]), outputs), shape[1]
            elif not self._counting.meta:
                fans = connections.pruned(rule, sizes, x)
            self._fans[key] = connections.dense(rule, shape, x.shape), fans, channels
        return self._fans[key]


class Counting:
    """Counts what a module does while the context is open, whoever calls it; what comes out is as without.

    Args:
        module: counted by its submodules; operators outside of any are the model's own.
        signals: {"path of a submodule": what its output is, one of "binary", "graded" or "dense"}; of a tuple the first
            tensor. Spiking modules of ours and of snntorch declare themselves.
        allow_uncounted: list operators without a rule in the result instead of raising.

    Raises:
        UsageError: no module, or ``signals`` that name no submodule or no signal.
    """

    def __init__(
        self, module: nn.Module, *, signals: Mapping[str, str] | None = None, allow_uncounted: bool = False
    ) -> None:
        if not isinstance(module, nn.Module):
            got = f"count: got a {type(module).__name__}, expected a torch.nn.Module."
            raise UsageError(got, "Give the model itself, not its output or its class.")
        self.module, self.allow_uncounted = module, allow_uncounted
        self.paths = {path: part for path, part in module.named_modules()}
        self.signals = _checked(signals or {}, list(self.paths))
        self.tags = Tags()
        self.seconds, self.meta = 0.0, False
        self.buffers: set[str] = set()
        self.neurons: dict[str, _Neurons] = {}
        self.spiking = bool(self.signals) or any(owned.may_spike(part) for part in self.paths.values())
        self._rows: dict[tuple[str, str, str], list[int | None]] = {}
        self._traffic: dict[tuple[str, str], list[int]] = {}
        self._uncounted: dict[str, int] = {}
        self._products: dict[str, int] = {}  # of each weight, how often it was multiplied
        self._weights: dict[tuple[int, str], Weight] = {}
        self.func: Any = None  # the operator whose rule runs
        self._ran: set[str] = set()
        self._stack = [""]
        self.quiet = 0  # depth of what is counted as a whole
        self._updating = 0  # depth of neurons, whose arithmetic is their update
        self._covering = 0  # depth of those of them without a matrix, whose operators may all be unknown
        self._exit: contextlib.ExitStack | None = None

    def __enter__(self) -> Counting:
        with contextlib.ExitStack() as stack:
            stack.callback(_restore, _snapshot(self.module))
            stack.enter_context(_same_randomness())
            self._shadow(stack)
            owned.guard(stack, self)
            stack.enter_context(torch.no_grad())
            keys = torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()
            stack.enter_context(torch._C._AutoDispatchBelowAutograd())
            self.buffers = {path for path, _ in self.module.named_buffers()}
            for path, weight in [*self.module.named_parameters(), *self.module.named_buffers()]:
                self.tags.put(weight, Tag(weight=path))
                self.meta |= weight.device.type == "meta"
            stack.enter_context(_Mode(self, *keys))
            started = time.perf_counter()
            stack.callback(self._stop, started)
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        assert self._exit is not None
        self._exit.close()

    def _stop(self, started: float) -> None:
        self.seconds += time.perf_counter() - started

    @property
    def path(self) -> str:
        """Of the submodule that runs."""
        return self._stack[-1]

    def unseen(self, run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run what is counted as a whole, by whoever calls this."""
        self.quiet += 1
        try:
            with torch._C._DisableTorchDispatch():
                return run(*args, **kwargs)
        finally:
            self.quiet -= 1

    def given(self, tensors: Sequence[Tensor], signal: str) -> None:
        """Say what comes from outside, while the context is open: one of "binary", "graded" or "dense"."""
        if signal not in SIGNALS:
            got = f"input_signal: got '{signal}', expected one of {', '.join(SIGNALS)}."
            raise UsageError(got, "Say what the inputs are.")
        with torch._C._DisableTorchDispatch():
            self.meta |= any(x.is_meta for x in tensors)
            for x in tensors:
                if signal != DENSE and x.is_floating_point():
                    self.declare(x, signal, "inputs")

    def declare(self, x: object, kind: str, where: str, source: str | None = None) -> None:
        """Say what a tensor is.

        Raises:
            NeuroError: it was said to be binary and holds something else than 0 and 1.
        """
        if not isinstance(x, Tensor):
            got = f"signals: '{where}' is declared {kind}, got an output of {type(x).__name__}, expected a tensor."
            raise UsageError(got, "Declare the submodule whose output is the tensor.")
        self.verify(x, kind, where)
        self.tags.put(x, Tag(kind, source, self.tags.get(x).drive))

    def verify(self, x: Tensor, kind: str, where: str) -> None:
        """Raise where a binary tensor is not."""
        if kind == BINARY and not x.is_meta and not connections.is_binary(x):
            wrong = x[(x != 0) & (x != 1)].flatten()[0].item()
            got = f"signals: the output of '{where}' is declared binary, got {wrong:g}, expected only 0 and 1."
            raise NeuroError(got, 'Declare it "graded" or "dense", or correct the module.')

    # What rules tell.

    def emit(
        self, kind: str, count: int, signal: str = DENSE, effective: int | None = None, path: str | None = None
    ) -> None:
        """Add operations to the running submodule, or to the one at ``path``."""
        if not count or (self._updating and kind != "mac"):
            return
        key = (self._stack[-1] if path is None else path, kind, signal)
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = [0, 0]
        row[0] = (row[0] or 0) + count
        row[1] = None if effective is None or row[1] is None else row[1] + effective

    def move(self, store: str, read: int, written: int, path: str | None = None) -> None:
        """Add bytes that the running submodule, or the one at ``path``, reads from and writes to a store."""
        key = (self._stack[-1] if path is None else path, store)
        row = self._traffic.get(key)
        if row is None:
            row = self._traffic[key] = [0, 0]
        row[0] += read
        row[1] += written

    def weight(self, x: Tensor) -> Weight:
        """What is known of a weight where it is used now, looked up once for a parameter."""
        key = (id(x), self._stack[-1])
        found = self._weights.get(key)
        if found is None or found.x is not x or found.version != version(x):
            found = Weight(self, x)
            if isinstance(x, nn.Parameter):
                self._weights[key] = found
        return found

    def reads(self, weight: object) -> None:
        """All of a weight was read, if it is one."""
        if isinstance(weight, Tensor) and self.tags.get(weight).weight is not None:
            found = self.weight(weight)
            self.move("weights", found.bytes, 0, found.path)

    def multiplied(self, weight: Weight) -> None:
        """A product with it was made. A buffer is a memory: nobody trained it."""
        if weight.buffer:
            self.move("memory", weight.bytes, 0, weight.path)
            return
        self._products[weight.name] = self._products.get(weight.name, 0) + 1
        if weight.tag.weight is not None:
            self.move("weights", weight.bytes, 0, weight.path)

    def multiplied_unseen(self, name: str, size: int, path: str | None = None) -> None:
        """A product was made with so many bytes of weights, of those that its kernel has."""
        self._products[name] = self._products.get(name, 0) + 1
        self.move("weights", size, 0, path)

    def owner(self, tag: Tag) -> str | None:
        """The path of the submodule that holds a weight, where that is a part of what runs; None: what runs."""
        if tag.weight is None:
            return None
        path = tag.weight.rpartition(".")[0]
        return path if not self.path or path == self.path or path.startswith(f"{self.path}.") else None

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
            found = self.neurons[path] = _Neurons(path, drive or Drive(DENSE, 1, None), bits)
        found.spikes += spikes
        found.updates += updates
        found.neurons = max(found.neurons, neurons)

    def nonzero(self, x: Tensor) -> int:
        """How many values are not zero, looked up once for a tensor."""
        found = self.tags.nonzero(x)
        if found is None:
            found = connections.total(connections.mask(x))
            self.tags.put(x, self.tags.get(x), found)
        return found

    def arrived(self, x: Tensor, tag: Tag) -> int:
        """Events of a tensor: values that are not zero, or spikes where it holds numbers of them."""
        if tag.kind == COUNTS:
            return int(x.detach().abs().to(torch.float64).sum())
        return self.nonzero(x)

    def events(self, x: Tensor, tag: Tag) -> Tensor:
        """Events of each value: bool, or float64 numbers of spikes."""
        return x.detach().abs().to(torch.float64) if tag.kind == COUNTS else connections.mask(x)

    def quantized(self, weight: Tensor) -> None:
        """Name a weight that a packed module holds."""
        self.tags.put(weight, Tag(weight=f"{self.path}.weight" if self.path else "weight"))

    def unknown_mask(self) -> None:
        raise NeuroError(
            f"count: got an attention mask without values in {self._where()}, "
            "expected is_causal or none on meta tensors.",
            "Count on real tensors, or say is_causal=True where the mask is that.",
        )

    def uncounted(self, name: str) -> None:
        """An operator without a rule.

        Raises:
            NeuroError: unless these are to be listed.
        """
        if self._covering:
            return
        where = self._where()
        if not self.allow_uncounted:
            raise NeuroError(
                f"count: got operator {name} in {where}, expected one with a counting rule.",
                "Count with allow_uncounted=True to have it listed, or add its rule to sims/counting/rules.py.",
            )
        key = f"{name} in {where}"
        self._uncounted[key] = self._uncounted.get(key, 0) + 1

    def _where(self) -> str:
        return f"'{self.path}'" if self.path else "the model itself"

    def _shadow(self, stack: contextlib.ExitStack) -> None:
        """Submodules say when they run, by methods of the instance in front of those of the class: hooks would send
        torch's own modules down another path.
        """
        for path, part in self.paths.items():
            if hasattr(part, "_orig_mod"):
                raise UsageError(
                    f"count: got '{path or type(part).__name__}' compiled, expected plain modules.",
                    "Count the module before torch.compile; a compiled graph hides its operators.",
                )
            if isinstance(part, torch.jit.ScriptModule):
                continue  # it does not take a method; its operators are seen
            for name in owned.methods(part):
                method = getattr(part, name)
                if name in vars(part):
                    stack.callback(vars(part).__setitem__, name, method)
                else:
                    stack.callback(vars(part).pop, name, None)
                vars(part)[name] = self._entering(path, part, method)
            if "ops" in vars(part):
                stack.callback(vars(part).__setitem__, "ops", part.ops)
                vars(part)["ops"] = owned.counted(part.ops, self)

    def _entering(self, path: str, part: nn.Module, method: Callable[..., Any]) -> Callable[..., Any]:
        whole, spiking = owned.whole(part), owned.spikes(part)
        tell = whole or owned.after(part)
        declared = self.signals.get(path)
        updates = (spiking or declared in (BINARY, GRADED)) and not _has_weights_below(part)

        covers = updates and all(weight.dim() < 2 for weight in part.parameters())
        stack, ran = self._stack, self._ran

        def told(args: Any, out: Any) -> None:
            if tell is not None:
                tell(self, part, args, out)
            if declared is not None:
                owned.declared(self, path, part, declared, args, out)

        def told_whole(*args: Any, **kwargs: Any) -> Any:
            out = method(*args, **kwargs)
            told(args or tuple(kwargs.values()), out)
            return out

        def run(*args: Any, **kwargs: Any) -> Any:
            if self.quiet or (path and stack[-1] == path):
                return method(*args, **kwargs)
            ran.add(path)
            stack.append(path)
            self._updating += updates
            self._covering += covers
            try:
                if whole is not None:
                    return self.unseen(told_whole, *args, **kwargs)
                out = method(*args, **kwargs)
                if tell is not None or declared is not None:
                    self.unseen(told, args, out)
                return out
            finally:
                stack.pop()
                self._updating -= updates
                self._covering -= covers

        return run

    def workload(self, tokens: int, unit: str = "sample") -> Workload:
        """What was counted, of ``tokens`` tokens or samples.

        Raises:
            UsageError: a module of ``signals`` never ran.
        """
        for path in self.signals:
            if path not in self._ran:
                got = f"signals: got '{path}', which never ran, expected a submodule that is called."
                raise UsageError(got, f"Leave it out, or name one that ran. {_ran_names(self._ran)}")
        model = self.module
        device = next((x.device for x in [*model.parameters(), *model.buffers()]), torch.device("cpu"))
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
            model=type(model).__name__,
            parameters=owned.parameters(model),
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
        behind: dict[str, list[_Neurons]] = {}
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

    def _name(self, one: _Neurons) -> str:
        region, name = self._place(one.path)
        return region if name == "self" else f"{region}.{name}"


class _Mode(TorchDispatchMode):
    def __init__(self, counting: Counting, include: Any, exclude: Any) -> None:
        super().__init__()
        self.counting, self.include, self.exclude = counting, include, exclude

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # it would wrap every call; nothing is compiled while counting

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        plan = _PLANS.get(id(func))  # an operator lives as long as torch does; its own hash takes longer
        if plan is None:
            plan = _PLANS[id(func)] = rules.find(func), rules.asks(func), rules.writes(func)
        rule, asks, writes = plan
        counting = self.counting
        if rule is None:
            if _taken_apart(func):
                with self:
                    return func._op_dk(_COMPOSITE, *args, **kwargs)
            counting.uncounted(func.name().partition(".")[0])
            return func(*args, **kwargs)
        if asks:  # as if nobody counted: torch looks at autograd to choose among its kernels
            with torch._C._ForceDispatchKeyGuard(self.include, self.exclude):
                out = func(*args, **kwargs)
        else:
            out = func(*args, **kwargs)
        counting.func, counting.tags.ahead = func, writes
        rule(counting, args, kwargs, out)
        counting.tags.ahead = False
        return out


_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd


def _taken_apart(func: Any) -> bool:
    """Whether torch makes an operator of others, everywhere in the same way."""
    return hasattr(func, "_op_dk") and torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), _COMPOSITE)


_PLANS: dict[int, tuple[rules.Rule | None, bool, bool]] = {}


def _checked(signals: Mapping[str, str], paths: list[str]) -> dict[str, str]:
    for path, signal in signals.items():
        if path not in paths:
            got = f"signals: got '{path}', expected the path of a submodule."
            known = [name for name in paths if name]
            raise UsageError(got, nearest(path, known) if known else "Known: none, it has no submodules.")
        if signal not in SIGNALS:
            got = f"signals '{path}': got '{signal}', expected one of {', '.join(SIGNALS)}."
            raise UsageError(got, "Say what the submodule's output is.")
    return dict(signals)


def _ran_names(ran: set[str]) -> str:
    return "Ran: " + ", ".join(sorted(name for name in ran if name)) + "."


def _has_weights_below(part: nn.Module) -> bool:
    return any(True for child in part.children() for _ in child.parameters())


@contextlib.contextmanager
def _same_randomness() -> Iterator[None]:
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        yield


_Held = list[tuple[dict[str, Any], dict[str, Any], list[tuple[Any, Any]], list[tuple[Tensor, Tensor]]]]


def _snapshot(module: nn.Module) -> _Held:
    """What a module holds, so that counting leaves it as it was: neurons may keep their state on themselves."""
    kept: _Held = []
    for part in module.modules():
        held = vars(part)
        tables = [(value, value.copy()) for value in held.values() if type(value) in (dict, OrderedDict, list)]
        kept.append((held, dict(held), tables, [(x, x.clone()) for x in part._buffers.values() if x is not None]))
    return kept


def _restore(kept: _Held) -> None:
    for held, before, tables, buffers in kept:
        held.clear()
        held.update(before)
        for table, was in tables:
            if table or was:
                table.clear()
                table.extend(was) if isinstance(table, list) else table.update(was)
        for x, was in buffers:
            if not (x.is_meta or torch.equal(x, was)):
                x.copy_(was)
