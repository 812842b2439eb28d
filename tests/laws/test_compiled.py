"""Law: a compiled scan learns what the plain one learns, in training alone."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from neuro import presets
from neuro.config import TrainConfig
from neuro.errors import MissingError, UsageError
from neuro.train import compiled, objective

# A brain that is traced in seconds: one spiking layer and its fast weights, spans of three tokens.
SETS = [
    *(f"{region}.enabled=false" for region in ("thalamus", "amygdala", "endocrine", "hippocampus")),
    "cortex.mixers=recurrence",
    "cortex.feedforwards=spiking",
    "plasticity_span=3",
    "hippocampus.writes_per_span=3",
]


@pytest.fixture
def traced(monkeypatch) -> list[int]:
    """Graphs that were traced, by their number of operations; run as traced: what a compiler makes of them is its affair."""
    graphs: list[int] = []

    def count(graph, inputs):
        graphs.append(len(graph.graph.nodes))
        return graph.forward

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: compile_(function, backend=count, **options))
    monkeypatch.setattr(compiled, "_check", lambda device: None)
    return graphs


def learn(brain) -> tuple[dict, float]:
    tokens = torch.randint(0, 300, (2, 6), generator=torch.Generator().manual_seed(1))
    brain.zero_grad(set_to_none=True)
    loss = objective.window_loss(brain, tokens, brain.init_state(2), presets.tiny().train)
    loss.total.backward()
    return {name: p.grad for name, p in brain.named_parameters()}, float(loss.nats)


def test_compiled_scans_learn_what_plain_ones_learn(traced, tiny_brain):
    brain = tiny_brain(SETS, dtype=torch.float64).train()
    grads, nats = learn(brain)
    with compiled.scans(brain, True):
        found, same = learn(brain)
        assert traced and max(traced) > 50
        count = len(traced)
        brain.eval()
        with torch.no_grad():
            brain.scan(torch.zeros(1, 2, dtype=torch.int64), brain.init_state(1))
        assert len(traced) == count  # an evaluation is not compiled
        brain.train()
    assert same == pytest.approx(nats, rel=1e-12)
    for name, grad in grads.items():
        assert (found[name] is None) == (grad is None), name
        if grad is not None:
            torch.testing.assert_close(found[name], grad, rtol=1e-9, atol=1e-12, msg=name)
    learn(brain)
    assert len(traced) == count  # the block has ended


def test_nothing_is_compiled_unasked(traced, tiny_brain):
    brain = tiny_brain(SETS).train()
    with compiled.scans(brain, False):
        learn(brain)
    assert traced == []


def test_where_nothing_compiles_it_is_said(monkeypatch, tiny_brain):
    brain = tiny_brain(SETS)
    monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(MissingError) as error, compiled.scans(brain, True):
        pass
    assert str(error.value) == (
        "train.compile: got no C++ compiler, expected g++ or clang++.\nInstall one, or set train.compile=false."
    )
    monkeypatch.setattr(compiled.importlib.util, "find_spec", lambda name: None)
    brain.backend = dataclasses.replace(brain.backend, device=torch.device("cuda"))
    with pytest.raises(MissingError) as error, compiled.scans(brain, True):
        pass
    assert str(error.value) == (
        "train.compile: got no triton, which compiles for cuda, expected it beside torch.\n"
        "Install it, or set train.compile=false."
    )


def test_compiling_shares_is_refused():
    with pytest.raises(
        UsageError, match=r"train\.compile: got True, expected false with train\.parallel 'fsdp'\.\nSet"
    ):
        TrainConfig(compile=True, parallel="fsdp")
