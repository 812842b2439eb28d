"""Huge pages: an advice to the system that changes no value and fails without harm."""

from __future__ import annotations

import torch

from backends.kernels import pages


def test_values_and_places_stay():
    large, small = torch.randn(3_000_000), torch.randn(1000)
    before, places = large.clone(), (large.data_ptr(), small.data_ptr())
    done = pages.collapse([large, small])
    assert done % pages._HUGE == 0 and 0 <= done <= 4 * large.numel()
    assert torch.equal(large, before) and (large.data_ptr(), small.data_ptr()) == places
    done = pages.prefer(large), pages.prefer(small)
    assert done[0] % pages._HUGE == done[1] == 0 and torch.equal(large, before) and large.data_ptr() == places[0]


def test_what_is_too_small_elsewhere_or_on_another_system_is_left_alone(monkeypatch):
    assert pages.collapse([torch.randn(1000), torch.empty(3_000_000, device="meta")]) == 0
    assert pages.prefer(torch.empty(3_000_000, device="meta")) == 0
    monkeypatch.setattr(pages.sys, "platform", "win32")
    pages._advise.cache_clear()
    try:
        assert pages.collapse([torch.randn(3_000_000)]) == pages.prefer(torch.randn(3_000_000)) == 0
    finally:
        pages._advise.cache_clear()
