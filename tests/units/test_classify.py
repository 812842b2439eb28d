"""Training of classifiers: seeded, resumable to the bit, and refusing what does not fit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import backends
from neuro.errors import FormatError, NeuroError, UsageError
from neuro.spiking_classifier import ClassifierConfig, Counts, LayerConfig
from neuro.train import classify
from neuro.train.classify import Plan

CPU = backends.select("cpu")
LABELS = np.arange(60) % 3
NETWORK = ClassifierConfig((9,), (LayerConfig(16),), 3, decay=0.8)
PLAN = Plan(epochs=20, batch=15, learning_rate=0.02)


def draw(samples: np.ndarray, generator: np.random.Generator | None) -> torch.Tensor:
    """Three groups of three channels: the label's fires often, the others seldom."""
    noise = np.random.default_rng(7).random((6, 60, 9)) if generator is None else generator.random((6, 60, 9))
    rate = np.where(np.arange(9) // 3 == LABELS[:, None], 0.6, 0.1)
    return torch.from_numpy((noise < rate)[:, samples]).float()


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("neuron", ["spiking", "graded"])
def test_it_learns_what_can_be_learned(neuron):
    told: list[dict] = []
    network = dataclasses.replace(NETWORK, neuron=neuron)
    model = classify.fit(network, draw, LABELS, np.arange(45), PLAN, CPU, report=told.append)
    scores = classify.evaluate(model, draw, LABELS, np.arange(45, 60), batch=4)
    assert scores.accuracy > 0.85 and len(scores.correct) == 15 and scores.counts.steps == 6 * 15
    assert [record["epoch"] for record in told] == [*range(1, 21)] and told[-1]["nats"] < 0.5 * told[0]["nats"]


def test_the_seed_decides_everything():
    one, again = (classify.fit(NETWORK, draw, LABELS, np.arange(45), PLAN, CPU) for _ in range(2))
    other = classify.fit(NETWORK, draw, LABELS, np.arange(45), dataclasses.replace(PLAN, seed=1), CPU)
    assert same(one, again) and not same(one, other)


def test_every_part_of_the_plan_changes_what_is_learned():
    plan = dataclasses.replace(PLAN, epochs=2, rate_target=0.01)
    first = classify.fit(NETWORK, draw, LABELS, np.arange(45), plan, CPU)
    for options in (
        {"epochs": 3},
        {"batch": 9},
        {"learning_rate": 0.01},
        {"weight_decay": 0.5},
        {"rate_target": 1.0},
        {"rate_weight": 3.0},
    ):
        other = classify.fit(NETWORK, draw, LABELS, np.arange(45), dataclasses.replace(plan, **options), CPU)
        assert not same(first, other), options


def test_an_interrupted_training_goes_on_to_the_same_bits(tmp_path):
    whole = classify.fit(NETWORK, draw, LABELS, np.arange(45), PLAN, CPU)

    def stop(record):
        if record["epoch"] == 12:
            raise KeyboardInterrupt

    told: list[dict] = []
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        classify.fit(NETWORK, draw, LABELS, np.arange(45), PLAN, CPU, path, stop)
    rest = classify.fit(NETWORK, draw, LABELS, np.arange(45), PLAN, CPU, path, told.append)
    assert same(whole, rest) and told[0]["epoch"] == 13
    with pytest.raises(FormatError, match=r"its plan differs from this run's.\nChoose another --out"):
        classify.fit(NETWORK, draw, LABELS, np.arange(45), dataclasses.replace(PLAN, epochs=30), CPU, path)
    with pytest.raises(FormatError, match="its config differs from this run's"):
        classify.fit(dataclasses.replace(NETWORK, decay=0.5), draw, LABELS, np.arange(45), PLAN, CPU, path)


def test_a_budget_of_spikes_is_kept():
    def rate(target: float) -> float:
        plan = dataclasses.replace(PLAN, rate_target=target, rate_weight=20.0)
        model = classify.fit(NETWORK, draw, LABELS, np.arange(45), plan, CPU)
        counts = classify.evaluate(model, draw, LABELS, np.arange(45)).counts
        return counts.spikes[1] / counts.updates

    free, held = rate(1.0), rate(0.03)
    assert free > 0.08 and held < 0.05


def test_a_saved_network_answers_the_same(tmp_path):
    model = classify.fit(NETWORK, draw, LABELS, np.arange(45), dataclasses.replace(PLAN, epochs=1), CPU)
    path = tmp_path / "model.safetensors"
    classify.save(path, model, {"task": "made up"})
    loaded, about = classify.load(path, CPU)
    x = draw(np.arange(9), None)
    assert torch.equal(loaded(x)[0], model(x)[0]) and about == {"task": "made up"} and loaded.config == NETWORK
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FormatError, match="not a whole safetensors file"):
        classify.load(path, CPU)


def test_the_counts_of_batches_add_up():
    one, two = Counts([1, 2], [3, 4], [9, 9], 5, 6), Counts([10, 20], [30, 40], [9, 9], 50, 60)
    assert classify.add([one, two]) == Counts([11, 22], [33, 44], [9, 9], 55, 66)


def test_what_cannot_learn_is_named():
    with pytest.raises(
        UsageError, match=r"plan: got 0 epochs, batch 50 and learning rate 0.002, .*\nCorrect the value"
    ):
        Plan(epochs=0)
    for name in ("weight_decay", "rate_target", "rate_weight"):
        with pytest.raises(UsageError, match=rf"plan: got {name} -0.5, expected 0 or more.\nCorrect the value"):
            Plan(**{name: -0.5})

    def broken(samples, generator):
        x = draw(samples, generator)
        return x if generator is None else x * torch.nan

    with pytest.raises(NeuroError, match=r"a gradient in epoch 1 is not finite.\nLower learning_rate"):
        classify.fit(dataclasses.replace(NETWORK, neuron="graded"), broken, LABELS, np.arange(45), PLAN, CPU)
