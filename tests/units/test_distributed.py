"""The processes of a run: what starts, and what is refused in which words."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import backends
import neuro
from neuro import presets
from neuro.errors import MissingError, UsageError
from neuro.train import distributed
from neuro.train.distributed import Team
from neuro.train.shard import cut, join

TRAIN = presets.tiny().train
LAUNCHED = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


@pytest.fixture
def launched(monkeypatch):
    """As if torchrun had started this process as the first of two."""
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)


def refused(kind: type[Exception], backend: str = "cpu", **train) -> str:
    with pytest.raises(kind) as error, distributed.team(dataclasses.replace(TRAIN, **train), backend):
        pass
    return str(error.value)


def test_a_process_by_itself_shares_nothing():
    with distributed.team(TRAIN, "cpu") as (team, chosen):
        assert (type(team), team.rank, team.size, chosen.name) == (Team, 0, 1, "cpu")
        rows = torch.arange(6)
        assert team.own(rows) is rows and team.mean(rows) is rows and team.whole(rows) is rows
        assert team.any(True) and not team.any(False)
        assert team.signals == (signal.SIGINT,)
    assert not torch.distributed.is_initialized()


def test_parallel_without_torchrun_is_refused():
    assert refused(UsageError, parallel="fsdp") == (
        "train.parallel: got fsdp in a process by itself, expected one that torchrun started.\n"
        "Start it as: torchrun --nproc-per-node 2 -m neuro train CONFIG --set train.parallel=fsdp"
    )


def test_torchrun_without_parallel_is_refused(launched):
    assert refused(UsageError).startswith("train.parallel: got none in one of 2 processes, expected ddp or fsdp.\n")


def test_a_batch_that_does_not_divide_is_refused(launched):
    assert refused(UsageError, parallel="ddp", batch=5) == (
        "train.batch: got 5, expected a multiple of 2 (2 processes).\nChange train.batch, or the number of processes."
    )
    assert "got 6, expected a multiple of 4 (2 processes of 2 parts)." in refused(
        UsageError, parallel="ddp", batch=6, accumulate=2
    )
    with pytest.raises(
        UsageError, match=r"train\.accumulate: got 3, expected a divisor of train\.batch 4\.\nSet train"
    ):
        dataclasses.replace(TRAIN, batch=4, accumulate=3)
    with pytest.raises(UsageError, match=r"train\.parallel: got dp, expected none or ddp or fsdp\.\nSet train"):
        dataclasses.replace(TRAIN, parallel="dp")


def test_a_torch_without_what_it_takes_is_named(launched, monkeypatch):
    import torch.distributed.fsdp as fsdp

    monkeypatch.setattr(fsdp, "fully_shard", lambda module: module, raising=False)
    assert refused(MissingError, parallel="fsdp") == (
        f"train.parallel: got fsdp with torch {torch.__version__}, expected 2.7 or newer.\n"
        "Set train.parallel=ddp, or install a newer torch."
    )
    monkeypatch.setattr(torch.distributed, "is_available", lambda: False)
    assert refused(MissingError, parallel="ddp") == (
        "train.parallel: got a torch without torch.distributed, expected one with it.\nInstall another build of torch."
    )


def test_devices_that_cannot_speak_with_each_other_are_refused(launched, monkeypatch):
    assert refused(UsageError, backend="mps", parallel="ddp") == (
        "train.parallel: got backend mps, expected cpu or cuda.\nGive --backend cpu, or train in one process."
    )
    asked = []

    def select(name: str) -> backends.Backend:
        asked.append(name)
        raise backends.BackendError("none", "here")

    monkeypatch.setattr(backends, "select", select)
    monkeypatch.setenv("LOCAL_RANK", "1")
    refused(backends.BackendError, backend="cuda", parallel="ddp")
    assert asked == ["cuda:1"]  # each process a device of its own


def test_rows_are_cut_and_joined(tiny_brain):
    state = tiny_brain().init_state(4)
    state = state._replace(logits=torch.randn_like(state.logits))
    parts = [cut(state, slice(0, 1)), cut(state, slice(1, 4))]
    assert [part.started.shape[0] for part in parts] == [1, 3]
    whole = join(parts)
    assert torch.equal(whole.logits, state.logits) and torch.equal(whole.clock, state.clock)


def test_only_the_first_process_speaks(launched, monkeypatch):
    assert distributed.is_first()
    monkeypatch.setenv("RANK", "1")
    assert not distributed.is_first()


def test_torchrun_trains_from_the_command_line(tmp_path):
    """The whole way: two processes, one answer, one line of progress an evaluation."""
    if os.name != "posix":
        pytest.skip("gloo under torchrun is tried on POSIX alone")
    text = tmp_path / "text.txt"
    text.write_text("one two three four five six seven eight nine ten " * 60, encoding="utf-8")
    sets = [f"data.train={text}", "train.parallel=ddp", "train.steps=2", "train.eval_every=1", "train.eval_tokens=32"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "neuro"]
    command += ["train", "tiny", "--json", "--backend", "cpu", "--out", str(tmp_path / "run")]
    command += [word for item in sets for word in ("--set", item)]
    threads = {
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": str(Path(neuro.__file__).parents[1]),
    }
    found = subprocess.run(command, env=os.environ | threads, capture_output=True, text=True, timeout=600)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["schema"] == "neuro.train/1"
    assert [line.split()[1] for line in found.stderr.splitlines() if line.startswith("step ")] == ["1/2", "2/2"]
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [record["event"] for record in log] == ["step", "eval"] * 2
