"""Law: two processes that share a batch take the steps of one, stop together, and read each other's checkpoints.

In float64, so that what is left is rounding and no spike comes or goes by it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import backends
import neuro
from neuro import config, presets, tensor_file
from neuro.config import RunConfig
from neuro.train import checkpoint, distributed, loop

STEPS, BATCH = 6, 4
ROOT = str(Path(neuro.__file__).parents[1])
WORKER = """
import dataclasses, json, os, signal, sys
from pathlib import Path
import torch
import backends
from neuro import config
from neuro.errors import NeuroError
from neuro.train import distributed, loop, objective

torch.set_num_threads(1)
base, select = Path(sys.argv[1]), backends.select
backends.select = lambda name: dataclasses.replace(select(name, torch.float64), autocast=None)
window_loss, divide = objective.window_loss, distributed.Shares.divide
rank, said = int(os.environ["RANK"]), {}


def counted(team, brain, adam):
    divide(team, brain, adam)
    own = [p.to_local() if hasattr(p, "to_local") else p for p in brain.parameters()]
    said["share"] = sum(p.numel() for p in own) / sum(p.numel() for p in brain.parameters())


distributed.Shares.divide = counted
for job in json.loads((base / "jobs.json").read_text()):
    os.environ["MASTER_PORT"] = str(job["port"])
    calls = []

    def acted(*given):
        calls.append(None)
        now = rank == 1 and len(calls) == job["at"]
        if now and job["act"] == "SIGINT":
            signal.raise_signal(signal.SIGINT)
        loss = window_loss(*given)
        return loss._replace(total=loss.total * float("nan")) if now and job["act"] == "NaN" else loss

    objective.window_loss = acted
    seen = []
    try:
        brain = loop.train(config.load(base / job["toml"], job["sets"]), base / job["out"], "cpu", seen.append)
        weights = brain.state_dict()
        said[job["name"]] = "done %d %.6f" % (len(seen), sum(float(w.double().sum()) for w in weights.values()))
    except KeyboardInterrupt:
        said[job["name"]] = "interrupted %d" % len(calls)
    except NeuroError as error:
        said[job["name"]] = f"{type(error).__name__}: {error}"
