"""What happens again is added up and told once: the same integers as one by one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from neuro.workload import Workload
from sims.counting import connections, count
from sims.counting.tags import Tag, Tags


def macs(load: Workload) -> tuple[int, int]:
    rows = [row for row in load.operations if row.kind == "mac"]
    return sum(row.count for row in rows), sum(row.effective for row in rows)


def sparse(*shape: int, share: float = 0.4) -> Tensor:
    return torch.randn(shape) * (torch.rand(shape) < share)


class Repeats(nn.Module):
    """One layer on three inputs; before the third a weight goes."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x[0]) + self.linear(x[1])
        self.linear.weight[0, 1] = 0
        return y + self.linear(x[2])


def test_a_weight_that_changes_is_told_of_before_and_after():
    torch.manual_seed(0)
    module, x = Repeats(), sparse(3, 5, 4)
    load = count(module, x, samples=5)
    met = 3 * int((x != 0).sum()) - int((x[2, :, 1] != 0).sum())
    assert macs(load) == (3 * 5 * 12, met)
    weights = sum(row.read_bytes for row in load.traffic if row.store == "weights")
    assert weights == 2 * 4 * 12 + 3 * 4 * 3  # what was written to is the module's own no longer
    assert (load.layers, load.phases[0].calls) == (2, 2)


def test_two_layers_of_one_weight_are_told_apart():
    torch.manual_seed(1)
    first, second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    second.weight = first.weight
    x = sparse(6, 4)
    load = count(nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), first), x)
    rows = {row.region: row.count for row in load.operations if row.kind == "mac"}
    assert sum(rows.values()) == 3 * 6 * 16
    assert load.phases[0].calls == 3


class Product(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a @ b


@pytest.mark.parametrize("shapes", [((3, 5, 7), (3, 7, 4)), ((5, 7), (7, 4)), ((7,), (7,)), ((5, 7), (7,))])
@pytest.mark.parametrize("shares", [(1.0, 0.3), (0.3, 1.0), (0.3, 0.3), (0.05, 0.5), (1.0, 1.0), (0.0, 0.5)])
def test_products_of_any_two_factors(shapes, shares):
    torch.manual_seed(2)
    a, b = (sparse(*shape, share=share) for shape, share in zip(shapes, shares, strict=True))
    met = int(((a != 0).double() @ (b != 0).double()).sum())
    assert macs(count(Product(), (a, b), samples=1))[1] == met
    if a.dim() > 1 and b.dim() > 1:
        turned = (b.transpose(-1, -2).contiguous().transpose(-1, -2), connections.mask(a))
        assert connections.products(turned[1], turned[0]) == met


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool])
@pytest.mark.parametrize("size", [10, 100])
def test_few_values_are_counted_like_many(dtype, size):
    torch.manual_seed(3)
    x = sparse(size, size).to(dtype)
    assert connections.nonzero(x) == sum(value != 0 for value in x.flatten().tolist())
    odd = torch.tensor([float("nan"), 0.0, -0.0, float("inf")])
    assert connections.nonzero(odd) == 2


def test_tags_of_tensors_that_went_do_not_pile_up():
    tags = Tags()
    kept = torch.ones(1)
    tags.put(kept, Tag("binary"))
    alive = []
    for _ in range(20_000):
        alive = [*alive[-7:], torch.ones(1)]
        tags.put(alive[-1], Tag("graded"))
        assert len(tags._entries) < 3000
    assert tags.get(kept).kind == "binary"
    assert len(tags) == 9
