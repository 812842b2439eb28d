"""Law: the counter's integers are those of a loop over every connection, written without any of its formulas."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuro.workload import Workload
from sims.counting import count

CONFIGS = 12  # of each kind


def macs(load: Workload) -> tuple[int, int | None]:
    rows = [row for row in load.operations if row.kind == "mac"]
    left = [row.effective for row in rows]
    return sum(row.count for row in rows), None if None in left else sum(left)


def sparse(draw: random.Random, *shape: int) -> Tensor:
    """Random numbers, some of them 0."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(draw.randrange(1 << 30)))
    return x * (torch.rand(shape, generator=torch.Generator().manual_seed(draw.randrange(1 << 30))) < draw.random())


def prune(module: nn.Module, draw: random.Random) -> nn.Module:
    if draw.random() < 0.6:
        with torch.no_grad():
            for weight in module.parameters():
                weight.mul_(sparse(draw, *weight.shape) != 0)
    return module


def of_matrices(x: Tensor, weight: Tensor) -> tuple[int, int]:
    """x [rows, K], weight [N, K]."""
    every = left = 0
    rows, weights = x.tolist(), weight.tolist()
    for row in rows:
        for targets in weights:
            for value, w in zip(row, targets, strict=True):
                every += 1
                left += value != 0 and w != 0
    return every, left


