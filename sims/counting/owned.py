"""What torch does not see as operators of its own: our operator tables, neurons, kernels, and spiking modules by type.

An operator of `backends.Ops` is counted as what it means, whichever backend does it: the same integers for a kernel, a
loop and a product with one-hot rows. A neuron's arithmetic is its update, counted once a neuron and step.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import threading
import types
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from backends import Ops
from backends.kernels import cpu, cuda, lif_numba
from backends.kernels import spikes as spike_kernels
from neuro.errors import NeuroError
from neuro.layers.spiking_encoder import SpikingEncoder
from neuro.layers.spiking_linear import SpikingLinear
from neuro.neurons import Neuron, SlidingParallel
from sims.counting import attention as heads
from sims.counting import connections, movement, products
from sims.counting.tags import BINARY, COUNTS, DENSE, GRADED, Drive, Tag, version

if TYPE_CHECKING:
    from sims.counting.counter import Counting

Whole = Callable[["Counting", Any, Any, Any], None]
_KERNELS = (
    (cpu, ("_call", "product")),
    (cuda, ("affine_scan", "lif_scan")),
    (lif_numba, ("lif_scan",)),
    (spike_kernels, ("find", "product", "few_products", "lif")),
)


def has_forward(part: nn.Module) -> bool:
    return getattr(part.forward, "__func__", None) is not nn.Module.forward


def methods(part: nn.Module) -> list[str]:
    """Names under which a module runs: ours have more than ``forward``."""
    if isinstance(part, Neuron | SpikingLinear):
        return ["scan"] if isinstance(part, SpikingLinear) else ["step", "scan"]
    names = ["forward"] if has_forward(part) else []
    if type(part).__module__.startswith("neuro."):
        own = type(part).__mro__[: type(part).__mro__.index(nn.Module)]
        found = {name for cls in own for name, value in vars(cls).items() if isinstance(value, types.FunctionType)}
        names += sorted(name for name in found if not name.startswith("_") and not hasattr(nn.Module, name))
    return names


def of_snntorch(part: nn.Module) -> bool:
    return any(c.__name__ == "SpikingNeuron" and c.__module__.startswith("snntorch.") for c in type(part).__mro__)


def spikes(part: nn.Module) -> bool:
    """Whether a module's output is known to be spikes."""
    return isinstance(part, Neuron | SpikingLinear | SpikingEncoder) or of_snntorch(part)


def has_operators(part: nn.Module) -> bool:
    return "ops" in vars(part)


def whole(part: nn.Module) -> Whole | None:
    """How a module is counted that runs as a whole, unseen; None: by what it does, and `after` what it gave."""
    if isinstance(part, SpikingLinear):
        return _spiking_linear
    if isinstance(part, Neuron) and not isinstance(part, SlidingParallel):
        return _neuron
    if of_snntorch(part) and not any(True for _ in part.children()):
        return _snntorch
    if "forward" in vars(part):
        return None
    if type(part) is nn.Linear:
        return _linear
    if type(part) in (nn.Conv1d, nn.Conv2d, nn.Conv3d) and getattr(part, "padding_mode", "") == "zeros":
        return _convolution
    return None


def after(part: nn.Module) -> Whole | None:
    """How the output of a module is tagged whose operators are counted one by one."""
    if isinstance(part, SpikingEncoder):
        return _encoder
    if isinstance(part, SlidingParallel):
        return _neuron
    return _snntorch if of_snntorch(part) and whole(part) is None else None


def first(out: Any) -> Any:
    """The first tensor of a module's output, or the output."""
    if isinstance(out, tuple) and out and isinstance(out[0], Tensor):
        return out[0]
    if isinstance(out, tuple | list):
        return next((x for x in map(first, out) if isinstance(x, Tensor)), out)
    if isinstance(out, dict):
        return first(list(out.values()))
    return out


def _drive(c: Counting, args: Any) -> Drive | None:
    """What drives the neurons that run; None: that is known already."""
    if c.path in c.neurons:
        return None
    x = first(args)
    if not isinstance(x, Tensor):
        return Drive(DENSE, 1, None)
    tag = c.tags.get(x)
    return tag.drive or Drive(tag.signal, 1, tag.source)


