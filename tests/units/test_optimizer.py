"""What learns, by which rule, and the average of what was learned."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import nn

import backends
from neuro.errors import UsageError
from neuro.layers import dropout
from neuro.layers.dropout import LockedDropout
from neuro.tokenizer import Tokenizer
from neuro.train import muon, optimizer
from neuro.train.average import Average
from neuro.train.spelling import Spelling

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
    for kind in ("adamw", "muon"):
        rule = optimizer.make(brain, CPU, 1e-3, 0.1, kind)
        (decay,) = {g["weight_decay"] for g in rule.param_groups for p in g["params"] if p is precision}
        assert decay == 0.0


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_what_a_spelled_row_has_of_its_own_decays_and_parts_do_not(kind, tiny_brain):
    """Without parts no row decays: nothing would be left of a word that is seldom seen."""
    brain = tiny_brain()

    def decays() -> dict[str, float]:
        rule = optimizer.make(brain, CPU, 1e-3, 0.1, kind)
        of = {id(p): group["weight_decay"] for group in rule.param_groups for p in group["params"]}
        return {name: of[id(p)] for name, p in brain.named_parameters()}

    assert decays()["embedding"] == 0.0
    brain.spelling = Spelling(brain, Tokenizer.train(["one boat, two boats, three boats"] * 20, 300), 20, fresh=True)
    found = decays()
    assert found["embedding"] == 0.1 and found["spelling.parts"] == 0.0
    assert found["regions.cortex.layers.0.mixer.project.weight"] == 0.1


@pytest.mark.parametrize("shape", [(3, 24, 16), (1, 16, 24), (2, 16, 16)])
def test_the_polar_factor_is_that_of_the_definition_in_float64(shape):
    """Five steps of the polynomial on every singular value, which leave those of a random matrix near 1."""
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, values, right = torch.linalg.svd(matrices.double(), full_matrices=False)
    values = values / values.square().sum(1, keepdim=True).sqrt()
    for _ in range(muon.STEPS):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    found = muon.polar(matrices)
    assert torch.allclose(found.double(), (left * values.unsqueeze(1)) @ right, atol=1e-4)
    assert not muon.polar(torch.zeros(shape)).any()


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch before 2.9 has none to compare with")
def test_muon_takes_the_steps_of_torchs_own_but_for_its_bfloat16():
    ours, theirs = (nn.Linear(24, 16, bias=False) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    before = ours.weight.detach().clone()
    rules = (
        muon.Muon([ours.weight], 1e-2, 0.1),
        torch.optim.Muon([theirs.weight], lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    )
    learn(ours, rules[0], 0)
    learn(theirs, rules[1], 0)
    moved = (ours.weight - before).norm()
    assert moved > 0.05 and (ours.weight - theirs.weight).norm() < 0.02 * moved


def test_muon_runs_where_adam_is_our_own(tiny_brain):
    brain = tiny_brain()
    before = brain.embedding.detach().clone()
    rule = optimizer.make(brain, dataclasses.replace(CPU, torch_optimizers=False), 1e-3, 0.1, "muon")
    learn(brain, rule, 0, steps=1)
    assert torch.allclose((brain.embedding - before).abs(), torch.full_like(before, 1e-3), rtol=1e-3)


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
