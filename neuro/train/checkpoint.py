"""Checkpoints: weights, optimizer, brain state, data position (with its random state) in one atomic safetensors file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from neuro import config as configs
from neuro import tensor_file
from neuro.brain import Brain
from neuro.config import RunConfig
from neuro.errors import FormatError, UsageError
from neuro.folder import load_weights
from neuro.state import BrainState, leaves, replace_leaves
from neuro.train.average import Average
from neuro.train.distributed import Team
from neuro.train.examples import Examples
from neuro.train.optimizer import Joined
from neuro.train.streams import Streams

SCHEMA = "neuro.checkpoint/1"
FIXED = (
    "batch",
    "seed",
    "init",
    "optimizer",
    "spelling",
    "only",
)  # of [train]: the state has so many rows, and the others are spent


def save(
    path: Path,
    brain: Brain,
    optimizer: torch.optim.Optimizer | Joined,
    average: Average,
    state: BrainState,
    streams: Streams | Examples,
    run: RunConfig,
    progress: dict[str, Any],
    team: Team,
) -> None:
    """Everything that the next step depends on, of all processes, written by the first; none goes on before it is."""
    weights = {
        f"model.{name}": team.whole(tensor)
        for name, tensor in brain.state_dict().items()
        if "readout.weight" not in name
    }
    moments = {
        f"optimizer.{index}.{name}": team.whole(tensor)
        for index, values in optimizer.state_dict()["state"].items()
        for name, tensor in values.items()
    }
    carried = {f"state.{name}": tensor for name, tensor in leaves(team.gather(state))}
    means = {f"average.{name}": tensor for name, tensor in average.means.items()}
    header = {
        "schema": SCHEMA,
        "config": configs.to_dict(run),
        "streams": streams.state(),
        "progress": progress,
        "averaged": average.updates,
        "tokenizer": brain.tokenizer.fingerprint,
    }
    if team.rank == 0:
        tensor_file.write(path, weights | moments | means | carried, header)
    team.wait()


def restore(
    path: Path,
    brain: Brain,
    optimizer: torch.optim.Optimizer | Joined,
    average: Average,
    state: BrainState,
    streams: Streams | Examples,
    run: RunConfig,
) -> tuple[BrainState, dict[str, Any]]:
    """Put a checkpoint back into freshly made parts -> (state, progress).

    Brain, data, tokenizer and ``FIXED`` must be the checkpoint's; the rest of ``[train]`` may change (a longer run, another
    learning rate, more processes).

    Raises:
        UsageError: the run asked for is another one: of another brain, other data or another of ``FIXED``.
        FormatError: truncated, foreign, or made with another tokenizer.
    """
    tensors, header = tensor_file.read(path, SCHEMA)
    for part in ("config", "streams", "progress", "tokenizer"):
        if part not in header:
            raise FormatError(f"{path}: its header lacks '{part}'.", "It is foreign: use another copy.")
    changed = _changed(header["config"], configs.to_dict(run))
    if changed:
        raise UsageError(
            f"{path}: got a run of {'; '.join(changed)}.",
            "Resume with the configuration saved beside it (config.toml), or choose another --out.",
        )
    if header["tokenizer"] != brain.tokenizer.fingerprint:
        raise FormatError(f"{path}: it was made with another tokenizer.", "Put the run's tokenizer.json back.")

    def group(prefix: str) -> dict[str, torch.Tensor]:
        return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

    load_weights(brain, group("model."), str(path))
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in group("optimizer.").items():
        index, key = name.split(".", 1)
        moments.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    means = group("average.")
    if set(means) != set(average.means):
        raise FormatError(
            f"{path}: it averages {len(means)} tensors, this run {len(average.means)}.",
            "Set train.average and train.only back, or choose another --out.",
        )
    tensor_file.check_shapes(means, average.means, str(path))
    for name, mean in average.means.items():
        mean.copy_(means[name])
    average.updates = header.get("averaged", 0)
    carried = group("state.")
    tensor_file.check_shapes(carried, dict(leaves(state)), str(path))
    state = replace_leaves(state, [carried[name].to(leaf.device) for name, leaf in leaves(state)])
    streams.restore(header["streams"])
    return state, header["progress"]


def _changed(stored: dict[str, Any], own: dict[str, Any], at: str = "") -> list[str]:
    """Each key that a run cannot change, as ``key = stored, expected own``."""
    found = []
    for key in {**stored, **own}:
        path, was, now = f"{at}{key}", stored.get(key), own.get(key)
        if isinstance(was, dict) and isinstance(now, dict):
            found += _changed(was, now, f"{path}.")
        elif was != now and (at != "train." or (key in FIXED and key in stored)):
            found.append(f"{path} = {json.dumps(was)}, expected {json.dumps(now)}")
    return found