def fire(
    c: Counting,
    path: str,
    out: Tensor,
    kind: str,
    drive: Drive | None,
    neurons: int,
    each: int = 1,
    known: bool = False,
) -> None:
    """Spikes of a population: tag them and add them up.

    Args:
        each: neuron updates that an element of ``out`` stands for.
        known: the type says what comes out, so that one look at its values is enough.
    """
    if not (known and path in c.neurons):
        c.verify(out, kind, path)
    tag = Tag(kind, path)
    if out.is_meta:
        c.tags.put(out, tag)
        return
    if kind == COUNTS:
        arrived = c.arrived(out, tag)
        c.tags.put(out, tag)
    else:
        arrived = connections.nonzero(out)
        c.tags.put(out, tag, arrived)
    c.fired(path, arrived, out.numel() * each, neurons, drive, 8 * out.element_size())


def _keep_state(c: Counting, out: Tensor, state: Iterable[Any]) -> int:
    """Every variable of every neuron is read and written at every step: so many bytes."""
    size = len([x for x in state if isinstance(x, Tensor)]) * out.numel() * out.element_size()
    c.move("state", size, size)
    return size


def _linear(c: Counting, part: nn.Linear, args: Any, out: Any) -> None:
    """As its operator is counted, without the way through torch to it: that of small layers takes longer than they do."""
    products.product(c, args[0], part.weight, out)
    c.reads(part.bias)


def _convolution(c: Counting, part: nn.Conv2d, args: Any, out: Any) -> None:
    moves = part.stride, part.padding, part.dilation, part.groups
    products.plain_convolution(c, (args[0], part.weight, part.bias, *moves), {}, out)


def _neuron(c: Counting, part: Neuron, args: Any, out: Any) -> None:
    fired, state = out
    fire(c, c.path, fired, BINARY, _drive(c, args), part.neurons, known=True)
    _keep_state(c, fired, state)


def _spiking_linear(c: Counting, part: SpikingLinear, args: Any, out: Any) -> None:
    x, (fired, state) = args[0], out
    products.product(c, x, part.weight, fired)
    c.reads(part.bias)
    fire(
        c,
        c.path,
        fired,
        BINARY,
        Drive(c.tags.get(x).signal, x.shape[-1], c.tags.get(x).source),
        part.neuron.neurons,
        known=True,
    )
    _keep_state(c, fired, state)


def _encoder(c: Counting, part: SpikingEncoder, args: Any, out: Any) -> None:
    said = out[0]
    fire(c, c.path, said, COUNTS, Drive(DENSE, 1, None), 2 * part.width, 2 * part.burst)
    c.tags.put(out[1].spikes, Tag(GRADED))


def _snntorch(c: Counting, part: Any, args: Any, out: Any) -> None:
    fired = first(out)
    shape, kind = fired.shape, BINARY if _is_plain(c, part) else GRADED
    path, given = c.path, out[1:] if isinstance(out, tuple) else ()
    step, found = (shape, fired.dtype, kind, len(given)), c.neurons.get(path)
    if given and found is not None and found.step == step:  # one more of what was told already
        arrived = connections.nonzero(fired)
        c.tags.put(fired, Tag(kind, path), arrived)
        found.spikes += arrived
        found.updates += fired.numel()
        c.move("state", found.moved, found.moved)
        return
    fire(c, path, fired, kind, _drive(c, args), math.prod(shape[1:]), known=True)
    moved = _keep_state(c, fired, given or [x for x in part.buffers(recurse=False) if x.shape == shape])
    if path in c.neurons:
        c.neurons[path].step, c.neurons[path].moved = step, moved


def _is_plain(c: Counting, part: Any) -> bool:
    """Whether a module of snntorch gives its spikes as they are; its factor is looked at when it is another."""
    factor: Any = getattr(part, "graded_spikes_factor", 1.0)
    if not isinstance(factor, Tensor):
        return bool(factor == 1.0)
    known = c.factors.get(c.path)
    if known is None or known[0] is not factor or known[1] != version(factor):
        known = c.factors[c.path] = factor, version(factor), float(factor) == 1.0
    return known[2]


