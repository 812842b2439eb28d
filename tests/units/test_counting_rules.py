"""What one operator counts as, by hand: kinds, and the bytes it moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuro.workload import Workload
from sims.counting import count
from sims.counting.rules import RULES


class Does(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


def kinds(load: Workload) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in load.operations:
        found[row.kind] = found.get(row.kind, 0) + row.count
    return found


def moved(load: Workload) -> dict[str, tuple[int, int]]:
    return {row.store: (row.read_bytes, row.written_bytes) for row in load.traffic}


E, T, A, C = "elementwise", "transcendental", "accumulate", "compare"
X = torch.arange(1.0, 13.0).reshape(3, 4)
ONE: dict[str, tuple[Callable[[Tensor], Any], dict[str, int]]] = {
    "add": (lambda x: x + x, {E: 12}),
    "add a number in place": (lambda x: x.clone().add_(1), {E: 12}),
    "broadcast": (lambda x: x[:, None] * x[None], {E: 36}),
    "square": (lambda x: x**2, {E: 12}),
    "cube": (lambda x: x**3, {E: 24}),
    "any power": (lambda x: x**0.3, {T: 12}),
    "divide by a number": (lambda x: x / 3, {E: 12}),
    "divide by a tensor": (lambda x: x / x, {T: 12}),
    "exp": (torch.exp, {T: 12}),
    "rsqrt": (torch.rsqrt, {T: 12}),
    "relu": (F.relu, {C: 12}),
    "clamp": (lambda x: x.clamp(0, 1), {C: 24}),
    "clamp below": (lambda x: x.clamp(max=1), {C: 12}),
    "gelu": (F.gelu, {T: 12, E: 36}),
    "silu": (F.silu, {T: 12, E: 12}),
    "greater": (lambda x: x > 2, {C: 12}),
    "sum": (lambda x: x.sum(), {A: 11}),
    "sum of rows": (lambda x: x.sum(1), {A: 9}),
    "mean": (lambda x: x.mean(1), {A: 9, E: 3}),
    "max": (lambda x: x.max(1), {C: 9}),
    "larger": (lambda x: torch.maximum(x, x), {C: 12}),
    "argmax": (lambda x: x.argmax(), {C: 11}),
    "cumsum": (lambda x: x.cumsum(1), {A: 9}),
    "topk": (lambda x: x.topk(3, 1), {C: 24}),
    "topk of one": (lambda x: x.topk(1, 1), {C: 12}),
    "sort": (lambda x: x.sort(1), {C: 24}),
    "softmax": (lambda x: x.softmax(1), {T: 15, E: 24, A: 9, C: 9}),
    "layer norm": (lambda x: F.layer_norm(x, (4,)), {A: 18, E: 36, T: 3}),
    "rms norm": (lambda x: F.rms_norm(x, (4,)), {A: 9, E: 24, T: 3}),
    "norm": (lambda x: torch.linalg.vector_norm(x, dim=1), {E: 12, A: 9, T: 3}),
    "distances": (lambda x: torch.cdist(x, x[:2]), {E: 48, A: 18, T: 6}),
    "buckets": (lambda x: torch.bucketize(x, torch.tensor([1.0, 2.0, 3.0]).to(x.device)), {C: 24}),
    "one of": (lambda x: torch.isin(x, x[0]), {C: 48}),
    "max pool": (lambda x: F.max_pool1d(x[None], 2), {C: 6}),
    "max pool over the border": (lambda x: F.max_pool1d(x[None], 3, 1, 1), {C: 3 * (10 - 4)}),
    "mean pool": (lambda x: F.avg_pool1d(x[None], 2), {A: 6, E: 6}),
    "adaptive mean pool": (lambda x: F.adaptive_avg_pool1d(x[None], 1), {A: 9, E: 3}),
    "outer": (lambda x: torch.outer(x[0], x[1]), {E: 16}),
    "product": (lambda x: x @ x.T, {"mac": 36}),
    "views": (lambda x: x.T.reshape(2, 6).unsqueeze(0).expand(3, -1, -1).flatten(), {}),
    "copies": (lambda x: torch.cat([x.clone(), x.double().float()]).flip(0), {}),
    "selections": (lambda x: torch.where(x[:, :1].bool(), x, x.roll(1)), {}),
    "random numbers": (lambda x: torch.rand_like(x), {}),
    "dropout, not training": (lambda x: F.dropout(x, 0.5, False), {}),
    "dropout, training": (lambda x: F.dropout(x, 0.5, True), {E: 12}),
}


@pytest.mark.parametrize("name", ONE)
def test_one_operator(name):
    function, expected = ONE[name]
    assert kinds(count(Does(function), X)) == expected


def test_the_same_from_shapes():
    for name, (function, expected) in ONE.items():
        assert kinds(count(Does(function), X.to("meta"))) == expected, name


def test_normalisation_of_batches():
    layer, x = nn.BatchNorm1d(4), torch.randn(3, 4, 5)
    assert kinds(count(layer, x)) == {A: 2 * (60 - 4), E: 5 * 60 + 1, T: 4}  # and the number of batches
    assert kinds(count(layer.eval(), x)) == {E: 2 * 60 + 2 * 4, T: 4}
    assert kinds(count(nn.GroupNorm(2, 4), x)) == {A: 2 * (60 - 6), E: 5 * 60, T: 6}


def test_weights_of_a_given_norm():
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    assert kinds(count(layer, X)) == {"mac": 36, E: 24, A: 9, T: 6}


def test_values_in_bins():
    assert kinds(count(Does(lambda x: torch.bincount(x.flatten().long())), X)) == {A: 12}


def test_gates_of_recurrent_layers_are_those_of_their_cells():
    x, h = torch.randn(3, 4), torch.randn(3, 5)
    for layer, cell, state in (
        (nn.LSTM(4, 5), nn.LSTMCell(4, 5), (h, h)),
        (nn.GRU(4, 5), nn.GRUCell(4, 5), h),
        (nn.RNN(4, 5), nn.RNNCell(4, 5), h),
    ):
        whole = kinds(count(layer, x[None], samples=3))
        step = kinds(count(cell, (x, state)))
        assert whole["mac"] == step["mac"]
        assert whole[T] == step[T]
        assert abs(whole[E] - step[E]) <= 2 * 15  # torch forms (1 - z) n + z h as n + z (h - n)


def test_rows_of_an_embedding():
    layer = nn.Embedding(10, 4)
    load = count(layer, torch.tensor([[1, 2, 3]]), unit="token")
    assert (kinds(load), moved(load), load.layers) == ({}, {"weights": (3 * 4 * 4, 0)}, 0)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_rows(mode):
    layer = nn.EmbeddingBag(10, 4, mode=mode)
    load = count(layer, (torch.tensor([1, 2, 4, 5, 4]), torch.tensor([0, 3, 3])))
    expected = {"sum": {A: 12}, "mean": {A: 12, E: 8}, "max": {C: 12}}  # bags of 3, 0 and 2
    assert kinds(load) == expected[mode]
    assert moved(load) == {"weights": (5 * 4 * 4, 0)}


def test_reads_and_writes_of_a_store():
    def store(slots: Tensor, index: Tensor) -> Tensor:
        rows = slots[index]
        slots = slots.index_put((index,), rows)
        return slots.scatter_add(0, index[:, None].expand(-1, 4), rows)

    load = count(Does(store), (torch.randn(6, 4), torch.tensor([0, 2])))
    assert kinds(load) == {A: 8}
    assert moved(load) == {"memory": (32, 64)}


def test_weights_are_read_once_a_product():
    layer = nn.Linear(4, 3)
    load = count(Does(lambda x: layer(x)), X)
    assert moved(load) == {}  # not a part of the module
    net = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    assert [row.read_bytes for row in count(net, X).traffic] == [80, 32]
    twice = count(net, X, call=lambda net, x: net(net(x)))
    assert ([row.read_bytes for row in twice.traffic], twice.phases[0].calls, twice.layers) == ([160, 64], 2, 1)


def test_a_convolution_reads_its_kernel_once():
    load = count(nn.Conv2d(2, 3, 3), torch.randn(5, 2, 8, 8))
    assert moved(load) == {"weights": (4 * (2 * 3 * 9 + 3), 0)}


def test_keys_and_values():
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)

    q, k = torch.randn(2, 3, 1, 4), torch.randn(2, 3, 9, 4)
    assert moved(count(Does(attend), (q, k, k)))["kv"] == (2 * 2 * 3 * 9 * 4 * 4, 2 * 2 * 3 * 4 * 4)


def test_where_an_operation_is_put():
    inner = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    net = nn.ModuleDict({"front": nn.Linear(3, 3), "deep": nn.ModuleList([inner])})
    load = count(net, torch.ones(1, 3), call=lambda n, x: n["deep"][0](n["front"](x)) * 2)
    assert [(row.region, row.name, row.kind) for row in load.operations] == [
        ("front", "self", "mac"),
        ("deep", "0.0", "mac"),
        ("deep", "0.1", C),
        ("model", "self", E),
    ]


def test_a_table_of_regions_is_no_region():
    class Brain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.regions = nn.ModuleDict({"cortex": nn.Sequential(nn.Linear(2, 2))})

        def forward(self, x: Tensor) -> Tensor:
            return self.regions["cortex"](x)

    (row,) = count(Brain(), torch.ones(1, 2)).operations
    assert (row.region, row.name) == ("cortex", "0")


def test_tied_weights_are_counted_where_they_run():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.embedding(ids))

    load = count(Tied(), torch.tensor([[1, 2]]), unit="token")
    assert [(row.region, row.count) for row in load.operations] == [("head", 48)]
    assert load.parameters == 24
    assert [(row.region, row.read_bytes) for row in load.traffic] == [("embedding", 32), ("head", 96)]


def test_inference_mode_and_scripts_are_counted_too():
    layer, x = nn.Sequential(nn.Linear(4, 3), nn.ReLU()), X
    expected = kinds(count(layer, x))
    with torch.inference_mode():
        assert kinds(count(layer, x)) == expected


@pytest.mark.skipif(torch.__version__ < "2.13", reason="an older torch has fewer operators")
def test_every_rule_is_of_an_operator_that_exists():
    known = {name.split(".")[0] for name in torch._C._dispatch_get_all_op_names()}
    missing = [
        name for name in RULES if name not in known and f"aten::{name}" not in known and f"aten::{name}_" not in known
    ]
    assert missing == []
