"""What the C++ time loops and the product of decoding accept."""

from __future__ import annotations

import pytest
import torch

from backends import LifRule
from backends.kernels import cpu


def test_status_agrees_with_what_runs():
    here, says = cpu.status()
    x = torch.zeros(2, 1, 1)
    assert says and cpu.runs(x, x) == here


def test_only_what_it_was_written_for_runs_in_it(monkeypatch):
    monkeypatch.setattr(cpu, "library", lambda: object())
    x = torch.zeros(2, 1, 1)
    assert cpu.runs(x, x) and cpu.runs(x.double(), x.double())
    refused = [(x.bfloat16(), x.bfloat16()), (x, x.double()), (x[0], x[0]), (x.to("meta"), x.to("meta"))]
    assert not any(cpu.runs(*pair) for pair in refused)


def test_a_product_runs_in_it_only_for_one_row_without_a_graph(monkeypatch):
    monkeypatch.setattr(cpu, "library", lambda: object())
    x, weight, bias = torch.zeros(1, 1, 3), torch.zeros(2, 3), torch.zeros(2)
    assert cpu.multiplies(x, weight, bias) and cpu.multiplies(x[0, 0], weight, None)
    assert cpu.multiplies(x.double(), weight.double(), None)
    refused = [
        (torch.zeros(1, 2, 3), weight, None),
        (x.double(), weight, None),
        (x, weight, bias.double()),
        (x.bfloat16(), weight.bfloat16(), None),
        (x, torch.zeros(3, 2).T, None),
        (torch.zeros(6)[::2], weight, None),
        (x.to("meta"), weight.to("meta"), None),
        (x, weight.requires_grad_(), None),
    ]
    assert not any(cpu.multiplies(*given) for given in refused)
    with torch.no_grad():
        assert cpu.multiplies(x, weight, None)
        with torch.autocast("cpu", torch.bfloat16):
            assert not cpu.multiplies(x, weight, None)


@pytest.mark.skipif(cpu.library() is None, reason="the C++ library is not here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("columns", [1, 63, 64, 65, 200])
def test_a_product_of_many_rows_is_the_same_on_every_number_of_threads(columns, dtype):
    """Enough rows that helpers are started; 9,001 is no multiple of their number."""
    generator = torch.Generator().manual_seed(0)
    weight, x, bias = (
        torch.randn(*shape, generator=generator, dtype=dtype) for shape in ((9001, columns), (columns,), (9001,))
    )
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(cpu.product(x, weight, bias))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)
    truth = weight.double() @ x.double() + bias.double()
    assert float((found[0].double() - truth).abs().max()) <= (1e-12 if dtype == torch.float64 else 1e-4)


@pytest.mark.skipif(cpu.library() is None, reason="the C++ library is not here")
@pytest.mark.parametrize(("tokens", "asked"), [(3, 0), (5, 2)])
def test_outputs_of_fresh_memory_are_asked_for_in_huge_pages(tokens, asked, monkeypatch):
    """The spikes and the gradient, where they are larger than the bound and not otherwise."""
    found = []
    monkeypatch.setattr(cpu, "_FRESH", 4 * 4 * 64)
    monkeypatch.setattr(cpu.pages, "prefer", found.append)
    current = torch.ones(tokens, 1, 64, requires_grad=True)
    spikes, _ = cpu.lif_scan(current, torch.zeros(1, 64), 0.9, 1.0, LifRule())
    spikes.sum().backward()
    assert len(found) == asked and all(x.shape == current.shape for x in found)
