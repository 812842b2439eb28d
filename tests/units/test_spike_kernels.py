"""What the event-driven kernels accept."""

from __future__ import annotations

import torch

from backends.kernels import spikes as kernels


def test_status_agrees_with_what_runs():
    here, says = kernels.status()
    x = torch.zeros(2, 3)
    assert says and kernels.runs(x, x, None) == here


def test_only_what_it_was_written_for_runs_in_it(monkeypatch):
    monkeypatch.setattr(kernels, "library", lambda: object())
    x, weight, bias = torch.zeros(4, 3), torch.zeros(2, 3), torch.zeros(2)
    assert kernels.runs(x, weight, bias) and kernels.runs(x, weight, None)
    refused = [
        (x.double(), weight.double(), None),
        (x.bfloat16(), weight.bfloat16(), None),
        (x, weight, bias.double()),
        (x.to("meta"), weight.to("meta"), None),
        (x[:, :0], weight[:, :0], None),
    ]
    assert not any(kernels.runs(*given) for given in refused)
    with torch.autocast("cpu", torch.bfloat16):
        assert not kernels.runs(x, weight, bias)
