"""What learns, by which rule, and the average of what was learned."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import nn

import backends
from neuro.errors import MissingError, UsageError
from neuro.layers import dropout
from neuro.layers.dropout import LockedDropout
from neuro.train import optimizer
from neuro.train.average import Average

CPU = backends.select("cpu")


def learn(brain, rule, seed: int, steps: int = 3) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for p in brain.parameters():
            p.grad = torch.randn(p.shape, generator=generator) if p.requires_grad else None
        rule.step()


def test_muon_makes_the_updates_of_matrices_orthogonal_and_leaves_the_rest_to_adam(tiny_brain):
    brain = tiny_brain()
    before = {name: p.detach().clone() for name, p in brain.named_parameters()}
    rule = optimizer.make(brain, CPU, 1e-3, 0.0, "muon")
    learn(brain, rule, 0, steps=1)
    moved = {name: p.detach() - before[name] for name, p in brain.named_parameters()}
    matrix = moved["regions.cortex.layers.0.mixer.project.weight"]
    values = torch.linalg.svdvals(matrix)
    assert float(values.min() / values.max()) > 0.4  # all directions alike, as far as five steps of Newton-Schulz go
    assert torch.allclose(moved["embedding"].abs(), torch.full_like(moved["embedding"], 1e-3), rtol=1e-3)


def test_two_rules_as_one_go_on_exactly(tiny_brain):
    brain, other = tiny_brain(), tiny_brain()
    rule = optimizer.make(brain, CPU, 1e-3, 0.1, "muon")
    learn(brain, rule, 0)
    other.load_state_dict(brain.state_dict())
    again = optimizer.make(other, CPU, 1e-3, 0.1, "muon")
    again.load_state_dict(copy.deepcopy(rule.state_dict()))
    learn(brain, rule, 1)
    learn(other, again, 1)
    for (name, p), q in zip(brain.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q), name


def test_only_what_is_named_learns(tiny_brain):
    brain = tiny_brain()
    before = {name: p.detach().clone() for name, p in brain.named_parameters()}
    rule = optimizer.make(brain, CPU, 1e-3, 0.1, only=("hippocampus", "sense"))
    learn(brain, rule, 0)
    changed = {name for name, p in brain.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {name for name in before if "hippocampus" in name.split(".") or name.endswith(".sense")}
    assert {name.split(".")[1] for name in changed} == {"hippocampus", "cortex"}


def test_a_name_that_nothing_has_is_refused(tiny_brain):
    with pytest.raises(UsageError, match="called 'hipocampus'"):
        optimizer.make(tiny_brain(), CPU, 1e-3, 0.1, only=("hipocampus",))


def test_a_precision_is_no_matrix_of_weights(tiny_brain):
    """It begins as the identity: decay would forget the scale of every error, and Muon takes matrices only."""
    brain = tiny_brain(["procedural.natural=true"])
    precision = brain.regions["cortex"].procedural.precision
    for kind in ("adamw", "muon") if hasattr(torch.optim, "Muon") else ("adamw",):
        rule = optimizer.make(brain, CPU, 1e-3, 0.1, kind)
        (decay,) = {g["weight_decay"] for g in rule.param_groups for p in g["params"] if p is precision}
        assert decay == 0.0


def test_muon_needs_torchs_optimizers(tiny_brain):
    brain = tiny_brain()
    with pytest.raises(UsageError, match="does not run on directml"):
        optimizer.make(brain, dataclasses.replace(CPU, name="directml", torch_optimizers=False), 1e-3, 0.1, "muon")


def test_a_torch_without_muon_says_so(tiny_brain, monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(MissingError, match=r"has no Muon.\nInstall torch 2.9 or newer, or set train.optimizer=adamw"):
        optimizer.make(tiny_brain(), CPU, 1e-3, 0.1, "muon")


def test_the_average_is_the_recursion_and_the_weights_come_back():
    module = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        module.weight.fill_(1.0)
    average, mean = Average(module, 0.5), 1.0
    for n in range(1, 6):
        with torch.no_grad():
            module.weight.fill_(float(n * n))
        average.update()
        decay = min(0.5, (1 + n) / (10 + n))
        mean += (1 - decay) * (n * n - mean)
    with average.held():
        assert module.weight[0, 0].item() == pytest.approx(mean, rel=1e-6)
    assert module.weight.tolist() == [[25.0, 25.0]]


def test_without_a_decay_the_average_is_the_weights():
    module = nn.Linear(2, 1)
    average = Average(module, 0.0)
    average.update()
    before = module.weight.detach().clone()
    with average.held():
        assert torch.equal(module.weight, before)
    assert average.means == {}


def test_a_span_drops_the_same_units_for_all_its_tokens():
    layer, x = LockedDropout(), torch.ones(3, 5, 40)
    dropout.begin(layer, 0.5, 1, torch.device("cpu"))
    y = layer(x)
    assert torch.equal(y, y[:, :1].expand_as(y)) and set(y.unique().tolist()) == {0.0, 2.0}
    assert not torch.equal(y[0], y[1]) and not torch.equal(layer(x), y)  # another row, another span
    dropout.begin(layer, 0.5, 1, torch.device("cpu"))
    assert torch.equal(layer(x), y)
    assert torch.equal(layer.eval()(x), x)


def test_evaluation_drops_nothing(tiny_brain, tokens):
    brain = tiny_brain()
    ids, state = tokens(2, 8), brain.init_state(2)
    brain.train()
    whole = brain.scan(ids, state).logits
    dropout.begin(brain, 0.5, 0, torch.device("cpu"))
    assert not torch.allclose(brain.scan(ids, state).logits, whole)
    assert torch.equal(brain.eval().scan(ids, state).logits, whole)
