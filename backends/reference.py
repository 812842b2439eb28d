"""Every operator as the plainest loop: slow, obvious, and the truth that the other backends are tested against."""

from __future__ import annotations

import torch
from torch import Tensor

from backends.contract import LifRule, Ops
from backends.surrogate import spike


def embed(ids: Tensor, weight: Tensor) -> Tensor:
    rows = [weight[int(i)] for i in ids.reshape(-1)]
    return torch.stack(rows).reshape(*ids.shape, weight.shape[1])


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y = (x.unsqueeze(-2) * weight).sum(-1)
    return y if bias is None else y + bias


def spike_linear(spikes: Tensor, weight: Tensor, packed: object) -> Tensor:
    return linear(spikes, weight, None)


def affine_scan(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    h, states = h0, []
    for a_t, b_t in zip(a.unbind(0), b.unbind(0), strict=True):
        h = a_t * h + b_t
        states.append(h)
    return torch.stack(states)


def lif_scan(
    current: Tensor, v0: Tensor, decay: float | Tensor, threshold: float | Tensor, rule: LifRule
) -> tuple[Tensor, Tensor]:
    v, spikes = v0.expand(current.shape[1:]), []
    for i_t in current.unbind(0):
        u = decay * v + i_t
        if rule.delayed:
            r = spike(v - threshold, rule.surrogate, rule.strict)
            v = _after(u, r, threshold, rule)
            s = spike(v - threshold, rule.surrogate, rule.strict)
        else:
            s = spike(u - threshold, rule.surrogate, rule.strict)
            v = _after(u, s, threshold, rule)
        spikes.append(s)
    return torch.stack(spikes), v


def _after(u: Tensor, s: Tensor, threshold: float | Tensor, rule: LifRule) -> Tensor:
    s = s.detach() if rule.detach_reset else s
    if rule.reset == "soft":
        return u - threshold * s
    return u * (1 - s) + rule.v_reset * s if rule.reset == "hard" else u


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    batch, heads, tokens, width = q.shape
    bias = bias.expand(batch, heads, tokens, k.shape[2])
    out = []
    for b in range(batch):
        for h in range(heads):
            for t in range(tokens):
                scores = (k[b, h] * q[b, h, t]).sum(-1) * width**-0.5 + bias[b, h, t]
                out.append((torch.softmax(scores, 0)[:, None] * v[b, h]).sum(0))
    return torch.stack(out).reshape(q.shape)


def take_rows(source: Tensor, index: Tensor) -> Tensor:
    return torch.stack([torch.stack([source[b, int(i)] for i in row]) for b, row in enumerate(index)])


def write_rows(memory: Tensor, index: Tensor, rows: Tensor, keep: Tensor) -> Tensor:
    batches = []
    for b in range(memory.shape[0]):
        slots = list(memory[b].unbind(0))
        for c in range(index.shape[1]):
            if bool(keep[b, c]):
                slots[int(index[b, c])] = rows[b, c]
        batches.append(torch.stack(slots))
    return torch.stack(batches)


def tally(shares: Tensor, ids: Tensor, width: int) -> Tensor:
    columns = []
    for v in range(width):
        here = [[shares[b, :, m] for m in range(ids.shape[1]) if int(ids[b, m]) == v] for b in range(shares.shape[0])]
        columns.append(torch.stack([sum(found, torch.zeros_like(shares[b, :, 0])) for b, found in enumerate(here)]))
    return torch.stack(columns, -1)


def weighted_rows(shares: Tensor, weight: Tensor) -> Tensor:
    return linear(shares, weight.T, None)


OPS = Ops(
    "reference",
    embed,
    linear,
    spike_linear,
    affine_scan,
    lif_scan,
    attention,
    take_rows,
    write_rows,
    tally,
    weighted_rows,
)
