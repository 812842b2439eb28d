"""The counter: sees every operator that a module runs, in the order they run, and adds up integers by module and kind.

It stands between torch and its kernels (`TorchDispatchMode`), below autograd, so that `linear`, `lstm` or
`scaled_dot_product_attention` are seen as what was asked for and not as what a device makes of it; what has no rule
(`sims.counting.rules`) is taken apart into what has. Operators of our own (`backends.Ops`) and neurons do their work in
kernels that torch does not see: they are counted where they are called (`sims.counting.owned`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from neuro.errors import NeuroError, UsageError, nearest
from neuro.workload import SIGNALS, Workload
from sims.counting import connections, entering, owned, untouched
from sims.counting.dispatch import Mode
from sims.counting.tags import BINARY, COUNTS, DENSE, Tag, Tags, version
from sims.counting.tally import Tally
from sims.counting.weights import Weight


class Counting(Tally):
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
        super().__init__(dict(module.named_modules()), allow_uncounted)
        self.module = module
        self.signals = _checked(signals or {}, list(self.paths))
        self.tags = Tags()
        self.buffers: set[str] = set()
        self.awaited = set(self.signals) | {path for path, part in self.paths.items() if owned.spikes(part)}
        # Operators of ours may fire anybody's neurons.
        self.anywhere = any(owned.has_operators(part) for part in self.paths.values())
        self.spiking = self.anywhere or bool(self.awaited)
        self._weights: dict[tuple[int, str], Weight] = {}
        self.factors: dict[str, tuple[Tensor, int, bool]] = {}  # of graded spikes: it, its version, whether it is 1
        self.func: Any = None  # the operator whose rule runs
        self.ran: set[str] = set()
        self.quiet = 0  # depth of what is counted as a whole
        self._exit: contextlib.ExitStack | None = None

    def __enter__(self) -> Counting:
        with contextlib.ExitStack() as stack:
            stack.callback(untouched.restore, untouched.snapshot(self.paths.values()))
            stack.enter_context(untouched.same_randomness())
            entering.shadow(self)
            owned.guard(stack, self)
            stack.enter_context(torch.no_grad())
            keys = torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()
            stack.enter_context(torch._C._AutoDispatchBelowAutograd())
            self._name_weights()
            stack.enter_context(Mode(self, *keys))
            started = time.perf_counter()
            stack.callback(self._stop, started)
            self._exit = stack.pop_all()
        return self

    def _name_weights(self) -> None:
        """Tag parameters and buffers with their paths, of several the first; buffers last."""
        for table in ("_parameters", "_buffers"):
            named: set[int] = set()
            for path, part in self.paths.items():
                for name, weight in getattr(part, table).items():
                    if weight is None or id(weight) in named:
                        continue
                    named.add(id(weight))
                    where = f"{path}.{name}" if path else name
                    self.tags.put(weight, Tag(weight=where))
                    self.meta |= weight.is_meta
                    if table == "_buffers":
                        self.buffers.add(where)

    def __exit__(self, *error: object) -> None:
        assert self._exit is not None
        self._exit.close()

    def _stop(self, started: float) -> None:
        self.seconds += time.perf_counter() - started

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

    def weight(self, x: Tensor) -> Weight:
        """What is known of a weight where it is used now, looked up once for a parameter."""
        found = self._known(x)
        if found is None:
            found = Weight(self, x)
            if isinstance(x, nn.Parameter):
                key = (id(x), self.places[-1])
                if key in self._weights:
                    self._weights[key].settle()
                self._weights[key] = found
        return found

    def _known(self, x: object) -> Weight | None:
        found = self._weights.get((id(x), self.places[-1]))
        return None if found is None or found.x is not x or found.version != version(found.x) else found

    def reads(self, weight: object) -> None:
        """All of a weight was read, if it is one."""
        found = self._known(weight)
        if found is not None and found.readings:
            found.readings += 1
        elif isinstance(weight, Tensor) and self.tags.get(weight).weight is not None:
            found = self.weight(weight)
            self.move("weights", found.bytes, 0, found.path)
            found.readings = 1

    def multiplied(self, weight: Weight, times: int = 1) -> None:
        """Products with it were made. A buffer is a memory: nobody trained it."""
        if weight.buffer:
            self.move("memory", times * weight.bytes, 0, weight.path)
            return
        self._products[weight.name] = self._products.get(weight.name, 0) + times
        if weight.tag.weight is not None:
            self.move("weights", times * weight.bytes, 0, weight.path)

    def owner(self, tag: Tag) -> str | None:
        """The path of the submodule that holds a weight, where that is a part of what runs; None: what runs."""
        if tag.weight is None:
            return None
        path = tag.weight.rpartition(".")[0]
        return path if not self.path or path == self.path or path.startswith(f"{self.path}.") else None

    def nonzero(self, x: Tensor) -> int:
        """How many values are not zero, looked up once for a tensor."""
        found = self.tags.nonzero(x)
        if found is None:
            found = connections.nonzero(x)
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

    def workload(self, tokens: int, unit: str = "sample") -> Workload:
        """What was counted, of ``tokens`` tokens or samples.

        Raises:
            UsageError: a module of ``signals`` never ran.
        """
        for path in self.signals:
            if path not in self.ran:
                got = f"signals: got '{path}', which never ran, expected a submodule that is called."
                raise UsageError(got, f"Leave it out, or name one that ran. {_ran_names(self.ran)}")
        for weight in self._weights.values():
            weight.settle()
        return self.collected(self.module, tokens, unit, owned.parameters(self.module))


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
