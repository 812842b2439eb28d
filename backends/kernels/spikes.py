"""Products with spikes in C++ (`spikes.cpp`), loaded with ctypes. Optional: `library` is None where it was not built.

Spikes [M,K] are first listed (`find`), then every product walks the list: M vectors, K inputs, N outputs, float32 only. A
value other than one multiplies its row of the weight, so that counts and graded spikes are exact too; a zero skips it. Sums
go up the list in blocks of eight, on every path and with any number of threads: the same bits.
"""

from __future__ import annotations

import ctypes
import functools
import weakref
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from backends.contract import LifRule
from backends.kernels import shared_library, team

_VERSION = 2  # kVersion of spikes.cpp
_WIDEST = 1 << 16  # inputs that a 16-bit column can name
_RESETS = {("none", False): 0, ("soft", False): 1, ("hard", False): 2, ("soft", True): 3, ("hard", True): 4}
_POINTER, _REAL, _INDEX = ctypes.c_void_p, ctypes.c_double, ctypes.c_int64


class _Events(ctypes.Structure):
    _fields_ = (
        ("columns", _POINTER),
        ("values", _POINTER),
        ("offsets", _POINTER),
        ("rows", _INDEX),
        ("width", _INDEX),
    )


class _Panels(ctypes.Structure):
    _fields_ = (("data", _POINTER), ("bias", _POINTER), ("outputs", _INDEX))


class _Rule(ctypes.Structure):
    _fields_ = (
        ("decay", _REAL),
        ("threshold", _REAL),
        ("v_reset", _REAL),
        ("reset", _INDEX),
        ("strict", _INDEX),
    )


_SIGNATURES = {
    "panel": ((), _INDEX),
    "mark": ((_POINTER, _INDEX), _INDEX),
    "find": ((_POINTER, _INDEX, _INDEX, _INDEX, _POINTER, _POINTER, _INDEX, _POINTER, _INDEX), _INDEX),
    "values": ((_POINTER, _INDEX, _Events, _POINTER), None),
    "pack": ((_POINTER, _INDEX, _INDEX, _INDEX, _POINTER), None),
    "product": ((_Events, _Panels, _POINTER, _INDEX), None),
    "lif": ((_Events, _Panels, _Rule, _INDEX, _POINTER, _POINTER, _INDEX), None),
    "few": ((_Events, _POINTER, _POINTER, _INDEX, _POINTER, _INDEX), None),
    "weight_grad": ((_Events, _POINTER, _INDEX, _POINTER, _INDEX), None),
}


@functools.cache
def library() -> ctypes.CDLL | None:
    """The built library, or None."""
    return team.lent(_load(Path(__file__).parent)[0])


def status() -> tuple[bool, str]:
    """(built and loaded, the file or why not)."""
    return library() is not None, _load(Path(__file__).parent)[1]


def _load(folder: Path) -> tuple[ctypes.CDLL | None, str]:
    functions = {f"neuro_spikes_{name}": types for name, types in _SIGNATURES.items()} | team.SIGNATURE
    return shared_library.load(folder, "spikes", _VERSION, functions)


def _call(name: str, *arguments: object) -> int:
    return getattr(library(), f"neuro_spikes_{name}")(*arguments)  # ctypes releases the interpreter's lock


