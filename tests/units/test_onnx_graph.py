"""What the tracing of graphs says itself, where the exporter or ONNX Runtime would say less than torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

ort = pytest.importorskip("onnxruntime")
onnx_graph = pytest.importorskip("export.onnx_graph")


def test_a_salience_far_below_zero_is_small_and_not_nothing():
    """A strength of 0 is an empty slot; ONNX Runtime's own Sigmoid says 0 from -18 on, and is 2e-4 away at -10."""

    class Salience(nn.Module):
        def forward(self, x):
            return torch.sigmoid(x), torch.sigmoid(x.unsqueeze(-1))

    x = torch.tensor([[-80.0, -40.0, -18.0, -10.0], [-3.0, 0.0, 5.0, 60.0]])
    model = onnx_graph._trace(Salience(), (x,), ({0: onnx_graph._BATCH},), ["x"], ["thin", "wide"])
    assert sum(node.op_type == "Sigmoid" for node in model.graph.node) == 1, "wide gates stay one operator"
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    thin, wide = session.run(None, {"x": x.numpy()})
    exact = torch.sigmoid(x.double()).numpy()
    assert np.abs(thin / exact - 1.0).max() < 5e-7
    assert np.abs(wide[..., 0] - exact).max() < 5e-7
