"""The nodes of NIR graphs, torch-free: what each computes, its constants, and the shape it makes of a shape.

Shapes have no batch axis; times are in seconds.

Source: Pedersen et al. 2024, doi:10.1038/s41467-024-52259-9. differs: groups of a convolution and kernels that are not
square have the shapes of torch's; nir 1.0.8 infers others and cannot read them with its type check on.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np

from neuro.errors import UsageError

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """A node; arrays are kept as they come, read-only. ``metadata`` is for whoever wrote it.

    Raises:
        UsageError: constants of different shapes, that are not finite numbers, or a time constant that is not positive.
    """

    elementwise: ClassVar[bool] = False  # every array has the shape of input and output
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        name, shapes = type(self).__name__, {}
        for field in dataclasses.fields(self):
            if field.type != "np.ndarray":
                continue
            value = np.array(getattr(self, field.name))
            if value.dtype.kind not in "fiu" or not np.isfinite(value).all():
                raise UsageError(f"{name} {field.name}: got values that are no finite numbers.", "Correct the node.")
            if field.name.startswith("tau") and (value <= 0).any():
                raise UsageError(
                    f"{name} {field.name}: got {value.min():g}, expected more than 0.",
                    "Give time constants in seconds.",
                )
            if field.name == "delay" and (value < 0).any():
                raise UsageError(f"Delay delay: got {value.min():g}, expected 0 or more.", "Give it in seconds.")
            value.flags.writeable = False
            object.__setattr__(self, field.name, value)
            shapes[field.name] = value.shape
        if self.elementwise and len(set(shapes.values())) > 1:
            got = ", ".join(f"{key} {list(shape)}" for key, shape in shapes.items())
            raise UsageError(f"{name}: got {got}, expected one shape.", "Give every neuron its own constants.")

    def input_shape_of(self) -> Shape | None:
        """The shape that must come in, or None where any may."""
        return next(iter(self.arrays().values())).shape if self.elementwise else None

    def output_shape(self, shape: Shape | None) -> Shape | None:
        """The shape that goes out, given the one that comes in; None where that must be known and is not."""
        return self.input_shape_of()

    def arrays(self) -> dict[str, np.ndarray]:
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.type == "np.ndarray"}


@dataclasses.dataclass(frozen=True, eq=False)
class Input(Node):
    """Where values come in."""

    shape: Shape

    def input_shape_of(self) -> Shape | None:
        return self.shape


@dataclasses.dataclass(frozen=True, eq=False)
class Output(Node):
    """Where values go out."""

    shape: Shape | None = None

    def input_shape_of(self) -> Shape | None:
        return self.shape

    def output_shape(self, shape: Shape | None) -> Shape | None:
        return shape if self.shape is None else self.shape


@dataclasses.dataclass(frozen=True, eq=False)
class Linear(Node):
    """y = W x,  W [out,in]."""

    weight: np.ndarray

    def __post_init__(self) -> None:
        super().__post_init__()
        _axes(self, 2, "[out,in]")

    def input_shape_of(self) -> Shape | None:
        return (self.weight.shape[1],)

    def output_shape(self, shape: Shape | None) -> Shape | None:
        return (self.weight.shape[0],)


@dataclasses.dataclass(frozen=True, eq=False)
class Affine(Linear):
    """y = W x + b,  W [out,in], b [out]."""

    bias: np.ndarray

    def __post_init__(self) -> None:
        super().__post_init__()
        _bias(self, self.bias, self.weight)


@dataclasses.dataclass(frozen=True, eq=False)
class Scale(Node):
    """y = s x, element by element."""

    elementwise = True
    scale: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Window(Node):
    """What slides over the axes after the first, which is that of channels: convolutions and pools."""

    @property
    def kernel(self) -> Shape:
        raise NotImplementedError

    @property
    def steps(self) -> tuple[Shape, Shape]:
        """Strides and dilations."""
        raise NotImplementedError

    @property
    def pads(self) -> tuple[tuple[int, int], ...]:
        """Zeros before and after each axis; the odd one of "same" comes after, as in torch."""
        padding: Shape | str = getattr(self, "padding")  # noqa: B009
        if isinstance(padding, str):
            wide = [d * (k - 1) if padding == "same" else 0 for k, d in zip(self.kernel, self.steps[1], strict=True)]
            return tuple((extra // 2, extra - extra // 2) for extra in wide)
        return tuple((pad, pad) for pad in padding)

    def slid(self, shape: Shape) -> Shape:
        """Positions along each axis of ``shape``, channels left out."""
        strides, dilations = self.steps
        rows = zip(shape, self.pads, self.kernel, strides, dilations, strict=True)
        return tuple((n + sum(pads) - d * (k - 1) - 1) // s + 1 for n, pads, k, s, d in rows)

    def _slides(self, shape: Shape) -> Shape:
        found = self.slid(shape[1:]) if len(shape) == len(self.kernel) + 1 else ()
        if not found or min(found) < 1:
            got = f"{type(self).__name__}: got an input {list(shape)}"
            form = f"[channels, {'length' if len(self.kernel) == 1 else 'height, width'}]"
            raise UsageError(
                f"{got}, expected {form} that holds the kernel {list(self.kernel)}.", "Correct the shape or the kernel."
            )
        return found


@dataclasses.dataclass(frozen=True, eq=False)
class Conv(Window):
    """A convolution: weight [out, in / groups, *kernel], bias [out]. ``padding`` is per axis, or "same" or "valid"."""

    dims: ClassVar[int] = 0
    weight: np.ndarray
    bias: np.ndarray
    stride: Shape = ()
    padding: Shape | str = ()
    dilation: Shape = ()
    groups: int = 1
    input_shape: Shape | None = None  # without channels

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        _axes(self, 2 + self.dims, "[out, in / groups, *kernel]")
        _bias(self, self.bias, self.weight)
        for key, least, default in (("stride", 1, 1), ("padding", 0, 0), ("dilation", 1, 1)):
            object.__setattr__(self, key, _tuple(name, key, getattr(self, key), self.dims, least, default))
        if self.padding == "same" and set(self.stride) != {1}:
            raise UsageError(
                f"{name}: got padding 'same' with stride {list(self.stride)}, expected 1.", "Give numbers."
            )
        groups = int(self.groups)
        if groups < 1 or self.weight.shape[0] % groups:
            got = f"{name}: got {self.weight.shape[0]} channels in {groups} groups"
            raise UsageError(f"{got}, expected groups that divide them.", "Correct the groups.")
        object.__setattr__(self, "groups", groups)
        if self.input_shape is not None:
            object.__setattr__(self, "input_shape", _tuple(name, "input_shape", self.input_shape, self.dims, 1, 1))

    @property
    def kernel(self) -> Shape:
        return self.weight.shape[2:]

    @property
    def steps(self) -> tuple[Shape, Shape]:
        return self.stride, self.dilation

    def input_shape_of(self) -> Shape | None:
        return None if self.input_shape is None else (self.weight.shape[1] * self.groups, *self.input_shape)

    def output_shape(self, shape: Shape | None) -> Shape | None:
        shape = shape or self.input_shape_of()
        if shape is None:
            return None
        if shape[0] != self.weight.shape[1] * self.groups:
            raise UsageError(
                f"{type(self).__name__}: got {shape[0]} channels, expected {self.weight.shape[1] * self.groups}.",
                "Correct the weight or what comes in.",
            )
        return (self.weight.shape[0], *self._slides(shape))


@dataclasses.dataclass(frozen=True, eq=False)
class Conv1d(Conv):
    dims = 1


@dataclasses.dataclass(frozen=True, eq=False)
class Conv2d(Conv):
    dims = 2


@dataclasses.dataclass(frozen=True, eq=False)
class SumPool2d(Window):
    """The sum of each window."""

    kernel_size: Shape
    stride: Shape
    padding: Shape = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, least in (("kernel_size", 1), ("stride", 1), ("padding", 0)):
            object.__setattr__(self, key, _tuple(type(self).__name__, key, getattr(self, key), 2, least, 0))

    @property
    def kernel(self) -> Shape:
        return self.kernel_size

    @property
    def steps(self) -> tuple[Shape, Shape]:
        return self.stride, (1, 1)

    def output_shape(self, shape: Shape | None) -> Shape | None:
        return None if shape is None else (shape[0], *self._slides(shape))


@dataclasses.dataclass(frozen=True, eq=False)
class AvgPool2d(SumPool2d):
    """The sum of each window over the size of the kernel, padding included."""


@dataclasses.dataclass(frozen=True, eq=False)
class Flatten(Node):
    """Axes ``start_dim`` to ``end_dim`` become one; there is no batch axis to count."""

    start_dim: int = 1
    end_dim: int = -1
    input_shape: Shape | None = None

    def input_shape_of(self) -> Shape | None:
        return self.input_shape

    def output_shape(self, shape: Shape | None) -> Shape | None:
        shape = shape or self.input_shape
        if shape is None:
            return None
        first, last = (d + len(shape) if d < 0 else d for d in (self.start_dim, self.end_dim))
        if not 0 <= first <= last < len(shape):
            raise UsageError(
                f"Flatten: got axes {self.start_dim} to {self.end_dim} of a shape {list(shape)}, expected some of them.",
                "Correct start_dim and end_dim; there is no batch axis.",
            )
        return (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :])


@dataclasses.dataclass(frozen=True, eq=False)
class Threshold(Node):
    """z = 1 where x > threshold, else 0."""

    elementwise = True
    threshold: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Delay(Node):
    """y(t) = x(t - delay), 0 before."""

    elementwise = True
    delay: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class I(Node):  # noqa: E742
    """dv/dt = r x,  y = v."""

    elementwise = True
    r: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class IF(Node):
    """dv/dt = r x;  z = 1 and v = v_reset where v > v_threshold."""

    elementwise = True
    r: np.ndarray
    v_threshold: np.ndarray
    v_reset: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class LI(Node):
    """tau dv/dt = v_leak - v + r x,  y = v."""

    elementwise = True
    tau: np.ndarray
    r: np.ndarray
    v_leak: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class LIF(LI):
    """tau dv/dt = v_leak - v + r x;  z = 1 and v = v_reset where v > v_threshold."""

    v_threshold: np.ndarray
    v_reset: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class CubaLI(Node):
    """tau_syn di/dt = -i + w_in x,  tau_mem dv/dt = v_leak - v + r i,  y = v."""

    elementwise = True
    tau_syn: np.ndarray
    tau_mem: np.ndarray
    r: np.ndarray
    v_leak: np.ndarray
    w_in: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class CubaLIF(CubaLI):
    """`CubaLI` whose z = 1 and v = v_reset where v > v_threshold."""

    v_threshold: np.ndarray
    v_reset: np.ndarray


NODES: dict[str, type[Node]] = {
    kind.__name__: kind
    for kind in (
        *(Input, Output, Linear, Affine, Scale, Conv1d, Conv2d, SumPool2d, AvgPool2d, Flatten, Threshold, Delay),
        *(I, IF, LI, LIF, CubaLI, CubaLIF),
    )
}
SPIKING = (IF, LIF, CubaLIF, Threshold)
INTEGRATORS = (I, LI, CubaLI)
PRODUCTS = (Linear, Affine, Conv1d, Conv2d)
WIRING = (Scale, SumPool2d, AvgPool2d, Flatten, Delay)
"""By exact type: a LIF is no LI."""


def _axes(node: Node, axes: int, form: str) -> None:
    weight: np.ndarray = getattr(node, "weight")  # noqa: B009
    if weight.ndim != axes or 0 in weight.shape:
        raise UsageError(
            f"{type(node).__name__} weight: got shape {list(weight.shape)}, expected {form}.", "Correct the weight."
        )


def _bias(node: Node, bias: np.ndarray, weight: np.ndarray) -> None:
    if bias.shape != weight.shape[:1]:
        got = f"{type(node).__name__} bias: got shape {list(bias.shape)}, expected {list(weight.shape[:1])}."
        raise UsageError(got, "Give one for each row or channel of the weight.")


def _tuple(name: str, key: str, value: Any, length: int, least: int, default: int) -> Shape | str:
    """Whole numbers, one an axis; one number stands for all, nothing for the default."""
    if isinstance(value, str | bytes):
        text = value.decode("utf-8") if isinstance(value, bytes) else value
        if key == "padding" and text in ("same", "valid"):
            return text if text == "same" else (0,) * length
        raise UsageError(f"{name} {key}: got '{text}', expected numbers, 'same' or 'valid'.", "Correct it.")
    found = np.atleast_1d(np.asarray(value if np.size(value) else default))
    if found.size == 1:
        found = np.repeat(found, length)
    whole = found.dtype.kind in "iu" or (found.dtype.kind == "f" and bool((found == np.floor(found)).all()))
    if found.shape != (length,) or not whole or (found < least).any():
        raise UsageError(
            f"{name} {key}: got {found.tolist()}, expected {length} whole numbers of at least {least}.", "Correct them."
        )
    return tuple(int(n) for n in found)
