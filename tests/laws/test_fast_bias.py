"""Laws of the fast bias: it learns which tokens are frequent now, is memory like any other, and can do little harm."""

import math

import pytest
import torch

from backends import select
from neuro import memory_file, presets
from neuro.config import RunConfig, apply_sets
from neuro.errors import UsageError
from neuro.evaluate.arms import keep_only, without_memory
from neuro.memory import contents, fast_bias
from neuro.state import FastBiasState
from neuro.train import loop

BIASED = ["procedural.bias_rate=0.02"]


def after(brain, ids, memories=("episodic", "procedural")):
    """(state, mean surprise of the last third) of a text."""
    state, nats = brain.init_state(ids.shape[0]), []
    with torch.no_grad():
        for part in ids.split(brain.config.plasticity_span, 1):
            out = brain.scan(part, state)
            nats.append(out.aux.surprise)
            state = keep_only(brain.commit(out.state)[0], memories)
    nats = torch.cat(nats, 1)
    return state, float(nats[:, -ids.shape[1] // 3 :].mean())


def test_its_write_is_the_gradient_of_the_spans_surprise_over_the_chances():
    """Against autograd in float64: what a commit adds is -dS/db over the sum of chances + FLOOR, times the rate."""
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 5, 9, dtype=torch.float64, generator=draw)
    tokens, predicted = torch.tensor([[3, 3, 0, 7, 3]]), torch.tensor([[0.0, 1, 1, 1, 1]], dtype=torch.float64)
    bias = torch.zeros(1, 9, dtype=torch.float64, requires_grad=True)
    nats = -(logits + bias).log_softmax(-1).gather(2, tokens.unsqueeze(-1)).squeeze(-1)
    gradient = torch.autograd.grad((nats * predicted).sum(), bias)[0]
    empty = torch.zeros(1, 9, dtype=torch.float64)
    state = FastBiasState(empty, empty, empty)
    state = fast_bias.counted(state, tokens, logits.softmax(-1), predicted, select("cpu").ops)
    made = fast_bias.write(state, 0.02, math.inf, torch.tensor([5.0]))
    fisher = (logits.softmax(-1) * predicted.unsqueeze(-1)).sum(1) + fast_bias.FLOOR
    assert torch.allclose(made.bias, (-0.02 * gradient / fisher).clamp(-1, 1), atol=1e-12)
    assert not made.said.any() and not made.expected.any()


def test_what_comes_often_is_expected_more_and_nothing_else_remembers_it(tiny_brain):
    brain = tiny_brain(BIASED, dtype=torch.float64).eval()
    span = brain.config.plasticity_span
    ids = torch.randint(
        0, 5, (1, 6 * span), generator=torch.Generator().manual_seed(0)
    )  # five tokens of the vocabulary
    plain = tiny_brain(dtype=torch.float64).eval()
    plain.load_state_dict(brain.state_dict())
    assert after(brain, ids, ("procedural",))[1] < after(plain, ids, ("procedural",))[1] - 0.2
    off = after(brain, ids, ())
    assert off[1] == after(plain, ids, ())[1]  # emptied, it is not there, to the bit
    assert not off[0].regions.readout.bias.bias.any()


def test_a_rate_far_too_large_stays_bounded(tiny_brain, tokens):
    brain = tiny_brain(["procedural.bias_rate=50"]).eval()
    span = brain.config.plasticity_span
    state = after(brain, tokens(2, span))[0]
    assert float(state.regions.readout.bias.bias.abs().max()) == fast_bias.MOST_STEP
    state = after(brain, tokens(2, 40 * span))[0]
    assert float(state.regions.readout.bias.bias.abs().max()) == fast_bias.MOST


def test_it_forgets_by_half():
    empty = torch.zeros(1, 4)
    state = FastBiasState(torch.tensor([[2.0, -2.0, 1.0, 0.0]]), empty, empty)
    found = fast_bias.write(state, 0.02, 100.0, torch.tensor([50.0])).bias
    assert torch.allclose(found, state.bias * 2**-0.5)


def test_it_lives_as_long_as_a_fast_weight_unless_told_otherwise(tiny_brain, tokens):
    brain = tiny_brain([*BIASED, "procedural.half_life_tokens=100"]).eval()
    own = tiny_brain([*BIASED, "procedural.half_life_tokens=100", "procedural.bias_half_life_tokens=25"]).eval()
    own.load_state_dict(brain.state_dict())
    full = after(brain, tokens(1, brain.config.plasticity_span))[0].regions.readout
    still = brain.init_state(1).buffer
    for one, left in ((brain, 0.5), (own, 2.0**-4)):
        aged = one.region("readout").commit(full, still, None, None, torch.tensor([100.0])).bias.bias
        assert full.bias.bias.any() and torch.allclose(aged, left * full.bias.bias)


def test_a_row_of_padding_changes_nothing(tiny_brain, tokens):
    brain = tiny_brain(BIASED).eval()
    span = brain.config.plasticity_span
    valid = torch.tensor([[0.0] * span, [1.0] * span])
    fresh = brain.init_state(2)
    padded = brain.commit(brain.scan(tokens(2, span), fresh, valid=valid).state)[0].regions.readout.bias
    assert not padded.bias[0].any() and padded.bias[1].any()


def test_it_is_memory(tiny_brain, tokens, tmp_path):
    brain = tiny_brain(BIASED).eval()
    state = after(brain, tokens(1, 3 * brain.config.plasticity_span))[0]
    bias = state.regions.readout.bias.bias
    assert torch.equal(contents.held(state)["bias"], bias)
    memory_file.save(tmp_path / "m", brain, state)
    loaded, _ = memory_file.load(tmp_path / "m", brain, brain.init_state(1))
    assert torch.equal(loaded.regions.readout.bias.bias, bias)
    assert not contents.held(without_memory(state))["bias"].any()
    assert torch.equal(contents.held(keep_only(state, ("procedural",)))["bias"], bias)


def test_a_sampled_vocabulary_is_refused(tmp_path):
    run = apply_sets(presets.tiny(), ["train.sampled=8", "brain.procedural.bias_rate=0.02"])
    assert isinstance(run, RunConfig)
    with pytest.raises(UsageError, match=r"train.sampled: a fast bias counts .*\nSet train.sampled=0"):
        loop.train(run, tmp_path)
