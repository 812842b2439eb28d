"""A mode that runs on any machine and refuses what scatter-free devices cannot do.

Source of the list: the operator table of torch-directml 0.2.5 (native, fallback and literal limits) and its issue
tracker; see docs/backends.md.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from backends.errors import ForbiddenOperatorError

FORBIDDEN = frozenset(
    # scatters, and what hides one (embedding's, gather's and topk's backward show up as these)
    """scatter scatter_ scatter_add scatter_add_ scatter_reduce scatter_reduce_ index_put index_put_ _index_put_impl_
    _unsafe_index_put index_add index_add_ index_copy index_copy_ index_fill index_fill_ masked_scatter masked_scatter_
    put put_ embedding_dense_backward value_selecting_reduction_backward slice_scatter select_scatter
    _unsafe_masked_index_put_accumulate"""
    # shapes that depend on data
    """ nonzero masked_select _unique _unique2 unique_dim unique_consecutive unique_dim_consecutive bincount
    repeat_interleave"""
    # fall back to the CPU, or abort
    """ lerp lerp_ _foreach_lerp_ roll std amin aminmax silu_backward log_sigmoid_forward log_sigmoid_backward one_hot
    cumprod logcumsumexp heaviside frac fmod trunc searchsorted bucketize _fused_adamw_ _fused_adam_
    _linalg_det linalg_inv_ex linalg_qr _fft_r2c""".split()
)


class ScatterFreeGuard(TorchDispatchMode):
    """Raises on the first forbidden operator or float64/bfloat16 tensor, forward, backward and optimizer alike.

    Costs several times the step: for tests. ``seen`` counts the operators that passed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = func._schema.name.split("::")[-1]
        if name in FORBIDDEN or (name == "index" and _has_mask(args[1])):
            raise ForbiddenOperatorError(
                f"scatter-free guard: got aten.{name}, expected an operator that needs no scatter or fallback.",
                "Use the portable operator table, or a mask and a matrix product.",
            )
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor) and leaf.dtype in (torch.float64, torch.bfloat16):
                raise ForbiddenOperatorError(
                    f"scatter-free guard: aten.{name} made a {leaf.dtype} tensor, expected float32 or float16.",
                    "Give the tensor an explicit dtype.",
                )
        self.seen[name] = self.seen.get(name, 0) + 1
        return out


def _has_mask(indices: Any) -> bool:
    # x[mask] looks for the true places inside one operator: its shape depends on data.
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)
