"""Law: a run that was interrupted, killed or broken and goes on again equals one that never stopped, bit for bit."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

import neuro
from neuro import atomic, config, presets, tensor_file
from neuro.config import RunConfig, TrainConfig, apply_sets
from neuro.errors import FormatError, NeuroError, UsageError
from neuro.layers.spiking_encoder import SpikingEncoder
from neuro.train import checkpoint, loop, objective

STEPS, EVERY = 12, 4
TIMES = ("seconds",)


def write_text(folder: Path, seed: int = 0) -> Path:
    rng, folder = random.Random(seed), folder / "text"
    folder.mkdir(exist_ok=True)
    words = ["".join(rng.choices("abcdefgh", k=rng.randint(1, 6))) for _ in range(60)]
    for i in range(4):
        lines = [" ".join(rng.choices(words, k=9)) + "." for _ in range(25)]
        (folder / f"{i}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def make_run(text: Path, **train) -> RunConfig:
    base = presets.tiny()
    chosen = dict(steps=STEPS, batch=2, eval_every=EVERY, eval_tokens=128, rehearsal=0.5, spans_per_step=2) | train
    return dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, train=str(text)),
        train=dataclasses.replace(base.train, **chosen),
    )


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    return write_text(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def whole(text, tmp_path_factory) -> Path:
    """The run that never stopped."""
    out = tmp_path_factory.mktemp("whole")
    torch.set_num_threads(1)
    loop.train(make_run(text), out)
    return out


def read_log(out: Path) -> list[dict]:
    lines = (out / "log.jsonl").read_text(encoding="utf-8").split("\n")
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines if line]


def assert_equal_runs(out: Path, whole: Path) -> None:
    mine, header = tensor_file.read(out / "checkpoint.safetensors", checkpoint.SCHEMA)
    truth, expected = tensor_file.read(whole / "checkpoint.safetensors", checkpoint.SCHEMA)
    assert mine.keys() == truth.keys()
    for name, tensor in truth.items():
        assert torch.equal(mine[name], tensor), name
    for record in (header, expected):
        record["progress"].pop("seconds")
    assert header == expected
    assert read_log(out) == read_log(whole)
    for name in ("model/model.safetensors", "config.toml", "tokenizer.json", "model/tokenizer.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


class StopError(Exception):
    pass


def stop_at(*steps: int, how=None):
    """A report callback that raises SIGINT (or an error) after the record of these steps."""
    left = list(steps)

    def report(record) -> None:
        if record["event"] == "step" and left and record["step"] == left[0]:
            left.pop(0)
            if how is not None:
                raise how
            signal.raise_signal(signal.SIGINT)

    return report


def test_the_run_is_worth_resuming(whole):
    """It covers what a resume must carry: moments, memory, hormones, random documents, an evaluation."""
    tensors, header = tensor_file.read(whole / "checkpoint.safetensors", checkpoint.SCHEMA)
    for name in ("state.regions.hippocampus.strengths", "state.regions.endocrine.modulators", "state.logits"):
        assert tensors[name].std() > 0
    assert any(name.startswith("optimizer.") and name.endswith("exp_avg_sq") for name in tensors)
    assert header["progress"]["step"] == STEPS and header["progress"]["tokens"] == STEPS * 2 * 2 * 16
    log = read_log(whole)
    assert [record["step"] for record in log if record["event"] == "step"] == list(range(1, STEPS + 1))
    assert [record["step"] for record in log if record["event"] == "eval"] == [4, 8, 12]
    nats = [record["nats"] for record in log if record["event"] == "step"]
    assert nats[-1] < nats[0] and len(set(nats)) == STEPS


def test_two_uninterrupted_runs_are_equal(text, whole, tmp_path):
    loop.train(make_run(text), tmp_path)
    assert_equal_runs(tmp_path, whole)


@pytest.mark.parametrize("steps", [(1,), (5,), (4,), (3, 7, 11), (12,)], ids=str)
def test_sigint_saves_and_the_same_command_goes_on_exactly(steps, text, whole, tmp_path):
    """Also at an evaluation step, several times, and in the last step."""
    before = signal.getsignal(signal.SIGINT)
    for step in steps:
        with pytest.raises(KeyboardInterrupt):
            loop.train(make_run(text), tmp_path, report=stop_at(step))
        _, header = tensor_file.read(tmp_path / "checkpoint.safetensors", checkpoint.SCHEMA)
        assert header["progress"]["step"] == step
        assert read_log(tmp_path)[-1]["step"] == step
        assert signal.getsignal(signal.SIGINT) is before
    loop.train(make_run(text), tmp_path)
    assert_equal_runs(tmp_path, whole)


AT_SPEED = dict(
    sampled=40,
    dropout=0.2,
    embedding_dropout=0.2,
    average=0.9,
    optimizer="muon",
    spelling=30,
    only=("embedding", "spelling", "cortex"),
)


def test_what_is_drawn_and_averaged_goes_on_exactly(text, tmp_path):
    """Candidates, dropped units and tokens, the moving average, two optimizers, and parts that do not learn."""
    run = make_run(text, **AT_SPEED)
    loop.train(run, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        loop.train(run, tmp_path / "cut", report=stop_at(6))
    brain = loop.train(run, tmp_path / "cut")
    assert_equal_runs(tmp_path / "cut", tmp_path / "whole")
    tensors, _ = tensor_file.read(tmp_path / "whole" / "checkpoint.safetensors", checkpoint.SCHEMA)
    name = "regions.cortex.layers.0.mixer.project.weight"
    assert not torch.equal(tensors[f"average.{name}"], tensors[f"model.{name}"])
    assert not torch.equal(tensors["average.spelling.parts"], tensors["model.spelling.parts"])
    saved = neuro.load(tmp_path / "whole" / "model").get_parameter(name)
    assert torch.equal(saved, tensors[f"average.{name}"].half().float())
    assert all(p.requires_grad for p in brain.parameters()) and brain.regions["cortex"].dropout.share == 0.0


def test_a_run_of_a_version_that_read_in_another_order_says_that(text, tmp_path):
    """And not that a key which did not exist then has another value."""
    loop.train(make_run(text, steps=2), tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    tensors, header = tensor_file.read(path, checkpoint.SCHEMA)
    del header["config"]["train"]["spelling"], header["streams"]["parts"]
    tensor_file.write(path, tensors, header)
    with pytest.raises(FormatError, match=r"begun by a version that read documents in another order\.\nGo on with"):
        loop.train(make_run(text, steps=4), tmp_path)


def test_a_checkpoint_of_another_average_is_refused(text, tmp_path):
    loop.train(make_run(text, steps=1), tmp_path)
    with pytest.raises(FormatError, match="averages 0 tensors"):
        loop.train(make_run(text, steps=2, average=0.9), tmp_path)


@pytest.mark.parametrize("step", [2, 4, 7])
def test_an_error_after_any_step_loses_only_what_was_not_saved(step, text, whole, tmp_path):
    with pytest.raises(StopError):
        loop.train(make_run(text), tmp_path, report=stop_at(step, how=StopError()))
    assert (tmp_path / "checkpoint.safetensors").exists() == (step > EVERY)
    loop.train(make_run(text), tmp_path)
    assert_equal_runs(tmp_path, whole)


def test_a_finished_run_started_again_changes_nothing(text, whole, tmp_path):
    loop.train(make_run(text), tmp_path)
    again = []
    loop.train(make_run(text), tmp_path, report=again.append)
    assert again == []
    assert_equal_runs(tmp_path, whole)


def test_a_run_may_be_made_longer(text, tmp_path):
    loop.train(make_run(text, steps=6), tmp_path)
    loop.train(make_run(text, steps=8), tmp_path)
    assert [r["step"] for r in read_log(tmp_path) if r["event"] == "step"] == list(range(1, 9))


def test_training_works_outside_the_main_thread(text, tmp_path):
    failed = []
    thread = threading.Thread(
        target=lambda: failed.append(None) if loop.train(make_run(text, steps=1), tmp_path) is None else None
    )
    thread.start()
    thread.join()
    assert not failed and (tmp_path / "model" / "config.json").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_training_on_cuda_goes_on_after_an_interrupt(text, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        loop.train(make_run(text, steps=4), tmp_path, backend="cuda", report=stop_at(2))
    brain = loop.train(make_run(text, steps=4), tmp_path, backend="cuda")
    assert {p.device.type for p in brain.parameters()} == {"cuda"}
    assert [r["step"] for r in read_log(tmp_path) if r["event"] == "step"] == [1, 2, 3, 4]


KILLER = """
import dataclasses, json, os, signal, sys
from pathlib import Path
import torch
from neuro import atomic, config, tensor_file
from neuro.train import loop

