"""Law: the procedural memory does what its rule says, cannot blow up, and leaves the trained weights alone."""

from __future__ import annotations

import math

import pytest
import torch

from neuro import presets
from neuro.brain import Brain
from neuro.config import RULES, ProceduralConfig, apply_sets
from neuro.evaluate import arms
from neuro.memory.procedural import ProceduralMemory
from neuro.session import Session
from neuro.state import ProceduralState, clone, detach

ONE_LAYER = ["cortex.mixers=recurrence", "cortex.feedforwards=dense", "hippocampus.enabled=false"]


def fast(state):
    return state.regions.cortex.procedural.fast


def with_fast(state, weights):
    procedural = state.regions.cortex.procedural._replace(fast=weights)
    return state._replace(regions=state.regions._replace(cortex=state.regions.cortex._replace(procedural=procedural)))


def test_the_error_is_minus_the_gradient_of_the_surprise(tiny_brain, tokens):
    brain = tiny_brain(dtype=torch.float64)
    readout = brain.regions["readout"]
    x = torch.randn(2, 5, 32, dtype=torch.float64, requires_grad=True)
    modulators = torch.rand(2, 5, dtype=torch.float64)
    said = tokens(2, 5)
    channels = {"hidden": x, "recall": torch.zeros(()), "modulators~": modulators, "valid": x.new_ones(2, 5)}
    logits = readout.scan(channels, readout.init_state(2, x.device))[0]["logits"]
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), said.flatten(), reduction="sum").backward()
    error = readout.error(x, brain.embedding[said], logits.softmax(-1), modulators)
    assert not error.requires_grad
    assert torch.allclose(error, -x.grad, atol=1e-12)


def test_what_is_gathered_for_the_last_projection_is_its_gradient(tiny_brain, tokens, drive):
    """Nothing of the model comes after the last projection, so there the three-factor rule is gradient descent."""
    brain = tiny_brain(ONE_LAYER, dtype=torch.float64)
    first = drive(brain, tokens(2, 16)).state  # a fast memory that is not empty
    weights = fast(first).detach().requires_grad_(True)
    out = brain.scan(tokens(2, 13, seed=1), with_fast(first, weights))
    # The first token's prediction was made before these weights were read.
    (expected,) = torch.autograd.grad(out.aux.surprise[:, 1:].sum(), weights)
    span = out.state.buffer
    gathered = span.eligibility[:, 1:].transpose(1, 2) @ span.error[:, 1:]
    rank = brain.config.procedural.rank
    assert torch.allclose(gathered[:, -rank:], -expected[:, -rank:], atol=1e-12)
    assert gathered[:, -rank:].abs().max() > 1e-4


def test_what_is_gathered_for_what_the_cortex_says_is_its_gradient(tiny_brain, tokens, drive):
    sets = [*ONE_LAYER, "procedural.outward_half_life_tokens=50"]
    brain = tiny_brain(sets, dtype=torch.float64)
    first = drive(brain, tokens(2, 16)).state
    weights = fast(first).detach().requires_grad_(True)
    out = brain.scan(tokens(2, 13, seed=1), with_fast(first, weights))
    (expected,) = torch.autograd.grad(out.aux.surprise[:, 1:].sum(), weights)
    traces, error = brain.regions["cortex"].credited(out.state.buffer)
    rank = brain.config.procedural.rank
    assert weights.shape[1] == 3 * rank == traces.shape[2]
    gathered = traces[:, 1:, -rank:].mT @ error[:, 1:]
    assert torch.allclose(gathered, -expected[:, -rank:], atol=1e-12)
    assert gathered.abs().max() > 1e-4


@pytest.mark.parametrize(
    "feedforwards, outward, alike",
    [
        ("spiking,spiking", 0, (4,)),
        ("dense,spiking", 0, (1, 3)),
        ("spiking,dense", 9, (3, 2)),
        ("dense,dense", 9, (1, 2, 2)),
    ],
)
def test_projections_are_told_the_same_error_as_often_as_it_is_said(tiny_brain, tokens, feedforwards, outward, alike):
    sets = [f"cortex.feedforwards={feedforwards}", f"procedural.outward_half_life_tokens={outward}"]
    brain = tiny_brain([*sets, "procedural.through_dense=true"])
    assert brain.config.errors_alike == alike
    out = brain.scan(tokens(2, 13), brain.init_state(2))
    _, error = brain.regions["cortex"].credited(out.state.buffer)
    if error.dim() == 4:
        apart = (error[:, 1:] - error[:, :-1]).abs().amax((0, 2, 3)) > 0
        places = torch.tensor(alike).cumsum(0)[:-1] - 1
        assert apart.nonzero().flatten().tolist() == places.tolist()


