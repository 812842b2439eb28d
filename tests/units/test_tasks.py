"""Recall tasks: what a row holds, that its past holds every answer, and that nothing else does."""

from __future__ import annotations

import numpy as np
import pytest

from neuro import tasks
from neuro.errors import UsageError
from neuro.tasks import FIRST, TASKS

VOCAB = 512
SOURCES = (
    "task:mqar:T=64,pairs=4",
    "task:mqar:T=256,pairs=64",
    "task:delayed:pairs=4,delay=40",
    "task:rebinding:pairs=6,bindings=3",
    "task:overwriting",
)


def draw(source: str, count: int = 200, seed: int = 0, vocab: int = VOCAB):
    (task,) = tasks.parse(source, vocab)
    return task, task.rows(np.random.default_rng(seed), count, vocab)


@pytest.mark.parametrize("source", SOURCES)
def test_a_seed_gives_the_same_rows(source):
    (_, first), (_, again), (_, other) = draw(source), draw(source), draw(source, seed=1)
    assert np.array_equal(first.tokens, again.tokens) and np.array_equal(first.scored, again.scored)
    assert not np.array_equal(first.tokens, other.tokens)


@pytest.mark.parametrize("source", SOURCES)
def test_rows_are_token_ids_of_the_length_said(source):
    task, rows = draw(source)
    assert rows.tokens.shape == rows.scored.shape == (200, task.length)
    assert rows.tokens.dtype == np.int64 and rows.scored.dtype == bool
    assert rows.tokens.min() >= 0 and rows.tokens.max() < VOCAB
    assert len(set(rows.scored.sum(1).tolist())) == 1  # as many answers in every row
    assert not rows.scored[:, 0].any()


@pytest.mark.parametrize("source", SOURCES)
def test_the_newest_binding_in_the_past_is_the_answer_and_every_key_is_asked_once(source):
    """Bindings are the pairs before the first question; a question never binds its key anew."""
    task, rows = draw(source)
    pairs = task.needs()[0]
    told = {"mqar": 2 * pairs, "delayed": 2 * pairs}.get(task.name, task.length - 2 * pairs)
    for tokens, scored in zip(rows.tokens.tolist(), rows.scored, strict=True):
        bound = dict(zip(tokens[0:told:2], tokens[1:told:2], strict=True))
        places = np.flatnonzero(scored)
        assert (places > told).all()
        assert [tokens[place] for place in places] == [bound[tokens[place - 1]] for place in places]
        assert sorted(tokens[place - 1] for place in places) == sorted(bound)
        assert len(bound) == pairs


@pytest.mark.parametrize("source", SOURCES)
def test_keys_and_values_never_meet(source):
    task, rows = draw(source)
    keys, values = task.keys(VOCAB), task.values(VOCAB)
    assert keys.start == FIRST and not set(keys) & set(values)
    questions = np.roll(rows.scored, -1, 1)
    assert set(rows.tokens[questions].tolist()) <= set(keys)
    assert set(rows.tokens[rows.scored].tolist()) <= set(values)
    # Every id has its chance: of 200 rows with several questions each, most of them come.
    assert len(set(rows.tokens[rows.scored].tolist())) > 0.6 * len(values)


@pytest.mark.parametrize("source", SOURCES)
def test_no_answer_leaks_through_its_place(source):
    """Which value it is follows from the key alone: neither the order of telling nor the place of asking says it."""
    _, rows = draw(source, count=2000)
    answers = rows.tokens[rows.scored].reshape(2000, -1)
    firsts = rows.tokens[:, 1]
    for column in range(answers.shape[1]):
        if answers.shape[1] > 1 and "T=64" not in source:
            assert (answers[:, column] == firsts).mean() < 0.6
    # The best guess without the past: the most frequent value, about chance.
    counts = np.bincount(answers.ravel(), minlength=VOCAB)
    assert counts.max() / counts.sum() < 0.02


def test_mqar_gaps_follow_the_published_power_law():
    """One pair: the place of its question is drawn by p(x) ~ x^(.01 - 1)."""
    _task, rows = draw("task:mqar:T=64,pairs=1", count=20_000)
    place = (rows.scored.argmax(1) - 3) // 2
    x = np.arange(1, 32)
    expected = x**-0.99 / (x**-0.99).sum()
    assert np.abs(np.bincount(place, minlength=31) / 20_000 - expected).max() < 0.012


