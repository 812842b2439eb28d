"""The suite recall: arms differ in the memory alone, episodes are rows, sizes are counted from the state itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from neuro import presets, tasks
from neuro.errors import UsageError
from neuro.evaluate import recall
from neuro.state import leaves
from neuro.tasks import Rows

SOURCE = "task:delayed:pairs=3,delay=36"  # 48 tokens: three spans of the tiny brain


def rows_of(source: str = SOURCE, count: int = 6, vocab: int = 300) -> Rows:
    return tasks.parse(source, vocab)[0].rows(np.random.default_rng(0), count, vocab)


@pytest.mark.parametrize("arm", recall.ARMS)
def test_an_answer_is_judged_by_the_logits_just_before_it(arm, tiny_brain, drive):
    """REAL against a plain run of the same rows; the others change something."""
    brain, rows = tiny_brain(), rows_of()
    found = recall.answer(brain, rows, arm)
    assert found.right.shape == found.nats.shape == (6, 3)
    truth = drive(brain, torch.from_numpy(rows.tokens))
    scored = torch.from_numpy(rows.scored)
    nats = truth.surprise[scored].reshape(6, 3)
    assert torch.allclose(found.nats, nats, atol=1e-5) == (arm == "real")
    before = torch.roll(scored, -1, 1)
    right = (truth.logits[before].argmax(-1) == torch.from_numpy(rows.tokens)[scored]).reshape(6, 3)
    if arm == "real":
        assert torch.equal(found.right, right)


def test_off_is_a_brain_that_never_wrote_and_shuffled_reads_the_row_before(tiny_brain):
    brain, rows = tiny_brain(["procedural.enabled=false", "endocrine.enabled=false"]), rows_of()
    off = recall.answer(brain, rows, "off").nats
    core = tiny_brain(["procedural.enabled=false", "endocrine.enabled=false", "hippocampus.enabled=false"])
    core.load_state_dict({name: x for name, x in brain.state_dict().items() if name in core.state_dict()})
    assert torch.allclose(off, recall.answer(core, rows).nats, atol=1e-6)
    # Six copies of one row: the row before holds the same memory, and SHUFFLED is REAL.
    same = Rows(np.repeat(rows.tokens[:1], 6, 0), np.repeat(rows.scored[:1], 6, 0))
    real, shuffled = recall.answer(brain, same).nats, recall.answer(brain, same, "shuffled").nats
    assert torch.allclose(real, shuffled, atol=1e-6) and not torch.allclose(
        real, recall.answer(brain, same, "off").nats
    )


@pytest.mark.parametrize("arm", ["real", "off"])
def test_rows_are_independent(arm, tiny_brain):
    brain, rows = tiny_brain(), rows_of()
    all_rows = recall.answer(brain, rows, arm).nats
    alone = recall.answer(brain, Rows(rows.tokens[2:3], rows.scored[2:3]), arm).nats
    assert torch.allclose(all_rows[2], alone[0], atol=1e-5)


@pytest.mark.parametrize("arm", recall.ARMS)
def test_no_answer_is_judged_by_what_came_after_its_question(arm, tiny_brain):
    """Changing the last answer of a row, and nothing else, changes no other verdict and no logit before it."""
    brain, rows = tiny_brain(), rows_of()
    other = Rows(rows.tokens.copy(), rows.scored)
    other.tokens[:, -1] = (rows.tokens[:, -1] + 7) % 300
    one, two = recall.answer(brain, rows, arm), recall.answer(brain, other, arm)
    assert torch.equal(one.nats[:, :-1], two.nats[:, :-1])
    assert not torch.equal(one.nats[:, -1], two.nats[:, -1])


def test_an_evaluation_is_pure_and_gives_json(tiny_brain):
    brain = tiny_brain().train()
    weights = {name: x.clone() for name, x in brain.state_dict().items()}
    first = recall.evaluate(brain, [SOURCE], rows=4)
    again = recall.evaluate(brain, [SOURCE], rows=4)
    assert first == again and brain.training
    assert all(torch.equal(x, weights[name]) for name, x in brain.state_dict().items())
    assert all(p.grad is None for p in brain.parameters())
    loaded = json.loads(json.dumps([result.to_dict() for result in first]))
    assert [row["arm"] for row in loaded] == ["real", "off", "shuffled"]
    for row in loaded:
        assert (row["task"], row["length"], row["rows"], row["answers"]) == ("task:delayed:pairs=3,delay=36", 48, 4, 12)
        assert row["chance"] == 1 / 75 and 0 <= row["interval"][0] <= row["accuracy"] <= row["interval"][1] <= 1


def test_many_rows_are_cut_into_batches_of_two_at_least(tiny_brain, monkeypatch):
    brain, seen = tiny_brain(), []
    real = recall.answer
    monkeypatch.setattr(recall, "answer", lambda b, rows, arm: seen.append(len(rows.tokens)) or real(b, rows, arm))
    monkeypatch.setattr(recall, "ROWS_AT_ONCE", 2)
    (result,) = recall.evaluate(brain, [SOURCE], rows=5, chosen=["real"])
    assert result.rows == 5 and min(seen) >= 2 and len(seen) > 1


def test_the_interval_resamples_rows():
    """Rows that are all right or all wrong: as wide as 20 coin flips, however many answers a row has."""
    low, high = recall.interval(np.array([1.0, 0.0] * 10), 0)
    assert low == pytest.approx(0.5 - 1.96 * 0.5 / 20**0.5, abs=0.06)
    assert high == pytest.approx(0.5 + 1.96 * 0.5 / 20**0.5, abs=0.06)
    assert recall.interval(np.ones(9), 0) == (1.0, 1.0)


def test_state_elements_are_counted_from_the_state(tiny_brain):
    brain = tiny_brain(["procedural.enabled=false"])
    found = recall.state_elements(brain)
    h = brain.config.hippocampus
    waiting = (h.key_width + 1) + 32 + 2  # the last key, the last content, how far the stream is and its trust
    assert found["memory"] == h.slots * (h.key_width + 32 + 2) + waiting
    total = sum(leaf.numel() for _, leaf in leaves(brain.init_state(1)))
    assert found["state"] == total - brain.config.vocab_size
    fast = 2 * len(brain.config.cortex.layers) * 4
    assert recall.state_elements(tiny_brain())["memory"] == found["memory"] + fast * (32 + 1)


def test_the_table_has_a_line_for_every_task():
    row = dict(task="task:mqar:T=64,pairs=4", length=64, rows=2, answers=8, nats=0.1, chance=1 / 4096)
    results = [
        recall.Result(arm="real", accuracy=0.5, interval=(0.25, 0.75), **row),
        recall.Result(arm="off", accuracy=0.0, interval=(0.0, 0.0), **row),
    ]
    head, line = recall.lines(results)
    assert head.split() == ["task", "tokens", "chance", "real", "off"]
    assert line == "task:mqar:T=64,pairs=4       64  0.00024  0.5000 (0.2500..0.7500)  0.0000 (0.0000..0.0000)"


def test_what_cannot_be_measured_is_refused(tiny_brain):
    brain = tiny_brain()
    with pytest.raises(UsageError, match=r"recall: got arm 'reel', expected a known one\.\nDid you mean 'real'\?"):
        recall.evaluate(brain, [SOURCE], chosen=["reel"])
    with pytest.raises(UsageError, match=r"recall: got 1 rows, expected at least 2\.\nGive more rows"):
        recall.evaluate(brain, [SOURCE], rows=1)
    with pytest.raises(UsageError, match=r"got no such task"):
        recall.evaluate(brain, ["task:nothing"])


@pytest.mark.parametrize(("preset", "points"), [("mqar", recall.MQAR_BASED), ("delayed", recall.BEYOND_WINDOW)])
def test_a_preset_trains_on_what_its_test_points_ask_at_other_sizes(preset, points):
    run = presets.PRESETS[preset]()
    trained = tasks.parse(run.data.train, run.brain.vocab_size)
    tested = [tasks.parse(point, run.brain.vocab_size)[0] for point in points]
    assert {task.name for task in tested} <= {task.name for task in trained}
    assert max(task.length for task in tested) > 2 * max(task.length for task in trained)
    if preset == "mqar":  # the published mixture and test points
        assert [(t.T, t.pairs, t.weight) for t in trained] == [
            (64, 4, 5), (128, 8, 1), (256, 16, 1), (256, 32, 1), (256, 64, 1)
        ]  # fmt: skip
        assert [(t.T, t.pairs) for t in tested] == [
            (64, 4), (64, 8), (64, 16), (128, 32), (256, 64), (512, 128), (1024, 256)
        ]  # fmt: skip
    else:
        assert run.brain.cortex.window == 256
