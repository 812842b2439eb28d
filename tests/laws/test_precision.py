"""Law: a measured precision is the inverse covariance of the errors that are told, and nothing else moves."""

from __future__ import annotations

import pytest
import torch

from neuro.errors import UsageError
from neuro.memory import contents
from neuro.train import precision

NATURAL = ["procedural.natural=true", "procedural.through_dense=true", "cortex.feedforwards=dense,spiking"]


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(precision, "SETTLING", 32)


def test_it_is_the_inverse_covariance_of_every_error(tiny_brain, tokens, short):
    brain = tiny_brain(NATURAL, dtype=torch.float64).eval()
    before = {name: tensor.clone() for name, tensor in brain.state_dict().items()}
    text = tokens(2, 80)
    counted = precision.measure(brain, text)
    found = brain.regions["cortex"].procedural.precision.detach().clone()
    moved = {name for name, tensor in brain.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"regions.cortex.procedural.precision"}
    assert counted == 2 * 48

    brain.load_state_dict(before)
    told, state = [], brain.init_state(2)
    with torch.no_grad():
        for span in text.split(brain.config.plasticity_span, 1):
            out = brain.scan(span, state)
            _, error = brain.regions["cortex"].credited(out.state.buffer)
            told.append(error)
            state = contents.emptied(brain.commit(out.state)[0], "episodic")
    told = torch.cat(told[2:], 2)  # after 32 tokens
    for index, projection in enumerate((0, 3)):  # before the dense feed-forward, and after all
        errors = told[:, projection].flatten(0, 1)
        covariance = sum(torch.outer(d, d) for d in errors) / len(errors)
        eye = torch.eye(len(covariance), dtype=torch.float64)
        whole = covariance / (covariance.trace() / len(covariance)) + precision.FLOOR * eye
        assert torch.allclose(found[index] @ whole, eye, atol=1e-8)
    assert not torch.allclose(found[0], found[1], atol=1e-2)


def test_no_precision_is_a_rate_of_its_own(tiny_brain, tokens, drive):
    """Until it is measured it is the identity: the brain learns as without it."""
    plain = tiny_brain(NATURAL[1:])
    natural = tiny_brain(NATURAL)
    natural.load_state_dict(natural.state_dict() | plain.state_dict())
    a, b = (drive(brain, tokens(2, 50)) for brain in (plain, natural))
    assert torch.allclose(a.logits, b.logits, atol=1e-5)


@pytest.mark.parametrize(
    "sets, length, told",
    [
        (["procedural.enabled=false"], 80, "Set procedural.natural=true"),
        (["procedural.natural=false"], 80, "Set procedural.natural=true"),
        (NATURAL, 60, "got 60 tokens a stream, expected at least 64"),
    ],
)
def test_what_cannot_be_measured_is_said(tiny_brain, tokens, short, sets, length, told):
    with pytest.raises(UsageError, match="precision") as caught:
        precision.measure(tiny_brain(sets), tokens(2, length))
    assert told in str(caught.value)
