"""Laws of training on recall tasks: every example a fresh stream, the loss sees answers alone and nothing after them,
and a run that stopped equals one that did not, bit for bit."""

from __future__ import annotations

import dataclasses
import json
import signal

import pytest
import torch

from neuro import config, presets, tensor_file
from neuro.config import TrainConfig
from neuro.errors import FormatError, UsageError
from neuro.state import leaves
from neuro.train import checkpoint, loop, objective
from neuro.train.examples import Examples, held_out_answers

MIXTURE = "task:mqar:T=32,pairs=4,weight=3+delayed:pairs=3,delay=30"  # 32 and 42 tokens: two spans, and two and a half
TRAIN = TrainConfig()


def window(source: str = MIXTURE, batch: int = 3, seed: int = 0):
    drawn = Examples(source, 300, batch, seed).window(1)
    return torch.from_numpy(drawn.tokens), torch.from_numpy(drawn.scored)


@pytest.mark.parametrize("source", ["task:mqar:T=32,pairs=4", "task:delayed:pairs=3,delay=30"])
def test_the_loss_is_the_mean_surprise_of_the_answers(source, tiny_brain, drive):
    """And of a whole row where every token but the first counts."""
    brain = tiny_brain()
    tokens, scored = window(source)
    surprise = drive(brain, tokens).surprise
    with torch.no_grad():
        loss = objective.window_loss(brain, tokens, brain.init_state(3), TRAIN, scored)
        assert loss.nats == pytest.approx(float(surprise[scored].mean()), abs=1e-5)
        every = torch.ones_like(scored)
        every[:, 0] = False
        all_scored = objective.window_loss(brain, tokens, brain.init_state(3), TRAIN, every)
        assert all_scored.nats == pytest.approx(
            float(objective.window_loss(brain, tokens, brain.init_state(3), TRAIN).nats), abs=1e-5
        )
    assert abs(float(loss.nats - all_scored.nats)) > 1e-3


def test_the_gradient_is_that_of_the_surprise_of_the_answers(tiny_brain):
    brain = tiny_brain(dtype=torch.float64)
    tokens, scored = window("task:mqar:T=32,pairs=4")
    plain = dataclasses.replace(TRAIN, rate_weight=0.0, route_weight=0.0)
    objective.window_loss(brain, tokens, brain.init_state(3), plain, scored).total.backward()
    found = {name: p.grad.clone() for name, p in brain.named_parameters() if p.grad is not None}
    brain.zero_grad(set_to_none=True)
    state, nats = brain.init_state(3), []
    for span in tokens.split(16, 1):
        out = brain.scan(span, state)
        nats.append(out.aux.surprise)
        state = brain.commit(out.state)[0]
    torch.cat(nats, 1)[scored].mean().backward()
    for name, p in brain.named_parameters():
        if p.grad is not None and p.grad.any():
            assert torch.allclose(found[name], p.grad, atol=1e-9), name


def test_no_loss_depends_on_what_comes_after_the_last_answer(tiny_brain):
    """Also through the commits: tokens behind the last answer change neither loss nor gradient."""
    brain = tiny_brain()
    tokens, scored = window("task:mqar:T=48,pairs=2")
    last = int(scored.any(0).nonzero().max())
    assert last < 46
    losses = []
    for shift in (0, 5):
        other = tokens.clone()
        other[:, last + 1 :] = (other[:, last + 1 :] + shift) % 300
        brain.zero_grad(set_to_none=True)
        plain = dataclasses.replace(TRAIN, rate_weight=0.0, route_weight=0.0)
        total = objective.window_loss(brain, other, brain.init_state(3), plain, scored).total
        total.backward()
        losses.append((total.detach(), brain.embedding.grad[:2].clone(), brain.regions["readout"].norm.weight.grad))
    for one, two in zip(*losses, strict=True):
        assert torch.allclose(one, two, atol=1e-6)
    # The tokens before it do matter.
    other = tokens.clone()
    other[:, 3] = (other[:, 3] + 5) % 300
    changed = objective.window_loss(brain, other, brain.init_state(3), TRAIN, scored).total
    assert not torch.allclose(changed, losses[0][0], atol=1e-6)


def test_rows_of_a_window_are_independent(tiny_brain):
    brain = tiny_brain()
    tokens, scored = window()
    together = objective.window_loss(brain, tokens, brain.init_state(3), TRAIN, scored).nats
    alone = [
        objective.window_loss(brain, tokens[i : i + 1], brain.init_state(1), TRAIN, scored[i : i + 1]).nats
        for i in range(3)
    ]
    assert together == pytest.approx(float(torch.stack(alone).mean()), abs=1e-5)


def test_every_example_is_a_fresh_stream_drawn_by_weight():
    examples = Examples(MIXTURE, 300, 2, seed=0)
    windows = [examples.window(4) for _ in range(200)]
    assert all(w.fresh.all() for w in windows)
    short = [w for w in windows if w.tokens.shape[1] == 32]
    assert {w.tokens.shape for w in windows} == {(2, 32), (2, 42)}
    assert 0.65 < len(short) / 200 < 0.85  # 3 of 4
    assert len({w.tokens.tobytes() for w in windows}) == 200