def of_convolution(x: Tensor, layer: nn.Module) -> tuple[int, int]:
    """Every output looks for the inputs under its kernel; transposed, every input for its outputs."""
    weight, groups, transposed = layer.weight, layer.groups, layer.transposed
    axes = weight.dim() - 2
    out = layer(x).shape[2:]
    every = left = 0
    ins, outs = x.shape[1] // groups, layer.out_channels // groups
    padding = layer.padding if isinstance(layer.padding, tuple) else None
    if padding is None:
        padding = tuple(d * (k - 1) // 2 for d, k in zip(layer.dilation, layer.kernel_size, strict=True))
    taps = list(itertools.product(*(range(k) for k in weight.shape[2:])))
    places = list(itertools.product(*(range(n) for n in (x.shape[2:] if transposed else out))))
    limits = out if transposed else x.shape[2:]
    for b, g, i, o in itertools.product(range(x.shape[0]), range(groups), range(ins), range(outs)):
        here, there = g * ins + i, g * outs + o
        plane = x[b, here].tolist() if axes == 1 else x[b, here]
        kernel = weight[here, o] if transposed else weight[there, i]
        for place, tap in itertools.product(places, taps):
            met = tuple(place[a] * layer.stride[a] - padding[a] + tap[a] * layer.dilation[a] for a in range(axes))
            if any(not 0 <= m < n for m, n in zip(met, limits, strict=True)):
                continue
            every += 1
            value = plane[place[0] if transposed else met[0]] if axes == 1 else plane[place if transposed else met]
            left += bool(value != 0) and bool(kernel[tap] != 0)
    return every, left


@pytest.mark.parametrize("seed", range(CONFIGS))
def test_linear(seed):
    draw = random.Random(seed)
    inputs, outputs, rows = (draw.randrange(1, 9) for _ in range(3))
    layer = prune(nn.Linear(inputs, outputs, bias=draw.random() < 0.5), draw)
    x = sparse(draw, rows, inputs)
    assert macs(count(layer, x)) == of_matrices(x, layer.weight)
    assert macs(count(layer, x.reshape(1, rows, inputs))) == of_matrices(x, layer.weight)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("seed", range(CONFIGS))
def test_convolution(axes, transposed, seed):
    draw = random.Random(1000 * axes + seed)
    groups = draw.choice([1, 1, 2])
    largest = {1: 9, 2: 6, 3: 4}[axes]
    kernel = [draw.randrange(1, 4 if axes < 3 else 3) for _ in range(axes)]
    stride = [draw.randrange(1, 4) for _ in range(axes)]
    dilation = [draw.randrange(1, 3) for _ in range(axes)]
    padding = [draw.randrange(0, 1 + d * (k - 1) // 2 + 1) for k, d in zip(kernel, dilation, strict=True)]
    sizes = [draw.randrange(d * (k - 1) + 1, d * (k - 1) + largest) for k, d in zip(kernel, dilation, strict=True)]
    classes = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    if not transposed:
        classes = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    extra = {}
    if transposed:
        padding = (
            [0 for _ in padding]
            if draw.random() < 0.5
            else [min(p, d * (k - 1) // 2) for p, k, d in zip(padding, kernel, dilation, strict=True)]
        )
        extra["output_padding"] = [draw.randrange(0, max(s, d)) for s, d in zip(stride, dilation, strict=True)]
    elif draw.random() < 0.2:
        stride = [1] * axes
        padding = "same" if all(k % 2 or d % 2 == 0 for k, d in zip(kernel, dilation, strict=True)) else padding
    made = classes[axes - 1](
        groups * draw.randrange(1, 3),
        groups * draw.randrange(1, 3),
        kernel,
        stride,
        padding,
        dilation=dilation,
        groups=groups,
        bias=draw.random() < 0.5,
        **extra,
    )
    layer = prune(made, draw)
    x = sparse(draw, draw.randrange(1, 3), layer.in_channels, *sizes)
    expected = of_convolution(x, layer)
    assert macs(count(layer, x)) == expected
    assert macs(count(layer, x[0]))[0] * x.shape[0] == expected[0]


def test_an_even_kernel_keeping_its_size_has_no_connections_to_padding():
    layer, x = nn.Conv2d(1, 1, 4, padding="same"), torch.ones(1, 1, 5, 5)
    with pytest.warns(UserWarning, match="even kernel"):
        assert macs(count(layer, x)) == of_convolution(x, layer)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("seed", range(4))
def test_recurrent_layers(kind, seed):
    draw = random.Random(seed)
    inputs, units, batch, steps = (draw.randrange(1, 6) for _ in range(4))
    layer = prune(kind(inputs, units, batch_first=draw.random() < 0.5), draw)
    x = sparse(draw, batch, steps, inputs)
    y, _ = layer(x)
    before = y.transpose(0, 1) if layer.batch_first else y
    given = x.transpose(0, 1) if layer.batch_first else x
    every = left = 0
    for t in range(given.shape[0]):
        h = torch.zeros_like(before[0]) if t == 0 else before[t - 1]
        for values, weight in ((given[t], layer.weight_ih_l0), (h, layer.weight_hh_l0)):
            some = of_matrices(values, weight)
            every, left = every + some[0], left + some[1]
    assert macs(count(layer, x)) == (every, left)


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_recurrent_cells(kind):
    draw = random.Random(3)
    layer, x, h = prune(kind(4, 3), draw), sparse(draw, 5, 4), sparse(draw, 5, 3)
    given = (x, (h, h)) if kind is nn.LSTMCell else (x, h)
    expected = [a + b for a, b in zip(of_matrices(x, layer.weight_ih), of_matrices(h, layer.weight_hh), strict=True)]
    assert macs(count(layer, given)) == tuple(expected)


def test_stacked_recurrent_layers_in_both_directions():
    layer, x = nn.LSTM(3, 2, num_layers=2, bidirectional=True), torch.randn(5, 4, 3)
    weights = sum(weight.numel() for weight in layer.parameters() if weight.dim() == 2)
    assert macs(count(layer, x)) == (20 * weights, None)  # nobody looks between fused layers


def test_packed_sequences_count_the_tokens_they_have():
    layer = nn.GRU(3, 2)
    x = nn.utils.rnn.pack_padded_sequence(torch.randn(5, 2, 3), torch.tensor([5, 3]))
    load = count(layer, (x,), samples=2)
    assert macs(load)[0] == 8 * sum(weight.numel() for weight in (layer.weight_ih_l0, layer.weight_hh_l0))


class Attention(nn.Module):
    def __init__(self, causal: bool = False) -> None:
        super().__init__()
        self.causal = causal

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, mask, is_causal=self.causal, enable_gqa=q.shape[1] != k.shape[1])


@pytest.mark.parametrize("seed", range(CONFIGS))
@pytest.mark.parametrize("form", ["all", "causal", "bool", "float"])
def test_fused_attention(seed, form):
    draw = random.Random(seed)
    batch, groups, length, keys = (draw.randrange(1, 4) for _ in range(4))
    heads, width, out = groups * draw.randrange(1, 3), draw.randrange(1, 5), draw.randrange(1, 5)
    q, k = sparse(draw, batch, heads, length, width), sparse(draw, batch, groups, keys, width)
    v = sparse(draw, batch, groups, keys, out)
    seen = torch.ones(batch, heads, length, keys, dtype=torch.bool)
    if form == "causal":
        seen &= torch.tensor([[j <= i for j in range(keys)] for i in range(length)])
    elif form != "all":
        seen &= torch.rand(batch, 1, length, keys) < 0.7
    mask = {"bool": seen, "float": torch.where(seen, 0.3, -torch.inf)}.get(form)
    every = left = 0
    for b, h, i, j in itertools.product(range(batch), range(heads), range(length), range(keys)):
        if seen[b, h, i, j]:
            key, value = k[b, h * groups // heads, j], v[b, h * groups // heads, j]
            every += width + out
            left += sum(bool(a) and bool(c) for a, c in zip(q[b, h, i], key, strict=True))
            left += sum(bool(c) for c in value)
    given = (q, k, v) if mask is None else (q, k, v, mask)
    assert macs(count(Attention(form == "causal"), given)) == (every, left)


@pytest.mark.parametrize("fast", [True, False])
def test_multihead_attention_in_every_path(fast):
    layer, x = nn.MultiheadAttention(8, 2, batch_first=True).eval(), torch.randn(3, 5, 8)
    torch.backends.mha.set_fastpath_enabled(fast)
    try:
        found = macs(count(layer, (x, x, x)))
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    every = 15 * 4 * 64 + 3 * 2 * (5 * 5 * 4) * 2
    assert found == ((every, None) if fast else (every, every))


@pytest.mark.parametrize("mask", ["keys", "pairs", "both"])
def test_masks_of_the_fast_path(mask):
    layer, x = nn.MultiheadAttention(8, 2, batch_first=True).eval(), torch.randn(3, 5, 8)
    keys = torch.tensor([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1], [0, 0, 0, 0, 1]], dtype=torch.bool)
    pairs = torch.ones(5, 5, dtype=torch.bool).triu(1)
    given = {"query": x, "key": x, "value": x, "need_weights": False}
    given |= {"key_padding_mask": keys} if mask != "pairs" else {}
    given |= {"attn_mask": pairs} if mask != "keys" else {}
    seen = ~(keys[:, None] if mask != "pairs" else pairs.expand(3, 5, 5))
    seen = seen & ~(pairs if mask != "keys" else keys[:, None])
    expected = 15 * 4 * 64 + 2 * int(seen.expand(3, 5, 5).sum()) * 4 * 2
    assert macs(count(layer, given, samples=3))[0] == expected


@pytest.mark.parametrize("fast", [True, False])
def test_an_encoder_layer_in_every_path(fast):
    layer, x = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True).eval(), torch.randn(3, 5, 8)
    torch.backends.mha.set_fastpath_enabled(fast)
    try:
        load = count(layer, x)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    assert macs(load)[0] == 15 * (4 * 64 + 2 * 96) + 3 * 2 * (5 * 5 * 4) * 2
    assert {row.region: row.count for row in load.operations if row.kind == "mac"}["linear1"] == 15 * 96


class Memory(nn.Module):
    """Look-up by einsum: keys and values as stored, the best k slots."""

    def __init__(self, slots: int, width: int) -> None:
        super().__init__()
        self.register_buffer("keys", torch.randn(slots, width))
        self.register_buffer("values", torch.randn(slots, width))

    def forward(self, x: Tensor) -> Tensor:
        scores = torch.einsum("btd,md->btm", x, self.keys)
        best = scores.topk(3, -1)
        weights = torch.zeros_like(scores).scatter(-1, best.indices, best.values.softmax(-1))
        return torch.einsum("btm,md->btd", weights, self.values)


def test_an_einsum_memory():
    module, x = Memory(7, 4), sparse(random.Random(1), 2, 5, 4)
    load = count(module, x)
    every, left = of_matrices(x.reshape(10, 4), module.keys)
    assert macs(load) == (every + 10 * 7 * 4, left + 10 * 3 * 4)
    compares = sum(row.count for row in load.operations if row.kind == "compare")
    assert compares == 70 * 2 + 10 * 2  # top-k of 7 by 3: log2 rounded up; a softmax of 3
    assert sum(row.read_bytes for row in load.traffic if row.store == "memory") == 2 * 7 * 4 * 4
    assert sum(row.written_bytes for row in load.traffic if row.store == "memory") == 30 * 4


class Products(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (
            torch.bmm(a, b).sum()
            + (a[0] @ b[0]).sum()
            + torch.baddbmm(torch.ones(1, 1, 1), a, b).sum()
            + (a[0] @ b[0, :, 0]).sum()
        )


@pytest.mark.parametrize("seed", range(4))
def test_products_of_activations(seed):
    draw = random.Random(seed)
    batch, n, k, m = (draw.randrange(1, 5) for _ in range(4))
    a, b = sparse(draw, batch, n, k), sparse(draw, batch, k, m)
    each = [of_matrices(x, y.T) for x, y in zip(a, b, strict=True)]
    last = of_matrices(a[0], b[0, :, :1].T)
    expected = [2 * sum(one[i] for one in each) + each[0][i] + last[i] for i in range(2)]
    assert macs(count(Products(), (a, b))) == tuple(expected)


@pytest.mark.skipif(not hasattr(F, "grouped_mm"), reason="an older torch has no grouped products")
def test_experts_of_groups_of_rows():
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.Parameter(sparse(random.Random(2), 3, 8, 16).bfloat16())

        def forward(self, x: Tensor, ends: Tensor) -> Tensor:
            return F.grouped_mm(x, self.experts, offs=ends)

    module, x, ends = Experts(), sparse(random.Random(1), 6, 8).bfloat16(), [2, 2, 6]  # none for the second
    load = count(module, (x, torch.tensor(ends, dtype=torch.int32)))
    each = [of_matrices(x[a:b], module.experts[i].T) for i, (a, b) in enumerate(itertools.pairwise([0, *ends]))]
    assert macs(load) == tuple(sum(one[i] for one in each) for i in range(2))
    assert [row.read_bytes for row in load.traffic] == [2 * 8 * 16 * 2]


def test_counts_stay_exact_where_float32_sums_do_not():
    layer, x = nn.Linear(4097, 4099, bias=False), torch.ones(3, 4097)
    with torch.no_grad():
        layer.weight[5, 7] = 0.0
    assert macs(count(layer, x)) == (3 * 4097 * 4099, 3 * (4097 * 4099 - 1))
