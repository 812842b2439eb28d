"""Modes that run on any machine and refuse what torch-directml could not do, or would silently do on the CPU.

Every operator that torch dispatches is looked up in the table of torch-directml 0.2.5 (`directml_ops.json`): one that falls
back to the CPU is refused; a composite one is opened, so that its parts are looked up in turn; what the table allows must
also keep to the limits written in its library and issue tracker (github.com/microsoft/DirectML): types, ranks, shapes of
scatters, no foreach, no inference mode. Costs five times the step: for tests.

What it cannot say: numerics and memory of real hardware.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from backends.errors import ForbiddenOperatorError

# DirectML has neither; bfloat16 ends the process (issue 688), float64 needs a device that has it.
TYPES = (torch.float64, torch.bfloat16, torch.complex64, torch.complex128)
MOST_AXES = 5  # DML_TENSOR_DIMENSION_COUNT_MAX
# Written to by index: native there, within limits that hardly any program keeps to.
SCATTERS = frozenset(
    """scatter scatter_ scatter_add scatter_add_ scatter_reduce scatter_reduce_ index_put index_put_ _index_put_impl_
    _unsafe_index_put _unsafe_masked_index_put_accumulate masked_scatter masked_scatter_ put put_ index_fill index_fill_
    embedding_dense_backward""".split()
)
# Whose shape depends on what the tensors hold: the device must be waited for.
DATA_SHAPED = frozenset(
    """nonzero masked_select _unique _unique2 unique_dim unique_consecutive unique_dim_consecutive bincount
    repeat_interleave""".split()
)
_KEYS = ("CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional", "CompositeImplicitAutograd")


@functools.cache
def table() -> dict[str, str]:
    """{operator, as in "add.Tensor": "native" or "fallback"}; composites are not in it."""
    found = json.loads((Path(__file__).parent / "directml_ops.json").read_text(encoding="utf-8"))
    return {name: state for state in ("native", "fallback") for line in found[state] for name in line.split()}


class OperatorGuard(TorchDispatchMode):
    """Raises on the first operator that torch-directml does not run itself, forward, backward and optimizer alike.

    ``seen`` counts the operators that passed, by name without overload, those inside composites too.

    Raises:
        ForbiddenOperatorError: names the operator, and why it is refused.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        space, name = func.name().split("::")
        if space == "aten":
            why = self.objection(name, func, args)
            if why:
                raise ForbiddenOperatorError(*why)
            key = None if name in table() or _is_view(func) else _composite(func)
            if key is not None:
                with self:
                    out = func._op_dk(key, *args, **kwargs)
                return self._passed(name, out)
        return self._passed(name, func(*_tensors(func, args), **kwargs))

    def objection(self, name: str, func: Any, args: tuple) -> tuple[str, str] | None:
        """What stands against the operator and what to do, or None."""
        state = table().get(name)
        if name.startswith("_foreach_"):
            return (
                f"operator guard: got aten.{name}, expected one tensor at a time: DirectML has no foreach.",
                "Loop over the tensors, or give the optimizer foreach=False.",
            )
        if state == "fallback":
            return (
                f"operator guard: got aten.{name}, which torch-directml runs on the CPU, expected one of its own.",
                "Write it with operators that backends/directml_ops.json lists as native.",
            )
        if state is None and _composite(func) is None:
            return (
                f"operator guard: got aten.{name}, which torch-directml does not know.",
                "Use an operator that torch 2.4.1 has.",
            )
        base = name.partition(".")[0]
        limit = _limit(base, args)
        if limit:
            return f"operator guard: got aten.{name} {limit}.", "Use a mask and a matrix product."
        return None

    def _passed(self, name: str, out: Any) -> Any:
        for leaf in tree_leaves(out):
            if not isinstance(leaf, Tensor):
                continue
            if leaf.dtype in TYPES:
                raise ForbiddenOperatorError(
                    f"operator guard: aten.{name} made a {leaf.dtype} tensor, expected float32 or float16.",
                    "Give the tensor an explicit dtype.",
                )
            if leaf.is_inference():
                raise ForbiddenOperatorError(
                    f"operator guard: aten.{name} ran in inference mode, which DirectML does not have.",
                    "Use torch.no_grad().",
                )
            if leaf.dim() > MOST_AXES:
                raise ForbiddenOperatorError(
                    f"operator guard: aten.{name} made a tensor of {leaf.dim()} axes, expected at most {MOST_AXES}.",
                    "Fold axes together before it.",
                )
        base = name.partition(".")[0]
        self.seen[base] = self.seen.get(base, 0) + 1
        return out


class ScatterFreeGuard(OperatorGuard):
    """Refuses, beside that, every scatter and every shape that depends on data, whether or not its limits are kept."""

    def objection(self, name: str, func: Any, args: tuple) -> tuple[str, str] | None:
        base = name.partition(".")[0]
        if base in SCATTERS or base in DATA_SHAPED or (base == "index" and _has_mask(args[1])):
            return (
                f"scatter-free guard: got aten.{name}, expected an operator that needs no scatter or fallback.",
                "Use the portable operator table, or a mask and a matrix product.",
            )
        return super().objection(name, func, args)


@functools.cache
def _composite(func: Any) -> Any:
    """The dispatch key under which torch has the operator as a program of others, or None."""
    for key in _KEYS:
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key):
            return getattr(torch._C.DispatchKey, key)
    return None


def _tensors(func: Any, args: tuple) -> tuple:
    """The arguments with a tensor where the schema wants one: composites pass numbers on as such."""
    if not any(isinstance(args[place], int | float) for place in _tensor_places(func) if place < len(args)):
        return args
    places = _tensor_places(func)
    return tuple(torch.tensor(x) if i in places and isinstance(x, int | float) else x for i, x in enumerate(args))


@functools.cache
def _tensor_places(func: Any) -> tuple[int, ...]:
    return tuple(i for i, arg in enumerate(func._schema.arguments) if isinstance(arg.type, torch._C.TensorType))


@functools.cache
def _is_view(func: Any) -> bool:
    # A composite view is other sizes and strides for the same memory: nothing runs. (Some are written as themselves.)
    return any(found.alias_info is not None and not found.alias_info.is_write for found in func._schema.returns)


def _limit(base: str, args: tuple) -> str:
    """Which limit of a native operator these arguments break; empty where they keep to all."""
    if base in ("scatter", "scatter_", "scatter_add", "scatter_add_"):
        into, dim, index = args[0], args[1] % max(args[0].dim(), 1), args[2]
        source = args[3] if len(args) > 3 else None
        if isinstance(source, Tensor) and source.shape != index.shape:
            return f"with index {list(index.shape)} and source {list(source.shape)}, expected equal shapes"
        if any(index.shape[axis] != into.shape[axis] for axis in range(into.dim()) if axis != dim):
            return f"with index {list(index.shape)} into {list(into.shape)}, expected them equal off axis {dim}"
    if base in ("_index_put_impl_", "index_put", "index_put_"):
        if any(index is None for index in args[1]) or len(args[1]) < args[0].dim():
            return "with whole axes, expected an index for every axis"
    if base in ("_unique2", "unique_dim") and not (any(args[2:4]) or base == "unique_dim"):
        return "without inverse or counts, expected one of them"
    if base == "repeat" and len(args[1]) > 4:
        return f"of {len(args[1])} axes, expected at most 4"
    if base == "constant_pad_nd" and min(args[1]) < 0 < max(args[1]):
        return f"with pads {list(args[1])}, expected all of one sign"
    return ""


def _has_mask(indices: Any) -> bool:
    # x[mask] looks for the true places inside one operator: its shape depends on data.
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)
