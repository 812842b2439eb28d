"""Drift calibration: what a base says today in the terms that a memory was written in.

A base that is trained on, or exchanged, gives other hidden states for the same text; keys that were stored before are then
looked for in the wrong place. The drift is measured on text that both read, and undone by linear maps, fitted by least squares:

    x_before ~ A x_after + b            A any matrix ("affine"), or scale times orthogonal ("orthogonal", Procrustes)

    hidden, context, embeddings:  today -> before, on their way into the memory
    recall:                       before -> today (A alone: a recall is a difference), on its way to the head

The ridge pulls A to the identity, so without a drift the maps are the identity. Procrustes: Schoenemann 1966,
doi:10.1007/BF02289451. differs from "correcting stored keys": a key is a sparse code of the state and no linear function of
it, so the states are mapped and the store stays as it was written; old and new pairs lie in one space, and the step can be
taken back.

A store that is read again (`neuro.hf.adapter_reread`) has its keys by the base of today, and the maps only bring states near
those that place cells, gate and recall were trained on. Training is not linear and a whole map may cost more than it gives:
``choose`` keeps the share of it with which text that was read costs least when it is told again.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from neuro.errors import UsageError
from neuro.hf.streaming import CACHE_NAME

if TYPE_CHECKING:
    from neuro.hf.adapter import HippocampalAdapter

KINDS = ("affine", "orthogonal")
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the maps that are tried, the least first


class Affine(NamedTuple):
    """y = x weight^T + bias."""

    weight: Tensor  # [D, D]
    bias: Tensor  # [D]

    def __call__(self, x: Tensor) -> Tensor:
        weight, bias = (part.to(torch.promote_types(x.dtype, torch.float32)) for part in self)
        return x.to(weight.dtype) @ weight.T + bias


class Traces(NamedTuple):
    """What a base made of one text; N tokens."""

    hidden: Tensor  # [N, D] what its head read
    context: Tensor  # [N, D] what addressed the memory
    embedded: Tensor  # [N, D] embeddings, of unit root mean square


@torch.no_grad()
def fit(x: Tensor, y: Tensor, kind: str = "affine", ridge: float = 1e-4) -> Affine:
    """The map that turns x [N,D] into y [N,D] with the least squared error, in float64.

    Args:
        x, y: pairs of rows, of the same text.
        kind: one of `KINDS`.
        ridge: pull of an affine map to the identity, as a share of the mean square of x.

    Raises:
        UsageError: unequal or too few rows, an unknown kind, values that are not finite.
    """
    if kind not in KINDS:
        raise UsageError(f"calibrate: got kind '{kind}', expected {' or '.join(KINDS)}.", "Correct the kind.")
    if x.dim() != 2 or x.shape != y.shape or len(x) < 2:
        got = f"calibrate: got traces {list(x.shape)} and {list(y.shape)}, expected two of [tokens, width] alike."
        raise UsageError(got, "Trace the same text, of two tokens or more, with both bases.")
    x, y = x.double(), y.double()
    if not bool(torch.isfinite(x).all() & torch.isfinite(y).all()):
        raise UsageError("calibrate: got values that are not finite, expected numbers.", "Look for an overflow.")
    mean_x, mean_y = x.mean(0), y.mean(0)
    a, b = x - mean_x, y - mean_y
    if kind == "orthogonal":
        u, s, v = torch.linalg.svd(b.T @ a)
        weight = (u @ v) * s.sum() / (a * a).sum().clamp_min(1e-30)
    else:
        eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        pull = (ridge * (a * a).mean() * len(a)).clamp_min(1e-12)
        # A = I + E with the least |b - a - a E^T|^2 + pull |E|^2: exactly I where b is a.
        weight = eye + torch.linalg.solve(a.T @ a + pull * eye, a.T @ (b - a)).T
    return Affine(weight, mean_y - mean_x @ weight.T)


class Alignment(nn.Module):
    """The four maps of a calibration; buffers, so that they travel with the adapter's weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for name in ("hidden", "context", "embedded", "recalled"):
            self.register_buffer(f"{name}_weight", torch.eye(width))
            self.register_buffer(f"{name}_bias", torch.zeros(width))

    @classmethod
    def between(cls, before: Traces, after: Traces, kind: str = "affine") -> Alignment:
        """The maps that read ``after`` as ``before``.

        Raises:
            UsageError: as `fit`.
        """
        made = cls(before.hidden.shape[1])
        maps = {name: fit(getattr(after, name), getattr(before, name), kind) for name in Traces._fields}
        outwards = fit(before.hidden, after.hidden, kind)
        maps["recalled"] = Affine(outwards.weight, torch.zeros_like(outwards.bias))
        for name, found in maps.items():
            getattr(made, f"{name}_weight").copy_(found.weight)
            getattr(made, f"{name}_bias").copy_(found.bias)
        return made

    def kept(self, share: float) -> Alignment:
        """So much of each map, the rest the identity: I + share (A - I) and share b, ``share`` in 0..1."""
        made = copy.deepcopy(self)
        for own in made.buffers():
            none = torch.eye(len(own)).to(own) if own.dim() == 2 else torch.zeros_like(own)
            own.copy_(torch.lerp(none, own, share))
        return made

    def map(self, name: str) -> Affine:
        """One of hidden, context, embedded, recalled."""
        return Affine(getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias"))

    def hidden(self, x: Tensor) -> Tensor:
        return self.map("hidden")(x)

    def context(self, x: Tensor) -> Tensor:
        return self.map("context")(x)

    def embedded(self, x: Tensor) -> Tensor:
        return self.map("embedded")(x)

    def recalled(self, x: Tensor) -> Tensor:
        return self.map("recalled")(x)


@torch.no_grad()
def restated(adapter: HippocampalAdapter, rows: Tensor) -> float:
    """Nats a token of rows [B,T], each told again after it alone was remembered; T - 1 tokens of a row count."""
    nats = 0.0
    with adapter.evaluating():
        for part in rows.split(4):
            loss = adapter(part, labels=part, **{CACHE_NAME: adapter.remember(part)}).loss
            nats += float(loss) * len(part) / len(rows)
    return nats


def choose(adapter: HippocampalAdapter, whole: Alignment, rows: Tensor) -> dict[float, float]:
    """Leave the adapter with the share of the maps with which `restated` rows [B,T] cost least -> nats by share.

    The least share where the costs are equal to 1e-4 nats, and no alignment at all for 0.

    Raises:
        UsageError: rows of less than two tokens.
    """
    if rows.dim() != 2 or not len(rows) or rows.shape[1] < 2:
        raise UsageError(
            f"calibrate: got choose_on {list(rows.shape)}, expected [rows, 2 tokens or more].",
            "Give text that is like what will be remembered, and not what was traced.",
        )
    nats, before = {}, adapter.fusion.alignment
    try:
        for share in SHARES:
            adapter.fusion.alignment = whole.kept(share) if share else None
            nats[share] = restated(adapter, rows)
    except BaseException:
        adapter.fusion.alignment = before
        raise
    best = min(nats, key=lambda share: round(nats[share], 4))
    adapter.fusion.alignment = whole.kept(best) if best else None
    return nats