def runs(spikes: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether the library is here and takes spikes [...,K], weight [N,K], bias [N]: float32 on the CPU, no trace."""
    if not (spikes.is_cpu and weight.is_cpu and spikes.dtype == weight.dtype == torch.float32):
        return False
    if not 0 < weight.shape[1] <= _WIDEST or not (bias is None or (bias.is_cpu and bias.dtype == torch.float32)):
        return False
    return not (torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling()) and library() is not None


class Events(NamedTuple):
    """The non-zeros of x [M,K], row after row: those of row m lie from ``offsets[m]`` to ``offsets[m + 1]``."""

    columns: Tensor  # int16, the bits of unsigned 16-bit numbers
    values: Tensor | None  # float32; None where all are one
    offsets: Tensor  # [M+1] int64
    width: int

    @property
    def rows(self) -> int:
        return self.offsets.shape[0] - 1

    def _pointers(self) -> _Events:
        values = None if self.values is None else self.values.data_ptr()
        return _Events(self.columns.data_ptr(), values, self.offsets.data_ptr(), self.rows, self.width)


def find(x: Tensor, limit: float) -> Events | None:
    """The non-zeros of x [M,K], or None as soon as more than ``limit`` (a fraction) of it is found not to be zero."""
    x = x if x.stride(1) == 1 else x.detach().contiguous()
    most = int(limit * x.numel())
    columns = torch.empty(most + x.shape[1], dtype=torch.int16)
    offsets, ones = torch.empty(x.shape[0] + 1, dtype=torch.int64), _INDEX()
    pointers = columns.data_ptr(), offsets.data_ptr(), most, ctypes.byref(ones), torch.get_num_threads()
    count = _call("find", x.data_ptr(), x.stride(0), *x.shape, *pointers)
    if count < 0:
        return None
    events = Events(columns[:count], None, offsets, x.shape[1])
    if not ones.value:
        values = torch.empty(count)
        _call("values", x.data_ptr(), x.stride(0), events._pointers(), values.data_ptr())
        events = events._replace(values=values)
    return events


class PackedWeight:
    """A weight [N,K] in the orders that events read it in, made when first asked for and again once the weight changed.

    A change is another tensor, another version of it, or another value in one of 64 places: torch's fused optimizers and
    writes through ``.data`` leave the version as it was. After such a write to a few values call `clear`. The weight
    itself is not kept alive; copies and files hold none of this.
    """

    def __init__(self) -> None:
        self.clear()

    def __reduce__(self) -> tuple[type[PackedWeight], tuple[()]]:
        return PackedWeight, ()

    def clear(self) -> None:
        self._of: weakref.ref[Tensor] | None = None
        self._mark: tuple[int, ...] = ()
        self._panels: Tensor | None = None
        self._rows: Tensor | None = None

    def holds(self, weight: Tensor) -> bool:
        """Whether something was made from the weight as it is now."""
        return self._of is not None and self._of() is weight and self._mark == _mark(weight)

    def _renew(self, weight: Tensor) -> None:
        if not self.holds(weight):
            self.clear()
            self._of, self._mark = weakref.ref(weight), _mark(weight)

    def panels(self, weight: Tensor) -> Tensor:
        """[panels,K,columns]: what `product` and `lif` read."""
        self._renew(weight)
        if self._panels is None:
            self._panels = _pack(weight, _call("panel"))
        return self._panels

    def rows(self, weight: Tensor) -> Tensor:
        """[K,N], the transpose: what `few_products` reads."""
        self._renew(weight)
        if self._rows is None:
            self._rows = _pack(weight, weight.shape[0])
        return self._rows


def _mark(weight: Tensor) -> tuple[int, ...]:
    version = -1 if weight.is_inference() else weight._version  # an inference tensor has none
    values = _call("mark", weight.data_ptr(), weight.numel()) if weight.is_contiguous() else 0
    return weight.data_ptr(), version, values


def _pack(weight: Tensor, wide: int) -> Tensor:
    weight = weight.detach().contiguous()
    outputs, inputs = weight.shape
    packed = torch.empty(-(-outputs // wide), inputs, wide)
    _call("pack", weight.data_ptr(), outputs, inputs, wide, packed.data_ptr())
    return packed


def _bias(bias: Tensor | None) -> Tensor | None:
    return bias if bias is None or bias.is_contiguous() else bias.detach().contiguous()


def _at(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def product(events: Events, panels: Tensor, bias: Tensor | None, outputs: int) -> Tensor:
    """(events of [M,K], panels, bias [N] or None) -> [M,N]."""
    y, bias = torch.empty(events.rows, outputs), _bias(bias)
    panel = _Panels(panels.data_ptr(), _at(bias), outputs)
    _call("product", events._pointers(), panel, y.data_ptr(), torch.get_num_threads())
    return y


def few_products(events: Events, rows: Tensor, bias: Tensor | None) -> Tensor:
    """`product` from rows [K,N], which for few vectors come faster from memory than panels do."""
    bias, outputs = _bias(bias), rows.shape[-1]
    y = torch.empty(events.rows, outputs)
    _call("few", events._pointers(), rows.data_ptr(), _at(bias), outputs, y.data_ptr(), torch.get_num_threads())
    return y


def lif(
    events: Events, panels: Tensor, bias: Tensor | None, v0: Tensor, decay: float, threshold: float, rule: LifRule
) -> tuple[Tensor, Tensor]:
    """(events of [T*B,K], panels, bias [N] or None, v0 [B,N], ...) -> (spikes [T,B,N], v [B,N]) of `LifRule`."""
    v, bias = v0.detach().clone(memory_format=torch.contiguous_format), _bias(bias)
    batch, outputs = v.shape
    spikes = torch.empty(events.rows // batch, batch, outputs)
    panel = _Panels(panels.data_ptr(), _at(bias), outputs)
    what = _Rule(decay, threshold, rule.v_reset, _RESETS[rule.reset, rule.delayed], rule.strict)
    pointers = batch, v.data_ptr(), spikes.data_ptr(), torch.get_num_threads()
    _call("lif", events._pointers(), panel, what, *pointers)
    return spikes, v


def weight_grad(events: Events, grad: Tensor) -> Tensor:
    """(events of [M,K], grad of y [M,N]) -> grad of the weight [N,K]."""
    grad = grad.contiguous()
    out = torch.empty(grad.shape[1], events.width)
    _call("weight_grad", events._pointers(), grad.data_ptr(), grad.shape[1], out.data_ptr(), torch.get_num_threads())
    return out