(base / f"said{rank}.json").write_text(json.dumps(said))
"""
JOBS = [  # name, folder, what the second process does at which of its steps, overrides
    ("ddp", "ddp", "", 0, ["parallel=ddp"]),
    ("fsdp", "fsdp", "", 0, ["parallel=fsdp"]),
    ("parts", "parts", "", 0, ["parallel=ddp", "accumulate=2"]),
    ("task", "task", "", 0, ["parallel=ddp"]),
    ("on by ddp", "relay", "SIGINT", 2, ["parallel=ddp"]),  # from step 1 to 3
    ("on by fsdp", "relay", "SIGINT", 2, ["parallel=fsdp"]),  # from step 3 to 5
    ("broken by ddp", "broken ddp", "NaN", 3, ["parallel=ddp"]),
    ("broken by fsdp", "broken fsdp", "NaN", 3, ["parallel=fsdp"]),
    ("uneven", "uneven", "", 0, ["parallel=ddp", "batch=6", "accumulate=2"]),
    ("not shared", "alone", "", 0, []),
]


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@pytest.fixture(scope="module")
def float64():
    """Training computes in float64 here, as in the workers."""
    patch, select = pytest.MonkeyPatch(), backends.select

    def exact(name: str) -> backends.Backend:
        return dataclasses.replace(select(name, torch.float64), autocast=None)

    patch.setattr(distributed.backends, "select", exact)
    yield
    patch.undo()


def interrupt_at(step: int):
    def report(record) -> None:
        if record["event"] == "step" and record["step"] == step:
            signal.raise_signal(signal.SIGINT)

    return report


@pytest.fixture(scope="module")
def runs(tmp_path_factory, float64) -> Path:
    """One process's runs ``whole`` and ``whole task``, and after them every job in two processes."""
    if not torch.distributed.is_available() or os.name != "posix":
        pytest.skip("torch.distributed with gloo is needed")
    base = tmp_path_factory.mktemp("parallel")
    torch.set_num_threads(1)
    words = " ".join(f"{chr(97 + i % 7)}{chr(98 + i % 11)}{chr(99 + i % 5)}" for i in range(900))
    (base / "text.txt").write_text(words, encoding="utf-8")
    tiny = presets.tiny()
    chosen = dict(steps=STEPS, batch=BATCH, eval_every=3, eval_tokens=64, rehearsal=0.5, memory_dropout=0.5)
    train = dataclasses.replace(tiny.train, **chosen)
    text = RunConfig(tiny.brain, dataclasses.replace(tiny.data, train=str(base / "text.txt")), train)
    task = RunConfig(tiny.brain, dataclasses.replace(tiny.data, train="task:mqar:T=32,pairs=2"), train)
    for name, run in (("text", text), ("task", task)):
        (base / f"{name}.toml").write_text(config.to_toml(run), encoding="utf-8")
    loop.train(text, base / "whole", "cpu")
    loop.train(task, base / "whole task", "cpu")
    with pytest.raises(KeyboardInterrupt):
        loop.train(text, base / "relay", "cpu", interrupt_at(1))
    named = ("name", "out", "act", "at", "sets")
    jobs = [dict(zip(named, job, strict=True)) for job in JOBS]
    for job, port in zip(jobs, free_ports(len(jobs)), strict=True):
        job["port"], job["toml"] = port, "task.toml" if job["name"] == "task" else "text.toml"
        job["sets"] = [f"train.{item}" for item in job["sets"]]
    (base / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
    workers = []
    for rank in range(2):
        rank_of = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        threads = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": ROOT}
        command = [sys.executable, "-c", WORKER, str(base)]
        workers.append(subprocess.Popen(command, env=os.environ | rank_of | threads, stderr=subprocess.PIPE, text=True))
    complaints = [worker.communicate(timeout=900)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], complaints
    return base


def said(runs: Path, name: str) -> list:
    return [json.loads((runs / f"said{rank}.json").read_text())[name] for rank in range(2)]


def assert_equal_runs(out: Path, whole: Path) -> None:
    mine, header = tensor_file.read(out / "checkpoint.safetensors", checkpoint.SCHEMA)
    truth, expected = tensor_file.read(whole / "checkpoint.safetensors", checkpoint.SCHEMA)
    assert mine.keys() == truth.keys()
    for name, tensor in truth.items():
        torch.testing.assert_close(mine[name], tensor, rtol=1e-6, atol=1e-8, msg=name)
    for record in (header, expected):
        record["progress"].pop("seconds")
        record["config"].pop("train")
    assert header == expected
    logs = [[json.loads(x) for x in (f / "log.jsonl").read_text().splitlines()] for f in (out, whole)]
    assert len(logs[0]) == len(logs[1]) == STEPS + 2
    for ours, theirs in zip(*logs, strict=True):
        assert ours.pop("event") == theirs.pop("event")
        ours.pop("seconds", None), theirs.pop("seconds", None)
        assert ours == pytest.approx(theirs, rel=1e-6)  # the norm is in float32
    weights = tensor_file.read(out / "model" / "model.safetensors", "neuro.model/1")[0]
    for name, tensor in tensor_file.read(whole / "model" / "model.safetensors", "neuro.model/1")[0].items():
        torch.testing.assert_close(weights[name], tensor, rtol=2e-3, atol=1e-6, msg=name)  # they are float16


@pytest.mark.parametrize("name", ["ddp", "fsdp", "parts"])
def test_two_processes_learn_what_one_learns(name, runs):
    first, second = said(runs, name)
    assert first.startswith(f"done {STEPS + 2} ") and second.startswith("done 0 ")  # one of them reports
    assert first.split()[2] == second.split()[2]  # both return the model
    assert_equal_runs(runs / name, runs / "whole")


def test_shares_are_halves(runs):
    first, second = said(runs, "share")
    assert 0.45 < first < 0.6 and 0.4 < second < 0.55
    assert 1.0 <= first + second < 1.01  # scalars are everywhere


def test_they_share_a_task(runs):
    assert_equal_runs(runs / "task", runs / "whole task")


def test_an_interrupt_of_one_stops_both_and_any_number_goes_on_exactly(runs, float64):
    assert said(runs, "on by ddp") == ["interrupted 2"] * 2
    assert said(runs, "on by fsdp") == ["interrupted 2"] * 2
    _, header = tensor_file.read(runs / "relay" / "checkpoint.safetensors", checkpoint.SCHEMA)
    if header["progress"]["step"] < STEPS:
        assert header["progress"]["step"] == 5
    loop.train(config.load(runs / "text.toml"), runs / "relay", "cpu")
    assert_equal_runs(runs / "relay", runs / "whole")


@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_nan_in_one_stops_both_with_the_state_before_it(mode, runs):
    for text in said(runs, f"broken by {mode}"):
        assert text.startswith("NeuroError: train: the gradient of step 3 is not finite (loss ")
        assert text.split("\n")[1].startswith("The state before it is saved in ")
    tensors, header = tensor_file.read(runs / f"broken {mode}" / "checkpoint.safetensors", checkpoint.SCHEMA)
    assert header["progress"]["step"] == 2
    assert all(torch.isfinite(x).all() for x in tensors.values() if x.is_floating_point())


def test_what_cannot_be_shared_is_refused(runs):
    assert (
        said(runs, "uneven")
        == [
            "UsageError: train.batch: got 6, expected a multiple of 4 (2 processes of 2 parts).\n"
            "Change train.batch, or the number of processes."
        ]
        * 2
    )
    assert (
        said(runs, "not shared")
        == [
            "UsageError: train.parallel: got none in one of 2 processes, expected ddp or fsdp.\n"
            "Set train.parallel=ddp, or start it without torchrun."
        ]
        * 2
    )
    assert not (runs / "uneven").exists() and not (runs / "alone").exists()