torch.set_num_threads(1)
run = config.load(sys.argv[1])
base = Path(sys.argv[2])
points = json.loads(sys.argv[3])

def die():
    os.kill(os.getpid(), signal.SIGKILL)

for kind, count in points:
    child = os.fork()
    if child == 0:
        seen = 0
        def passed():
            global seen
            seen += 1
            return seen == count
        replace, save_file = os.replace, tensor_file.save_file
        def dying_replace(source, target):
            last = passed()
            if kind == "before" and last:
                die()
            replace(source, target)
            if kind == "after" and last:
                die()
        def dying_save(tensors, path, metadata):
            save_file(tensors, path, metadata=metadata)
            if kind == "half" and passed():
                os.truncate(path, os.path.getsize(path) // 2)
                die()
        if kind == "half":
            tensor_file.save_file = dying_save
        else:
            atomic.os.replace = dying_replace
        loop.train(run, base / f"{kind}{count}")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (kind, count, status)
"""
# Renames: tokenizer.json, config.toml, then log and checkpoint at steps 4, 8 and 12, then the model folder.
POINTS = [("before", 4), ("before", 5), ("after", 5), ("after", 6), ("half", 2)]


@pytest.fixture(scope="module")
def killed(text, tmp_path_factory) -> Path:
    """Run folders of processes that were killed with SIGKILL at these points of writing."""
    if os.name != "posix":
        pytest.skip("SIGKILL and fork are POSIX")
    base = tmp_path_factory.mktemp("killed")
    (base / "run.toml").write_text(config.to_toml(make_run(text)), encoding="utf-8")
    root = str(Path(neuro.__file__).parents[1])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": root}
    subprocess.run(
        [sys.executable, "-c", KILLER, str(base / "run.toml"), str(base), json.dumps(POINTS)],
        check=True, env=environment, timeout=300,
    )  # fmt: skip
    return base


@pytest.mark.parametrize(("kind", "count"), POINTS)
def test_kill_9_while_writing_leaves_a_loadable_checkpoint_and_nothing_is_lost(kind, count, killed, text, whole):
    out = killed / f"{kind}{count}"
    path = out / "checkpoint.safetensors"
    if (kind, count) == ("before", 4):
        assert not path.exists()  # killed in the first one
    else:
        tensors, header = tensor_file.read(path, checkpoint.SCHEMA)
        assert header["progress"]["step"] in (4, 8)
        assert all(torch.isfinite(x).all() for x in tensors.values() if x.is_floating_point())
    loop.train(make_run(text), out)
    assert_equal_runs(out, whole)


def test_a_gradient_that_is_not_finite_stops_with_the_state_before_it(text, whole, tmp_path, monkeypatch):
    window_loss, calls = objective.window_loss, []

    def poisoned(*given):
        calls.append(None)
        loss = window_loss(*given)
        return loss._replace(total=loss.total * float("nan")) if len(calls) == 7 else loss

    monkeypatch.setattr(loop.objective, "window_loss", poisoned)
    with pytest.raises(
        NeuroError, match=r"the gradient of step 7 is not finite \(loss \d.*\)\.\nThe state before"
    ) as error:
        loop.train(make_run(text), tmp_path)
    assert error.value.exit_code == 1
    tensors, header = tensor_file.read(tmp_path / "checkpoint.safetensors", checkpoint.SCHEMA)
    assert header["progress"]["step"] == 6
    assert all(torch.isfinite(x).all() for x in tensors.values() if x.is_floating_point())
    monkeypatch.undo()
    loop.train(make_run(text), tmp_path)
    assert_equal_runs(tmp_path, whole)


@pytest.fixture
def half(text, whole, tmp_path) -> Path:
    """A run stopped after step 4, with its files."""
    with pytest.raises(KeyboardInterrupt):
        loop.train(make_run(text), tmp_path, report=stop_at(4))
    return tmp_path


def refused(run: RunConfig, out: Path, match: str, kind: type[NeuroError] = FormatError) -> None:
    files = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(kind, match=match) as error:
        loop.train(run, out)
    assert len(str(error.value).split("\n")) == 2
    assert files == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}, "a refusal wrote something"


@pytest.mark.parametrize("size", [0, 5, 1000, -1])
def test_a_truncated_checkpoint_is_refused(size, text, half):
    path = half / "checkpoint.safetensors"
    os.truncate(path, size if size >= 0 else path.stat().st_size - 1)
    refused(make_run(text), half, r"not a whole safetensors file \(.*\)\.\nIt is truncated or foreign")


def test_foreign_checkpoints_are_refused(text, half):
    path = half / "checkpoint.safetensors"
    path.write_bytes(b"PK\x03\x04 a zip file" * 100)
    refused(make_run(text), half, "not a whole safetensors file")
    tensor_file.write(path, {"a": torch.zeros(1)}, {"schema": "neuro.memory/1"})
    refused(make_run(text), half, r"got schema 'neuro.memory/1', expected 'neuro.checkpoint/1'")
    tensor_file.write(path, {"a": torch.zeros(1)}, {"schema": checkpoint.SCHEMA})
    refused(make_run(text), half, "its header lacks 'config'")


def test_a_checkpoint_of_another_run_is_refused_and_its_configuration_stays(text, whole, half, tmp_path):
    run = make_run(text)
    smaller = dataclasses.replace(run, brain=dataclasses.replace(run.brain, plasticity_span=32))
    refused(
        smaller,
        half,
        r"checkpoint\.safetensors: got a run of brain\.plasticity_span = 16, expected 32\.\nResume with the configuration "
        r"saved beside it \(config\.toml\), or choose another --out\.",
        UsageError,
    )
    assert "plasticity_span = 16" in (half / "config.toml").read_text()
    elsewhere = dataclasses.replace(run, data=dataclasses.replace(run.data, valid=str(write_text(tmp_path, seed=9))))
    refused(elsewhere, half, r'got a run of data\.valid = "", expected "/', UsageError)
    for key, was, now in (("batch", 2, 3), ("seed", 0, 5), ("init", "", str(whole / "model"))):
        match = rf"got a run of train\.{key} = {json.dumps(was)}, expected {json.dumps(now)}\.\n"
        refused(make_run(text, **{key: now}), half, match, UsageError)
    both = apply_sets(make_run(text, batch=3), ["brain.hippocampus.rebind=true"])
    refused(both, half, r"hippocampus\.rebind = false, expected true; train\.batch = 2, expected 3\.\n", UsageError)


def test_another_tokenizer_or_text_is_refused(half, tmp_path_factory):
    folder = tmp_path_factory.mktemp("text2")
    text, out = write_text(folder), folder / "run"
    with pytest.raises(KeyboardInterrupt):
        loop.train(make_run(text), out, report=stop_at(2))
    kept = (out / "tokenizer.json").read_bytes()
    other = write_text(tmp_path_factory.mktemp("other"), seed=9)
    loop.train(make_run(other, steps=1), folder / "second")
    (out / "tokenizer.json").write_bytes((folder / "second" / "tokenizer.json").read_bytes())
    refused(make_run(text), out, "made with another tokenizer")
    (out / "tokenizer.json").write_bytes(kept)
    (text / "0.txt").write_text("another text, of another length.\n" * 20, encoding="utf-8")
    refused(make_run(text), out, "the training text is not the one this run began with")


def test_a_damaged_log_is_refused(text, half):
    (half / "log.jsonl").write_text("not json\n", encoding="utf-8")
    refused(make_run(text), half, r"log.jsonl: not a log of this program \(.*\)\.\nDelete it")


def test_checkpoints_leave_no_litter(whole):
    names = {path.name for path in whole.iterdir()}
    assert names == {"checkpoint.safetensors", "config.toml", "log.jsonl", "model", "tokenizer.json"}
    kept = {"config.json", "model.safetensors", "tokenizer.json", "training_text.safetensors"}
    assert {path.name for path in (whole / "model").iterdir()} == kept


def test_learning_rate_warms_up_and_ends_at_its_share():
    t = TrainConfig(steps=100, warmup_steps=10, learning_rate=1.0, final_share=0.1)
    rates = [loop.learning_rate(t, step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[10] == 1.0
    assert rates[100] == pytest.approx(0.1) and loop.learning_rate(t, 1000) == pytest.approx(0.1)
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)


def test_clipping_scales_the_joint_norm():
    a, b = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))
    a.grad, b.grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    assert loop.clip_gradient([a, b, torch.nn.Parameter(torch.zeros(1))], 10.0) == pytest.approx(5.0)
    assert a.grad.tolist() == [3.0, 0.0]
    assert loop.clip_gradient([a, b], 1.0) == pytest.approx(5.0)
    assert a.grad.tolist() == pytest.approx([0.6, 0.0]) and b.grad.tolist() == pytest.approx([0.8])


def test_the_law_can_fail(text, whole, tmp_path, monkeypatch):
    """A checkpoint that forgets the optimizer's moments does not pass."""
    restore = checkpoint.restore

    def forgetful(path, brain, optimizer, *rest):
        fresh = optimizer.state_dict()
        found = restore(path, brain, optimizer, *rest)
        optimizer.load_state_dict(fresh)
        return found

    monkeypatch.setattr(loop.checkpoint, "restore", forgetful)
    with pytest.raises(KeyboardInterrupt):
        loop.train(make_run(text), tmp_path, report=stop_at(5))
    loop.train(make_run(text), tmp_path)
    with pytest.raises(AssertionError):
        assert_equal_runs(tmp_path, whole)


assert atomic.os is os  # what KILLER patches


def test_annealing_from_membranes_to_spikes_goes_on_where_it_stopped(text, tmp_path):
    """What is read in training is set by the step, so that a stop in the middle of annealing changes nothing."""
    spikes = ["mixers=recurrence,recurrence", "feedforwards=spiking,spiking", "encoding=spikes", "burst=3"]
    sets = ["brain.procedural.enabled=false", *(f"brain.cortex.{item}" for item in spikes)]
    run = apply_sets(make_run(text, steps=6, eval_every=3, spike_anneal=0.9), sets)
    loop.train(run, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        loop.train(run, tmp_path / "stopped", report=stop_at(2))
    brain = loop.train(run, tmp_path / "stopped")
    assert_equal_runs(tmp_path / "stopped", tmp_path / "whole")
    encoders = [part for part in brain.modules() if isinstance(part, SpikingEncoder)]
    assert len(encoders) == 6 and all(part.membrane_share == 0.0 for part in encoders)