def declared(c: Counting, path: str, part: nn.Module, signal: str, args: Any, out: Any) -> None:
    """What the user said of a module's output. Spikes that only pass through are those of the neurons they came from."""
    fired = first(out)
    old = c.tags.get(fired)
    if signal == old.kind and (old.source is not None or old.shared is not None):
        return
    if signal == DENSE or not isinstance(fired, Tensor):
        c.declare(fired, signal, path)
        return
    steps_first = getattr(part, "step_mode", None) == "m"
    neurons = math.prod(fired.shape[2 if steps_first else 1 :])
    fire(c, path, fired, signal, _drive(c, args), neurons)


def parameters(module: nn.Module) -> int:
    """Parameters of a model, those of packed integers included."""
    count = sum(p.numel() for p in module.parameters())
    for part in module.modules():
        packed: Any = part
        if hasattr(part, "_packed_params") and callable(getattr(part, "weight", None)):
            count += sum(x.numel() for x in (packed.weight(), packed.bias()) if isinstance(x, Tensor))
    return count


def guard(stack: contextlib.ExitStack, c: Counting) -> None:
    """While counting, a kernel of ours that runs outside of what counts it is an error, in this thread."""
    here = threading.get_ident()

    def watched(name: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if not c.quiet and threading.get_ident() == here:
                raise NeuroError(
                    f"count: got a call of {name} in '{c.path}', expected it by way of a module's operators.",
                    "Keep the operators on the module: self.ops = backends.select().ops.",
                )
            return kernel(*args, **kwargs)

        return run

    for module, names in _KERNELS:
        for name in names:
            kernel = getattr(module, name)
            stack.callback(setattr, module, name, kernel)
            setattr(module, name, watched(f"{module.__name__}.{name}", kernel))


def counted(ops: Ops, c: Counting) -> Ops:
    """The same operators, each counted as what it means."""

    def unseen(count: Callable[..., None], operator: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if c.quiet:
                return operator(*args, **kwargs)
            out = c.unseen(operator, *args, **kwargs)
            c.unseen(count, out, *args)
            return out

        return run

    def linear(out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
        products.product(c, x, weight, out)
        c.reads(bias)

    def spike_linear(out: Tensor, x: Tensor, weight: Tensor, packed: object = None) -> None:
        products.product(c, x, weight, out)

    def embed(out: Tensor, ids: Tensor, weight: Tensor) -> None:
        movement.embedding(c, (weight, ids), {}, out)

    def affine_scan(out: Tensor, a: Tensor, b: Tensor, h0: Tensor) -> None:
        c.emit("elementwise", 2 * out.numel())
        size = out.numel() * out.element_size()
        c.move("state", size, size)

    def lif_scan(out: tuple[Tensor, Tensor], current: Tensor, v0: Tensor, *_: object) -> None:
        fire(c, c.path, out[0], BINARY, _drive(c, (current,)), current.shape[-1], known=True)
        _keep_state(c, out[0], [out[1]])

    def attention(out: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> None:
        heads.attention(c, q, k, v, bias, False, computed=True)

    def take_rows(out: Tensor, source: Tensor, index: Tensor) -> None:
        movement.rows(c, (source,), {}, out)

    def write_rows(out: Tensor, memory: Tensor, index: Tensor, rows: Tensor, keep: Tensor) -> None:
        # On the meta device nobody knows which are kept.
        kept = keep.numel() if c.meta else connections.total(keep)
        c.move("memory", 0, kept * rows.shape[-1] * rows.element_size())

    def tally(out: Tensor, shares: Tensor, ids: Tensor, width: int) -> None:
        c.emit("elementwise", shares.numel())
        c.reads(ids)

    def weighted_rows(out: Tensor, shares: Tensor, weight: Tensor) -> None:
        products.matrices(c, shares, weight, out)

    own = locals()
    names = [field.name for field in dataclasses.fields(Ops) if callable(getattr(ops, field.name))]
    table: Any = {name: unseen(own[name], getattr(ops, name)) for name in names}
    return dataclasses.replace(ops, **table)
