"""Attention in one kernel: pairs of a query and a key that may meet, in both products."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sims.counting import connections
from sims.counting.arithmetic import normalisation, softmax
from sims.counting.movement import bits
from sims.counting.recurrent import meeting
from sims.counting.tags import PLAIN, sparsest

if TYPE_CHECKING:
    from sims.counting.counter import Counting


def fused(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    named = dict(zip(("q", "k", "v", "attn_mask", "dropout_p", "is_causal"), args, strict=False)) | kwargs
    q, k, v = args[:3]
    attention(c, q, k, v, named.get("attn_mask"), bool(named.get("is_causal", False)))


def flash(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    named = dict(zip(("q", "k", "v", "dropout_p", "is_causal"), args, strict=False)) | kwargs
    q, k, v = args[:3]
    attention(c, q, k, v, named.get("attn_mask"), bool(named.get("is_causal", False)))


def attention(
    c: Counting, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, computed: bool = False
) -> None:
    """q [...,H,L,K], k [...,G,S,K], v [...,G,S,M]: pairs that may meet, in both products.

    Args:
        mask: bool, True may meet; or what is added to the scores, -inf may not.
        computed: count the pairs that are hidden too: they are multiplied, and only ``effective`` leaves them out.
    """
    length, keys, width, out = q.shape[-2], k.shape[-2], q.shape[-1], v.shape[-1]
    heads = q.numel() // max(1, length * width)
    pairs = everything = heads * length * keys
    rows = heads * length
    seen: Tensor | None = None
    if causal:
        pairs = heads * sum(min(i + 1, keys) for i in range(length))
        seen = torch.ones(length, keys, dtype=torch.bool, device=q.device).tril() if not c.meta else None
    elif mask is not None:
        if c.meta:
            c.unknown_mask()
        else:
            seen = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min
            seen = seen.expand(*q.shape[:-2], length, keys)
            pairs = connections.total(seen)
            rows = rows if computed else connections.total(seen.any(-1))
    tags = [c.tags.get(x) for x in (q, k, v)]
    left: tuple[int | None, int | None] = (None, None)
    if not c.meta:
        left = attended(c, q, k, v, seen, pairs)
    count = everything if computed else pairs
    c.mac_of(sparsest(*tags[:2]), count * width, left[0], keys, bits(k))
    c.mac_of(tags[2] if tags[2].weight is None else PLAIN, count * out, left[1], length, bits(v))
    softmax(c, count, rows)
    c.emit("elementwise", count * (1 if mask is None or mask.dtype == torch.bool else 2))  # the scale, what is added
    kv = (k.numel() + v.numel()) * k.element_size()
    c.move("kv", kv, kv // max(1, keys) * min(length, keys))


def attended(c: Counting, q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None, pairs: int) -> tuple[int, int]:
    """Products left of scores and of values, whose weights are never zero where a pair is seen."""
    width, out = q.shape[-1], v.shape[-1]
    full = [c.nonzero(x) == x.numel() for x in (q, k, v)]
    if all(full):
        return pairs * width, pairs * out
    k, v = (for_heads(x, q) for x in (k, v))
    scores, values = pairs * width, pairs * out
    if not (full[0] and full[1]):
        a, b = connections.mask(q), connections.mask(k)
        if seen is None:
            scores = connections.products(a, b.transpose(-1, -2))
        else:
            met = a.to(torch.float64) @ b.to(torch.float64).transpose(-1, -2)
            scores = int((met * seen).sum().item())
    if not full[2]:
        weight = connections.mask(v).sum(-1)  # of each key
        each = torch.full((), q.shape[-2], device=v.device) if seen is None else seen.sum(-2)
        values = int((weight * each).sum())
    return scores, values


def for_heads(x: Tensor, q: Tensor) -> Tensor:
    """Keys or values with a head for each of the queries."""
    if x.dim() > 2 and x.shape[-3] != q.shape[-3]:
        return x.repeat_interleave(q.shape[-3] // x.shape[-3], -3)
    return x


def native_attention(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    q, k, v, _, heads, inward, bias, outward, out_bias = args[:9]
    mask = args[9] if len(args) > 9 else kwargs.get("mask")
    kind = args[12] if len(args) > 12 else kwargs.get("mask_type")
    multihead(c, q, k, v, heads, inward, bias, outward, out_bias, mask, kind, None)


def multihead(
    c: Counting,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    inward: Tensor,
    bias: Tensor | None,
    outward: Tensor,
    out_bias: Tensor | None,
    mask: Tensor | None,
    kind: int | None,
    path: str | None,
) -> None:
    """Multi-head attention in one kernel, [B,L,D]. Nobody sees inside what is zero."""
    batch, length, width = q.shape
    keys = k.shape[1]
    for given, weight in zip((q, k, v), inward.chunk(3), strict=True):
        effective = None if c.meta else meeting(c, given, weight)
        c.mac_of(
            c.tags.get(given), batch * given.shape[1] * weight.numel(), effective, weight.shape[0], bits(weight), path
        )
    pairs, rows = batch * heads * length * keys, batch * heads * length
    if mask is not None and c.meta:
        c.unknown_mask()
    elif mask is not None:
        hidden = mask.to(torch.bool)
        hidden = hidden[:, None, None] if kind == 1 else hidden  # of keys [B,S], else of pairs [L,S] or [B,H,L,S]
        seen = ~hidden.expand(batch, heads, length, keys)
        pairs, rows = connections.total(seen), connections.total(seen.any(-1))
    c.mac_of(PLAIN, 2 * pairs * (width // heads), None, 0, bits(q), path)
    c.mac_of(PLAIN, batch * length * outward.numel(), None, 0, bits(outward), path)
    softmax(c, pairs, rows, path)
    c.emit("elementwise", pairs, path=path)
    for read in (bias, out_bias):
        c.reads(read)
    for weight in (inward, outward):
        c.multiplied(c.weight(weight))
    kv = 2 * batch * keys * width * q.element_size()
    c.move("kv", kv, kv, path)


def encoder_layer(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    x, width, heads, inward, bias, outward, out_bias, gelu, _, _ = args[:10]
    norms, (up, up_bias, down, down_bias) = args[10:14], args[14:18]
    mask = args[18] if len(args) > 18 else kwargs.get("mask")
    owner = {id(w): c.owner(c.tags.get(w)) for w in (inward, up, down, norms[0], norms[2])}
    kind = args[19] if len(args) > 19 else kwargs.get("mask_type")
    multihead(c, x, x, x, heads, inward, bias, outward, out_bias, mask, kind, owner[id(inward)])
    rows = x.numel() // width
    for weight in (up, down):
        c.mac_of(PLAIN, rows * weight.numel(), None, 0, bits(weight), owner[id(weight)])
        c.multiplied(c.weight(weight))
    c.emit("transcendental" if gelu else "compare", rows * up.shape[0])
    c.emit("elementwise", 2 * x.numel() + (2 * rows * up.shape[0] if gelu else 0))
    for weight in norms[::2]:
        normalisation(c, x.numel(), rows, 2, owner[id(weight)])
    for weight in (*norms, up_bias, down_bias):
        c.reads(weight)