@pytest.mark.parametrize("skips", ["feedforward", "layer"])
def test_through_a_dense_feed_forward_the_mixers_error_is_its_gradient_too(tiny_brain, tokens, skips):
    """As long as its own fast weights are empty, nothing is left out on the way back."""
    sets = [*ONE_LAYER, "procedural.through_dense=true", f"thalamus.skips={skips}"]
    brain = tiny_brain(sets, dtype=torch.float64)
    weights = fast(brain.init_state(2)).requires_grad_(True)
    out = brain.scan(tokens(2, 13), with_fast(brain.init_state(2), weights))
    (expected,) = torch.autograd.grad(out.aux.surprise.sum(), weights, retain_graph=True)
    span, rank, width = out.state.buffer, brain.config.procedural.rank, brain.config.d_model
    traces, read = span.eligibility.split([2 * rank, width], 2)
    errors = brain.regions["cortex"]._handed_back(span.error, read)
    gathered = torch.cat([traces[..., :rank].mT @ errors[:, 0], traces[..., rank:].mT @ errors[:, 1]], 1)
    assert torch.allclose(gathered, -expected, atol=1e-12)
    assert gathered[:, :rank].abs().max() > 1e-4
    ran = out.aux.route[..., 0].bool()
    assert ran.any() and not ran.all() and torch.equal(read[:, 1:13].any(-1), ran[:, :-1])
    through = torch.autograd.grad(errors.sum(), list(brain.parameters()), allow_unused=True)
    assert not any(part is not None and part.any() for part in through)  # a teaching signal, not a path for gradients
    unchanged = traces[..., :rank].mT @ span.error
    assert not torch.allclose(unchanged, gathered[:, :rank], atol=1e-3)


@pytest.mark.parametrize("rule", RULES)
def test_each_projection_can_be_told_an_error_of_its_own(rule):
    memory = ProceduralMemory(6, 2, ProceduralConfig(rule=rule, rank=3), 6)
    state, trace = memory.init_state(2, torch.device("cpu")), torch.randn(2, 9, 6)
    errors, hormones, lengths = torch.randn(2, 2, 9, 6), torch.rand(2, 5), torch.tensor([9.0, 9.0])
    both = memory.write(state, errors, trace, hormones, lengths).fast
    for m in range(2):
        alone = memory.write(state, errors[:, m], trace, hormones, lengths).fast
        part = slice(3 * m, 3 * m + 3)
        assert both[:, part].any() and torch.allclose(both[:, part], alone[:, part], atol=1e-6)


@pytest.mark.parametrize(
    "rule, natural, outward", [(rule, False, 0.0) for rule in RULES] + [("three-factor", True, 7.0)]
)
def test_a_write_equals_the_formula(rule, natural, outward):
    config = ProceduralConfig(
        rule=rule,
        rank=3,
        rate=0.4,
        half_life_tokens=20.0,
        max_step=0.7,
        max_norm=1.1,
        natural=natural,
        outward_half_life_tokens=outward,
    )
    memory = ProceduralMemory(6, 2, config, 6, (1, 1)).double()
    with torch.no_grad():
        for p in memory.parameters():
            p.copy_(0.5 * torch.randn_like(p))
    before, error = torch.randn(2, 6, 6).double(), torch.randn(2, 9, 6).double()
    trace, hormones = torch.randn(2, 9, 6).double(), torch.rand(2, 5).double()
    lengths = torch.tensor([9.0, 4.0]).double()
    earlier = torch.randn(2, 6, 6).double()
    state = ProceduralState(before, earlier if rule == "delta" else (), torch.zeros(2, 6).double())
    told = error.unsqueeze(1).expand(-1, 2, -1, -1) if natural else error  # each projection's own
    after = memory.write(state, told, trace, hormones, lengths)
    for row in range(2):
        third = 2.0 / (1.0 + math.exp(-(memory.modulation.weight[0] @ (hormones[row] - 0.5)).item()))
        for m in range(2):
            part = slice(3 * m, 3 * m + 3)
            if rule == "delta":
                gradient = torch.zeros(3, 6).double()
                for t in range(9):  # token by token: what is in place already is not put there again
                    key = trace[row, t, part] / trace[row, t, part].norm()
                    there = torch.sigmoid(memory.beta[m]) * (key @ gradient)
                    gradient = gradient + torch.outer(key, math.sqrt(3) * error[row, t] - there)
                gradient = gradient + torch.sigmoid(memory.momentum[m]) * earlier[row, part]
                assert torch.allclose(after.last_step[row, part], gradient, atol=1e-9)
            else:
                gradient = sum(torch.outer(trace[row, t, part], error[row, t]) for t in range(9))
                if natural:
                    gradient = gradient @ memory.precision[m]
            step = third * 0.4 * memory.log_rate[m].exp() * gradient
            step = step * min(1.0, 0.7 / step.norm().item())
            life = outward if outward and m == 1 else 20.0
            kept = 2.0 ** (-float(lengths[row]) / (life * math.exp(memory.log_life.item())))
            expected = kept * before[row, part] + step
            expected = expected * min(1.0, 1.1 / expected.norm().item())
            assert torch.allclose(after.fast[row, part], expected, atol=1e-9)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e3, 1e12])