def test_mqar_fills_with_any_id_and_asks_at_even_places():
    _, rows = draw("task:mqar:T=64,pairs=4", count=3000)
    places = np.nonzero(rows.scored)[1]
    assert (places % 2 == 1).all()
    rest = np.ones(rows.tokens.shape, bool)
    rest[:, :8] = False
    rest &= ~rows.scored & ~np.roll(rows.scored, -1, 1)
    share = np.bincount(rows.tokens[rest], minlength=VOCAB) / rest.sum()
    assert share.max() < 2 / VOCAB and share.min() > 0.5 / VOCAB


def test_delayed_fills_with_tokens_that_are_neither():
    _task, rows = draw("task:delayed:pairs=4,delay=40")
    filler = rows.tokens[:, 8:48]
    assert filler.min() >= VOCAB // 2 and len(set(filler.ravel().tolist())) == VOCAB // 2


def test_rebinding_binds_every_key_in_every_round_to_another_value():
    _, rows = draw("task:rebinding:pairs=6,bindings=3")
    bound = rows.tokens[:, :36].reshape(200, 3, 6, 2)
    assert (np.sort(bound[..., 0], -1) == np.sort(bound[:, :1, :, 0], -1)).all()
    assert all(len(set(row)) == 18 for row in bound[..., 1].reshape(200, -1).tolist())
    assert any((row[0, :, 0] != row[1, :, 0]).any() for row in bound)  # in another order


def test_distinct_ids_come_in_any_order():
    chosen = tasks.distinct(np.random.default_rng(0), 4000, range(10, 14), 3)
    assert all(len(set(row)) == 3 for row in chosen.tolist())
    for column in range(3):
        share = np.bincount(chosen[:, column], minlength=14)[10:] / 4000
        assert np.abs(share - 0.25).max() < 0.03


def test_a_mixture_has_its_parts_and_weights():
    parts = tasks.parse("task:mqar:T=64,pairs=4,weight=5+mqar:T=128,pairs=8+delayed", VOCAB)
    assert [(part.name, part.length, part.weight) for part in parts] == [
        ("mqar", 64, 5),
        ("mqar", 128, 1),
        ("delayed", 288, 1),
    ]
    assert tasks.parse(tasks.spelled(parts[1]), VOCAB) == (parts[1],)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_named_and_parsed(name):
    assert tasks.named(f"task:{name}") and not tasks.named(name)
    assert tasks.parse(f"task:{name}", 8192)[0].name == name


REFUSED = {
    "task:mqra": (r"task 'mqra': got no such task, expected one that is known\.\nDid you mean 'mqar'\?"),
    "task:mqar:pair=4": r"task 'mqar': got parameter 'pair', expected a known one\.\nDid you mean 'pairs'\?",
    "task:mqar:T": r"task 'mqar': got T='', expected a whole number\.\nWrite for example T=16\.",
    "task:mqar:T=1.5": r"task 'mqar': got T='1.5', expected a whole number",
    "task:mqar:T=63,pairs=2": r"got T=63, expected an even number, at least four times pairs \(8\)\.\nSet T or pairs",
    "task:mqar:T=64,pairs=17": r"got T=64, expected an even number, at least four times pairs \(68\)",
    "task:delayed:delay=0": r"task 'delayed': got delay=0, expected at least 1\.\nSet delay\.",
    "task:mqar:weight=0": r"task 'mqar': got weight=0, expected at least 1",
    "task:delayed:pairs=200": r"got 126 keys in a vocabulary of 512, expected at least 200\.\nSet brain\.vocab_size\.",
    "task:overwriting:bindings=99": r"got 256 values in a vocabulary of 512, expected at least 396",
    "task:mqar+": r"task '': got no such task",
}


@pytest.mark.parametrize("source", REFUSED)
def test_what_does_not_fit_is_refused_with_the_nearest_match(source):
    with pytest.raises(UsageError, match=REFUSED[source]) as error:
        tasks.parse(source, VOCAB)
    assert len(str(error.value).split("\n")) == 2
