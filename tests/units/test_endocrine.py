"""Hormones: bounded for ever, half-lives in tokens whatever the spans, what they modulate, and what is warned of."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch

from neuro import config, presets
from neuro.cli import main
from neuro.config import HORMONES, EndocrineConfig, TrainConfig, apply_sets
from neuro.errors import NeuroWarning, UsageError
from neuro.regions.base import DecayModulation
from neuro.regions.endocrine import Endocrine
from neuro.sampling import Sampler
from neuro.session import Session
from neuro.state import EndocrineState, Held
from neuro.train import loop, objective

LIVES = (64.0, 32.0, 128.0, 1024.0, 512.0)


def gland(lives=LIVES) -> Endocrine:
    brain = dataclasses.replace(presets.tiny().brain, endocrine=EndocrineConfig(half_lives_tokens=lives))
    return Endocrine(brain).requires_grad_(False)


def lived(gland: Endocrine, x: torch.Tensor, held: Held, tokens: int) -> torch.Tensor:
    """The levels after a span of that many tokens."""
    span = type("Span", (), {"valid": torch.ones(x.shape[0], max(tokens, 1))})
    return gland.commit(EndocrineState(x), span, held, x, torch.full((x.shape[0],), float(tokens))).modulators


def said(valence=0.0, arousal=0.0, surprise=4.0, novelty=0.5, rate=0.08) -> Held:
    return Held(torch.tensor([[valence, arousal]]), *(torch.tensor([x]) for x in (surprise, novelty, rate)))


def test_nothing_saturates_over_ten_thousand_spans(measured):
    """At a loss of 2 to 8 nats, by and by: levels stay off their ends, go on moving, and come back from an extreme."""
    endocrine, x, seen = gland(), torch.full((1, 5), 0.5), []
    for step in range(10_000):
        slow = math.sin(step / 150)
        x = lived(endocrine, x, said(0.4 * math.cos(step / 190), 0.4 * slow, 5 + 3 * slow, 0.5 + 0.4 * slow), 64)
        seen.append(x)
    late = torch.cat(seen[-2000:])
    measured("furthest", float((late - 0.5).abs().max()))
    assert 0.02 < float(late.min()) and float(late.max()) < 0.98
    assert (late.amax(0) - late.amin(0)).min() > 0.05
    for _ in range(2_000):
        x = lived(endocrine, x, said(-1.0, 0.5, 20.0, 1.0, 1.0), 64)
    extreme = x
    for _ in range(200):
        x = lived(endocrine, x, said(0.8, -0.5, 0.0, 0.0, 0.0), 64)
    assert ((extreme - x).abs() > 0.1).all()


def test_a_hormone_that_is_off_rests_while_the_others_move():
    sets = EndocrineConfig(off=("serotonin", "dopamine"))
    brain = dataclasses.replace(presets.tiny().brain, endocrine=sets)
    resting, moving = Endocrine(brain).requires_grad_(False), gland()
    x = y = torch.full((1, 5), 0.5)
    for _ in range(20):
        x, y = (lived(each, level, said(0.9, -0.4, 9.0, 1.0), 7) for each, level in ((resting, x), (moving, y)))
    assert torch.equal(x[0] == 0.5, torch.tensor([True, False, False, True, False]))
    assert torch.equal(x[0, [1, 2, 4]], y[0, [1, 2, 4]]) and float((y - 0.5).abs().min()) > 0.01


@pytest.mark.parametrize("spans", [(1,), (16,), (64,), (64, 3, 1, 17)], ids=["1", "16", "64", "partial"])
def test_measured_half_lives_are_those_of_the_configuration(spans, measured):
    """Away from a level by what an earlier one left behind, for about two half-lives of the slowest."""
    endocrine = gland()
    level = lived(endocrine, torch.full((1, 5), 0.5), said(), 10**9)
    x, gone, logs = torch.where(level > 0.5, 0.01, 0.99), 0, [[] for _ in LIVES]
    start = x - level
    for tokens in itertools.cycle(spans):
        x, gone = lived(endocrine, x, said(), tokens), gone + tokens
        for hormone, life in enumerate(LIVES):
            if 0.5 * life <= gone <= 2 * life:
                left = float((x - level)[0, hormone] / start[0, hormone])
                logs[hormone].append(gone / -math.log2(left))
        if gone > 2048:
            break
    for found, life in zip(logs, LIVES, strict=True):
        if not found:  # a span longer than two half-lives
            assert min(spans) > 1.5 * life
            continue
        worst = max(abs(value / life - 1) for value in found)
        measured("error", worst)
        assert worst <= 0.01


def test_hormones_are_deterministic(tiny_brain, drive, tokens):
    runs = [drive(tiny_brain(), tokens(2, 70), pieces=7) for _ in range(2)]
    for a, b in zip(*(run.commits for run in runs), strict=True):
        assert torch.equal(a.modulators, b.modulators)


def test_the_main_loss_reaches_every_hormones_level(tiny_brain, tokens):
    brain, loss = tiny_brain(["endocrine.modulates_decay=true"]), None
    loss = objective.window_loss(brain, tokens(2, 48), brain.init_state(2), TrainConfig(rate_weight=0, route_weight=0))
    loss.total.backward()
    level = brain.regions["endocrine"].level
    for hormone, weight, bias in zip(HORMONES, level.weight.grad, level.bias.grad, strict=True):
        assert weight.abs().max() > 0 and bias != 0, hormone
    for region in ("cortex", "hippocampus"):
        assert brain.regions[region].decay_modulation.weight.grad.any(), region


def test_hormones_make_a_memory_age_faster_or_slower(tiny_brain, drive, tokens):
    ageing, levels = DecayModulation(), torch.tensor([[1.0, 0.5, 0.5, 0.5, 0.5], [0.0, 0.5, 0.5, 0.5, 0.5]])
    assert ageing(levels, torch.tensor([64.0, 3.0])).tolist() == [64.0, 3.0]  # before it has learned
    with torch.no_grad():
        ageing.weight[0, 0] = 2.0
    assert ageing(levels, torch.tensor([64.0, 3.0])).tolist() == [32.0, 6.0]
    sets = ["endocrine.modulates_decay=true", "hippocampus.half_life_tokens=20"]
    strengths = []
    for weight in (0.0, 4.0):
        brain = tiny_brain(sets)
        with torch.no_grad():
            for region in ("cortex", "hippocampus"):
                brain.regions[region].decay_modulation.weight.fill_(weight)
        strengths.append(drive(brain, tokens(2, 64)).state.regions.hippocampus.strengths)
    assert not torch.allclose(*strengths)
    off = tiny_brain(["endocrine.modulates_decay=true", "endocrine.enabled=false"])
    assert off.regions["hippocampus"].decay_modulation is None  # nothing to be moved by


def test_noradrenaline_warms_sampling_only_where_asked_to(tiny_brain, tokens):
    seen: list[float] = []

    class Listening(Sampler):
        def __call__(self, logits: torch.Tensor, warmth: float = 1.0) -> int:
            seen.append(warmth)
            return super().__call__(logits, warmth)

    written = []
    for octaves in (0.0, 2.0, -2.0):
        session = Session(tiny_brain([f"endocrine.temperature_octaves={octaves}"]).eval())
        session.feed(tokens(1, 40))
        x = float(session.state.regions.endocrine.modulators[0, HORMONES.index("noradrenaline")])
        seen.clear()
        written.append(list(session.generate(Listening(seed=3), 6)))
        assert seen == pytest.approx([2.0 ** (octaves * (2 * x - 1))] * 6)
        assert octaves == 0 or seen[0] != 1.0
    logits = torch.tensor([0.0, 1.0, 3.0])
    assert Sampler(0.0)(logits, 8.0) == 2
    hot = [Sampler(1.0, 1.0, seed=seed)(logits, 100.0) for seed in range(60)]
    cold = [Sampler(1.0, 1.0, seed=seed)(logits, 0.01) for seed in range(60)]
    assert len(set(hot)) == 3 and set(cold) == {2}


def test_octaves_out_of_range_are_refused():
    with pytest.raises(UsageError, match=r"endocrine.temperature_octaves: got 5.0, expected from -4 to 4.\nSet brain"):
        apply_sets(presets.tiny(), ["brain.endocrine.temperature_octaves=5"])


def test_a_half_life_below_the_span_is_warned_of(tmp_path, capsys):
    (note,) = config.cautions(presets.small().brain)
    assert note == (
        "config brain.endocrine.half_lives_tokens: noradrenaline's 32 tokens are fewer than a plasticity span of 64: "
        "it moves once a span, and then 25 % of its past is left."
    )
    assert config.cautions(presets.tiny().brain) == []
    off = apply_sets(presets.small(), ["brain.endocrine.enabled=false"])
    assert config.cautions(apply_sets(presets.small(), ["brain.endocrine.off=noradrenaline"]).brain) == []
    assert config.cautions(off.brain) == []
    assert main(["config", "check", "small"]) == 0
    said = capsys.readouterr()
    assert said.out == "small: fine\n" and said.err == f"note: {note}\n"
    text = tmp_path / "text.txt"
    text.write_text("The keeper counted the boats twice. " * 60, encoding="utf-8")
    short = ["brain.endocrine.half_lives_tokens=8,32,64,64,64", f"data.train={text}", "train.steps=1", "train.batch=2"]
    sets = [*short, "train.eval_tokens=32", "brain.vocab_size=270"]
    with pytest.warns(NeuroWarning, match="dopamine's 8 tokens are fewer than a plasticity span of 16"):
        loop.train(apply_sets(presets.tiny(), sets), tmp_path / "run", "cpu")
    options = [part for item in sets for part in ("--set", item)]
    assert main(["train", "tiny", *options, "--out", str(tmp_path / "other")]) == 0  # said once, as a line
    assert capsys.readouterr().err.count("note: config brain.endocrine") == 1