def test_no_error_is_large_enough_to_break_the_bounds(scale, rule):
    config = ProceduralConfig(rule=rule, rank=4, max_step=0.5, max_norm=2.0)
    memory = ProceduralMemory(8, 3, config, 12)
    state = memory.init_state(1, torch.device("cpu"))
    for _ in range(20):
        error, trace = scale * torch.randn(1, 5, 8), torch.randn(1, 5, 12)
        before, state = state.fast, detach(memory.write(state, error, trace, torch.rand(1, 5), torch.tensor([5.0])))
        moved = (state.fast - before).reshape(3, 4, 8).pow(2).sum((1, 2)).sqrt()
        norms = state.fast.reshape(3, 4, 8).pow(2).sum((1, 2)).sqrt()
        assert torch.isfinite(state.fast).all()
        assert (moved <= 0.5 + 2.0 * 0.01).all() and (norms <= 2.0 + 1e-4).all()
    assert bool(state.fast.any()) == (scale > 0)


def test_a_reset_leaves_the_rank(tiny_brain, tokens):
    """Emptied in mid-life, the memory learns again in all its directions: what it senses with is a parameter."""
    brain = tiny_brain()
    session = Session(brain)
    session.feed(tokens(1, 64))
    session.state = arms.without_memory(session.state)
    assert not fast(session.state).any()
    session.feed(tokens(1, 64, seed=1))
    rank = brain.config.procedural.rank
    for part in fast(session.state)[0].split(rank, 0):
        assert torch.linalg.matrix_rank(part) == rank


@pytest.mark.parametrize("rule", RULES)
def test_it_learns_what_repeats_and_only_through_its_fast_weights(tiny_brain, tokens, rule):
    brain = tiny_brain(["hippocampus.enabled=false", "endocrine.enabled=false", f"procedural.rule={rule}"])
    line = tokens(1, 16)

    def surprise(keep: tuple[str, ...]) -> float:
        state, nats = brain.init_state(1), 0.0
        with torch.no_grad():
            for _ in range(12):
                out = brain.scan(line, state)
                nats = float(out.aux.surprise.mean())
                state = arms.keep_only(brain.commit(out.state)[0], keep)
        return nats

    assert surprise(("procedural",)) < 0.97 * surprise(())


def test_any_amount_of_use_leaves_the_trained_weights_and_the_static_model_as_they_were(tiny_brain, tokens):
    brain = tiny_brain()
    weights = {name: x.clone() for name, x in brain.state_dict().items()}
    probe = tokens(1, 40, seed=9)

    def static() -> torch.Tensor:
        state, found = brain.init_state(1), []
        with torch.no_grad():
            for part in probe.split(16, 1):
                out = brain.scan(part, state)
                found.append(out.logits)
                state = arms.without_memory(brain.commit(out.state)[0])
        return torch.cat(found, 1)

    before = static()
    Session(brain, batch=2).feed(tokens(2, 400))
    assert all(torch.equal(weights[name], x) for name, x in brain.state_dict().items())
    assert torch.equal(before, static())


def test_at_most_two_percent_of_the_weights_move():
    brain = Brain(apply_sets(presets.small().brain, ["procedural.enabled=true"]))
    moving = fast(brain.init_state(1)).numel()
    assert 0 < moving <= 0.02 * sum(brain.parameter_counts().values())


def test_forks_of_a_stream_learn_apart(tiny_brain, tokens):
    brain = tiny_brain()
    session = Session(brain)
    session.feed(tokens(1, 32))
    fork = Session(brain, clone(session.state))
    session.feed(tokens(1, 32, seed=1))
    kept = fast(fork.state).clone()
    session.feed(tokens(1, 16, seed=2))
    assert torch.equal(kept, fast(fork.state))
    assert not torch.equal(kept, fast(session.state))