def test_a_position_goes_through_json_and_continues_exactly():
    examples = Examples(MIXTURE, 300, 2, seed=0)
    examples.window(1)
    position = json.loads(json.dumps(examples.state()))
    expected = [examples.window(1) for _ in range(5)]
    other = Examples(MIXTURE, 300, 2, seed=9)
    other.restore(position)
    for one in expected:
        two = other.window(1)
        assert one.tokens.tolist() == two.tokens.tolist() and one.scored.tolist() == two.scored.tolist()
    with pytest.raises(
        FormatError, match=r"examples: the task is not the one this run began with\.\nSet data.train back"
    ):
        Examples("task:mqar", 300, 2, 0).restore(position)


def test_held_out_examples_are_not_those_of_training(tiny_brain):
    """Evaluating draws nothing from the run, moves no weight, and sees other rows."""
    brain = tiny_brain().train()
    weights = [p.clone() for p in brain.parameters()]
    first = held_out_answers(brain, MIXTURE, 400, seed=0)
    assert first == held_out_answers(brain, MIXTURE, 400, seed=0) != held_out_answers(brain, MIXTURE, 400, seed=1)
    assert brain.training and all(torch.equal(a, b) for a, b in zip(weights, brain.parameters(), strict=True))
    assert first.keys() == {"valid_nats", "valid_accuracy"} and 0 <= first["valid_accuracy"] <= 1


# The run itself.


def make_run(**train) -> config.RunConfig:
    base = presets.tiny()
    chosen = dict(steps=8, batch=2, eval_every=3, eval_tokens=300, warmup_steps=2) | train
    return dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, train=MIXTURE),
        train=dataclasses.replace(base.train, **chosen),
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    torch.set_num_threads(1)
    loop.train(make_run(), out)
    return out


def read(out):
    tensors, header = tensor_file.read(out / "checkpoint.safetensors", checkpoint.SCHEMA)
    header["progress"].pop("seconds")
    log = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").split("\n") if line]
    return tensors, header, [{k: v for k, v in record.items() if k != "seconds"} for record in log]


def assert_equal_runs(out, whole) -> None:
    (mine, header, log), (truth, expected, record) = read(out), read(whole)
    assert mine.keys() == truth.keys() and all(torch.equal(mine[name], x) for name, x in truth.items())
    assert header == expected and log == record
    for name in ("model/model.safetensors", "config.toml", "tokenizer.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


def test_the_run_learns_answers_and_logs_them(whole):
    _tensors, header, log = read(whole)
    assert header["progress"]["step"] == 8 and header["streams"]["task"] == MIXTURE
    tokens = [record["tokens"] for record in log if record["event"] == "step"]
    assert set(b - a for a, b in zip([0, *tokens], tokens, strict=False)) == {64, 84}
    evals = [record for record in log if record["event"] == "eval"]
    assert [record["step"] for record in evals] == [3, 6, 8]
    assert all(0 <= record["valid_accuracy"] <= 1 and record["valid_nats"] > 0 for record in evals)
    about = json.loads((whole / "model" / "config.json").read_text(encoding="utf-8"))["about"]
    assert about["train_tokens"] is None and about["valid_nats"] == evals[-1]["valid_nats"]


@pytest.mark.parametrize("steps", [(1,), (3,), (4, 7), (8,)], ids=str)
def test_an_interrupted_run_equals_one_that_never_stopped(steps, whole, tmp_path):
    left = list(steps)

    def report(record) -> None:
        if record["event"] == "step" and left and record["step"] == left[0]:
            left.pop(0)
            signal.raise_signal(signal.SIGINT)

    for _ in steps:
        with pytest.raises(KeyboardInterrupt):
            loop.train(make_run(), tmp_path, report=report)
    loop.train(make_run(), tmp_path)
    assert_equal_runs(tmp_path, whole)


def test_nothing_is_carried_from_one_example_to_the_next(whole):
    """The state in the checkpoint is that of the last window alone."""
    tensors, _header, _ = read(whole)
    clock = {name: x for name, x in tensors.items() if name == "state.clock"}
    assert int(clock["state.clock"]) == 0
    run = make_run()
    examples = Examples(MIXTURE, 300, 2, run.train.seed)
    brain = loop.Brain(config.load(whole / "config.toml").brain, loop.backends.select("cpu"))
    names = [name for name, _ in leaves(brain.init_state(2))]
    assert {f"state.{name}" for name in names} <= set(tensors)
    for _ in range(8):
        last = examples.window(1)
    spans = -(-last.tokens.shape[1] // 16)
    filled = (tensors["state.regions.hippocampus.strengths"] > 0).sum(1)
    assert (filled <= spans * 16).all() and (filled > 0).all()


def test_a_task_that_is_misspelled_is_refused_before_anything_is_written(tmp_path):
    run = config.apply_sets(make_run(), ["data.train=task:mqra"])
    with pytest.raises(UsageError, match="Did you mean 'mqar'"):
        loop.train(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    run = config.apply_sets(make_run(), ["data.valid=book.txt"])
    with pytest.raises(UsageError, match=r"task 'book.txt': got no such task"):
        loop.train(run, tmp_path / "out")


def test_another_task_may_be_held_out(tmp_path):
    run = config.apply_sets(make_run(steps=1), ["data.valid=task:rebinding:pairs=3"])
    loop.train(run, tmp_path)
    _, _, log = read(tmp_path)
    loop.train(make_run(steps=1), tmp_path / "same")
    _, _, same = read(tmp_path / "same")
    assert log[0] == same[0] and log[1]["event"] == same[1]["event"] == "eval" and log[1] != same[1]
