"""Tasks: folds that never overlap, encodings that are spikes, twins that see the same samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neuro import presets_tasks
from neuro.errors import UsageError
from neuro.presets_tasks import moved, rates, shuffled_folds
from neuro.sensors import spoken_digits


def test_every_sample_is_tested_once_and_never_learned_from_there():
    folds = shuffled_folds(23, 5)
    assert sorted(np.concatenate([fold.test for fold in folds]).tolist()) == [*range(23)]
    for fold in folds:
        assert sorted([*fold.train, *fold.test]) == [*range(23)]
    assert any((a.test != b.test).any() for a, b in zip(folds, shuffled_folds(23, 5, seed=1), strict=True))


def test_rates_spread_an_intensity_evenly_over_the_steps():
    x = torch.linspace(0, 1, 41)[None]
    spikes = rates(x, 8)
    assert spikes.shape == (8, 1, 41) and set(spikes.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(spikes.sum(0), torch.floor(x * 8 + 0.5))
    assert spikes[:, 0, 20].tolist() == [1, 0, 1, 0, 1, 0, 1, 0]


def test_moved_images_keep_their_ink_and_follow_from_the_generator():
    x = torch.zeros(3, 1, 28, 28)
    x[:, :, 10:18, 12:16] = 1.0
    one, again, other = (moved(x, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert ((one.sum((1, 2, 3)) / 32 > 0.75) & (one.sum((1, 2, 3)) / 32 < 1.3)).all()
    assert not torch.equal(one[0], one[1])


def test_unknown_tasks_and_neurons_are_named():
    with pytest.raises(UsageError, match=r"task: got 'nmist', expected one of .*\nDid you mean 'nmnist'"):
        presets_tasks.load("nmist")
    with pytest.raises(UsageError, match=r"task mnist: got neuron 'spike'.\nDid you mean 'spiking'"):
        presets_tasks.load("mnist", "spike")


def test_images_and_events_are_paired_and_both_are_spikes(neuro_data):
    tasks = {name: presets_tasks.load(name, "spiking", neuro_data) for name in ("nmnist", "mnist")}
    assert (tasks["nmnist"].labels == tasks["mnist"].labels).all() and len(tasks["mnist"].labels) == 1100
    some = np.array([0, 1050])
    for name, task in tasks.items():
        x = task.draw(some, None)
        assert x.shape[1:] == (2, *task.network.shape) and set(x.unique().tolist()) == {0.0, 1.0}
        mean = presets_tasks.load(name, "graded", neuro_data).draw(some, None)
        assert mean.shape == (1, *x.shape[1:])
        assert (x.mean(0) - mean[0]).abs().max() <= 0.5 / len(x)
        varied = [task.draw(some, np.random.default_rng(seed)) for seed in (0, 0, 1)]
        assert torch.equal(varied[0], varied[1]) and not torch.equal(varied[0], varied[2])


def test_speakers_are_left_out_whole_and_the_twin_hears_the_same(neuro_data):
    task = presets_tasks.load("spoken-digits", "spiking", neuro_data)
    assert [fold.name for fold in task.folds] == [*spoken_digits.SPEAKERS]
    assert all(len(fold.test) == 500 and len(fold.train) == 2500 for fold in task.folds)
    assert all((np.bincount(task.labels[fold.test]) == 50).all() for fold in task.folds)
    some = np.array([3, 2999])
    x = task.draw(some, None)
    assert x.shape == (24, 2, *task.network.shape) and set(x.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(x, presets_tasks.load("spoken-digits", "graded", neuro_data).draw(some, None))
    fibres = len(presets_tasks.THRESHOLDS_DB)
    for place, by in enumerate(presets_tasks.DELAYS):  # the delayed copies are the same spikes, later
        late = x[:, :, place * fibres : (place + 1) * fibres]
        assert torch.equal(late[by:], x[: 24 - by, :, :fibres]) and not late[:by].any()
