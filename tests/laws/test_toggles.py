"""Law: every field of the configuration is alive. Changing it alone moves logits, gradients, parameters or state.

The tests run over the fields that the dataclasses have: a new field without a value to try here fails.
"""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

import backends
from neuro import folder as model_folder
from neuro import presets
from neuro.brain import Brain
from neuro.config import BrainConfig, DataConfig, RunConfig, TrainConfig, apply_sets
from neuro.state import leaves
from neuro.tokenizer import Tokenizer
from neuro.train import loop, objective

# Half of a span is written, so that the controller has a choice to make.
BASE = ["cortex.mixers=recurrence,window", "cortex.feedforwards=spiking,dense", "hippocampus.writes_per_span=8"]
# Another valid value of every field, and what has to move: with the same weights wherever shapes allow it.
BRAIN: dict[str, tuple[str, set[str]]] = {
    "vocab_size": ("310", {"parameters", "state shapes"}),
    "d_model": ("48", {"parameters", "state shapes"}),
    "plasticity_span": ("24", {"state shapes", "logits"}),
    "prosody_channels": ("2", {"parameters"}),
    "thalamus.enabled": ("false", {"parameters", "logits"}),
    "thalamus.route_budget": ("0.3", {"gradients"}),
    "thalamus.skips": ("layer", {"parameters", "logits"}),
    "amygdala.enabled": ("false", {"parameters", "state shapes", "logits"}),
    "amygdala.hidden": ("12", {"parameters"}),
    "amygdala.half_life_tokens": ("2", {"logits"}),
    "amygdala.prosody_gain": ("2.0", {"logits"}),
    "endocrine.enabled": ("false", {"parameters", "state shapes", "logits"}),
    "endocrine.off": ("serotonin", {"logits", "gradients"}),
    "endocrine.half_lives_tokens": ("6,32,128,1024,512", {"logits"}),
    "endocrine.modulates_decay": ("true", {"parameters"}),
    "endocrine.temperature_octaves": ("1.0", set()),  # of sampling alone: tests/units/test_endocrine.py
    "cortex.enabled": ("false", {"parameters", "state shapes", "logits"}),
    "cortex.mixers": ("window,recurrence", {"parameters", "state shapes"}),
    "cortex.feedforwards": ("dense,spiking", {"parameters", "state shapes"}),
    "cortex.heads": ("4", {"state shapes", "logits"}),
    "cortex.window": ("5", {"state shapes", "logits"}),
    "cortex.feedforward_width": ("60", {"parameters", "state shapes"}),
    "cortex.branches": ("3", {"parameters"}),
    "cortex.encoding": ("spikes", {"parameters", "logits"}),
    "cortex.burst": ("3", {"logits"}),
    "cortex.tau_mem_ms": ("4.0", {"logits"}),
    "cortex.dt_ms": ("0.5", {"logits"}),
    "cortex.v_threshold": ("0.7", {"logits"}),
    "cortex.surrogate_slope": ("10.0", {"gradients"}),
    "cortex.rate_target": ("0.15", {"gradients"}),
    "hippocampus.enabled": ("false", {"parameters", "state shapes", "logits"}),
    "hippocampus.place_cells": ("80", {"parameters"}),
    "hippocampus.sparsity": ("0.3", {"logits"}),
    "hippocampus.learned_sparsity": ("true", {"parameters", "logits"}),
    "hippocampus.key_width": ("20", {"parameters", "state shapes"}),
    "hippocampus.slots": ("20", {"state shapes", "logits"}),
    "hippocampus.top_k": ("1", {"logits"}),
    "hippocampus.writes_per_span": ("2", {"logits"}),
    "hippocampus.controller": ("periodic", {"logits"}),
    "hippocampus.tag": ("true", {"parameters"}),  # the controller "tagged" asks it
    "hippocampus.half_life_tokens": ("8.0", {"logits"}),
    "hippocampus.contiguity": ("0.5", {"logits"}),
    "hippocampus.segments": ("true", {"state shapes"}),  # no event begins so soon: tests/laws/test_contiguity.py
    "hippocampus.rebind": ("true", {"logits"}),
    "hippocampus.key_trace": ("0.6", {"logits"}),
    "hippocampus.key_direct": ("true", {"parameters", "logits"}),
    "hippocampus.time_cells": ("6", {"parameters", "state shapes", "logits"}),
    "hippocampus.phrase": ("0.4", {"state shapes", "logits"}),
    "hippocampus.pointer": ("true", {"parameters", "state shapes", "logits"}),
    "procedural.enabled": ("false", {"parameters", "state shapes", "logits"}),
    "procedural.rule": ("delta", {"parameters", "state shapes", "logits"}),
    "procedural.rank": ("3", {"parameters", "state shapes"}),
    "procedural.rate": ("0.002", {"logits"}),
    "procedural.half_life_tokens": ("8.0", {"logits"}),
    "procedural.max_step": ("0.01", {"logits"}),
    "procedural.max_norm": ("0.01", {"logits"}),
    "procedural.through_dense": ("true", {"state shapes", "logits"}),
    "procedural.natural": ("true", {"parameters"}),  # the precision begins as the identity
    "procedural.outward_half_life_tokens": ("20.0", {"parameters", "state shapes", "logits"}),
    "procedural.bias_rate": ("0.3", {"state shapes", "logits"}),
    "procedural.bias_half_life_tokens": ("8.0", {"logits"}),
}
# What a field needs that is not so in BASE.
NEEDS = {
    "cortex.encoding": [
        "cortex.mixers=recurrence,recurrence",
        "cortex.feedforwards=spiking,spiking",
        "procedural.enabled=false",
    ],
    "cortex.branches": ["cortex.feedforwards=spiking,branched"],
}
NEEDS["procedural.bias_half_life_tokens"] = ["procedural.bias_rate=0.3"]
NEEDS["hippocampus.segments"] = ["hippocampus.contiguity=0.5"]
NEEDS["cortex.burst"] = [*NEEDS["cortex.encoding"], "cortex.encoding=spikes"]
# Fields that change nothing in the forward pass of given weights, and must not: they only shape the learning.
LEARNING_ONLY = {"thalamus.route_budget", "cortex.surrogate_slope", "cortex.rate_target"}


def fields(kind: type, prefix: str = "") -> list[str]:
    """Dotted paths of every leaf."""
    found = []
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(field.default):
            found += fields(type(field.default), f"{prefix}{field.name}.")
        else:
            found.append(prefix + field.name)
    return found


def measure(brain, ids) -> dict[str, Any]:
    """What a change could move, over three spans with prosody."""
    prosody = torch.ones(*ids.shape, brain.config.prosody_channels)
    state, logits = brain.init_state(ids.shape[0]), []
    shapes = {name: tuple(leaf.shape) for name, leaf in leaves(state)}
    with torch.no_grad():
        at = 0
        while at < ids.shape[1]:
            part = slice(at, min(ids.shape[1], at + brain.remaining(state)))
            out = brain.scan(ids[:, part], state, prosody[:, part])
            logits.append(out.logits)
            at += part.stop - part.start
            state = brain.commit(out.state)[0] if brain.remaining(out.state) == 0 else out.state
    brain.zero_grad()
    loss = objective.window_loss(brain, ids[:, :48], brain.init_state(ids.shape[0]), presets.tiny().train)
    loss.total.backward()
    grads = {name: None if p.grad is None else p.grad.clone() for name, p in brain.named_parameters()}
    return {
        "parameters": {name: tuple(p.shape) for name, p in brain.named_parameters()},
        "state shapes": shapes,
        "logits": torch.cat(logits, 1),
        "gradients": grads,
    }


def moved(a: dict[str, Any], b: dict[str, Any]) -> set[str]:
    found = {name for name in ("parameters", "state shapes") if a[name] != b[name]}
    if a["logits"].shape == b["logits"].shape and float((a["logits"] - b["logits"]).abs().max()) > 1e-4:
        found.add("logits")
    for name, grad in a["gradients"].items():
        other = b["gradients"].get(name)
        if (grad is None) != (other is None):
            found.add("gradients")
        elif grad is not None and grad.shape == other.shape and not torch.allclose(grad, other, atol=1e-7):
            found.add("gradients")
    return found


def with_weights_of(brain, other):
    """The same weights wherever name and shape agree, so that a new draw is not taken for an effect."""
    weights = other.state_dict()
    fits = {name: x for name, x in brain.state_dict().items() if name in weights and weights[name].shape == x.shape}
    brain.load_state_dict(brain.state_dict() | {name: weights[name] for name in fits})
    return brain


@pytest.fixture(scope="module")
def base(tiny_brain):
    return tiny_brain(BASE)


def test_there_is_a_value_to_try_for_every_field():
    assert fields(BrainConfig) == list(BRAIN)
    assert fields(TrainConfig) == list(TRAIN)
    assert fields(DataConfig) == list(DATA)
    assert {field.name for field in dataclasses.fields(RunConfig)} == {"brain", "data", "train"}


@pytest.mark.parametrize("field", fields(BrainConfig))
def test_every_field_of_the_brain_is_alive(field, base, tiny_brain, tokens):
    value, expected = BRAIN[field]
    sets = [*BASE, *NEEDS.get(field, [])]
    if field in NEEDS:
        base = tiny_brain(sets)
    changed = with_weights_of(tiny_brain([*sets, f"{field}={value}"]), base)
    assert changed.config != base.config
    ids = torch.cat(
        [tokens(2, 35), tokens(2, 7, seed=1).repeat(1, 5)], 1
    )  # half of it comes again: keys that are stored
    found = moved(measure(base, ids), measure(changed, ids))
    assert expected <= found, f"{field}={value} moved only {found or 'nothing'}: is it a dead flag?"
    if field in LEARNING_ONLY:
        assert found == {"gradients"}


def test_the_same_configuration_moves_nothing(base, tiny_brain, tokens):
    """Or the test above could not fail."""
    twin = with_weights_of(tiny_brain(BASE, seed=5), base)
    ids = tokens(2, 70)
    assert moved(measure(base, ids), measure(twin, ids)) == set()


def test_every_parameter_of_the_brain_gets_a_gradient_and_moves_logits(base, tokens):
    """A parameter without effect is a dead one. (Prosody is not silent here.)"""
    ids, prosody = tokens(2, 48), torch.ones(2, 48, 3)
    state, loss = base.init_state(2), torch.zeros(())
    base.zero_grad()
    for at in (0, 16, 32):
        out = base.scan(ids[:, at : at + 16], state, prosody[:, at : at + 16])
        loss, state = loss + out.aux.surprise.sum(), base.commit(out.state)[0]
    loss.backward()
    dead = [name for name, p in base.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


TRAIN: dict[str, str] = {
    "steps": "5",
    "batch": "3",
    "spans_per_step": "3",
    "optimizer": "muon",
    "learning_rate": "0.004",
    "weight_decay": "0.5",
    "sampled": "64",
    "dropout": "0.3",
    "embedding_dropout": "0.3",
    "spelling": "40",
    "average": "0.9",
    "quantize": "int4",
    "only": "cortex",
    "warmup_steps": "3",
    "final_share": "0.9",
    "clip_norm": "0.1",
    "rate_weight": "1.0",
    "place_weight": "20.0",
    "route_weight": "50.0",
    "rehearsal": "0.9",
    "memory_dropout": "0.5",
    "spike_anneal": "0.5",
    "init": "start",
    "accumulate": "2",
    "checkpoint_activations": "true",
    "compile": "true",
    "parallel": "ddp",
    "mixed_precision": "false",
    "eval_every": "3",
    "eval_tokens": "64",
    "seed": "1",
}
# Fields that change how a step is computed and must not change what comes out: tests/laws of these names.
HOW = {
    "accumulate": "test_accumulation",
    "checkpoint_activations": "test_recomputation",
    "compile": "test_compiled",
    "parallel": "test_parallel",
}
DATA: dict[str, str] = {"train": "other.txt", "valid": "other.txt", "tokenizer": "words"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    for name, seed in (("text.txt", 0), ("other.txt", 1)):
        rng = random.Random(seed)
        words = ["".join(rng.choices("abcdefgh", k=rng.randint(1, 6))) for _ in range(60)]
        lines = [" ".join(rng.choices(words, k=9)) + "." for _ in range(300)]
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    torch.manual_seed(7)
    tokenizer = Tokenizer.train((folder / "text.txt").read_text(encoding="utf-8").split("\n"), 300)
    start = Brain(apply_sets(presets.tiny().brain, [f"vocab_size={tokenizer.vocab_size}"]))
    start.tokenizer = tokenizer
    model_folder.save(start, folder / "start")
    return folder


def train(folder: Path, out: Path, sets: list[str], monkeypatch) -> tuple[list[dict], dict[str, torch.Tensor]]:
    # Mixed precision is worth asking for on some CPUs only: here the backend always says that it is.
    select = backends.select
    chosen = dataclasses.replace(select("cpu"), autocast=torch.bfloat16)
    monkeypatch.setattr(loop.backends, "select", lambda name: chosen)
    short = ["steps=6", "batch=2", "spans_per_step=4", "warmup_steps=2", "eval_every=6", "eval_tokens=128"]
    base = [f"data.train={folder / 'text.txt'}", "train.rehearsal=0.3", *(f"train.{item}" for item in short)]
    for name in ("other.txt", "start"):
        sets = [item.replace(f"={name}", f"={folder / name}") for item in sets]
    brain = loop.train(apply_sets(presets.tiny(), [*base, *sets]), out)
    lines = (out / "log.jsonl").read_text(encoding="utf-8").split("\n")
    log = [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines if line]
    return log, {name: tensor.detach().clone() for name, tensor in brain.state_dict().items()}


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        return train(folder, tmp_path_factory.mktemp("base"), [], patch)


def differs(a, b) -> set[str]:
    found = {"log"} if a[0] != b[0] else set()
    same = a[1].keys() == b[1].keys() and all(torch.equal(x, b[1][name]) for name, x in a[1].items())
    return found if same else found | {"weights"}


def test_the_same_training_gives_the_same(folder, trained, tmp_path, monkeypatch):
    assert differs(trained, train(folder, tmp_path, [], monkeypatch)) == set()


def test_how_a_step_is_computed_has_laws_of_its_own():
    for field, name in HOW.items():
        assert field in Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("field", [field for field in fields(TrainConfig) if field not in HOW])
def test_every_field_of_the_training_is_alive(field, folder, trained, tmp_path, monkeypatch):
    needs = []
    if field == "spike_anneal":  # only a cortex of spikes has something to anneal
        needs = [f"brain.{item}" for item in NEEDS["cortex.burst"]]
    if field == "place_weight":  # only learned thresholds have a budget
        needs = ["brain.hippocampus.learned_sparsity=true"]
    if field in ("embedding_dropout", "spelling"):
        needs = ["train.sampled=64"]
    if needs:
        trained = train(folder, tmp_path / "base", needs, monkeypatch)
    found = differs(trained, train(folder, tmp_path / "set", [*needs, f"train.{field}={TRAIN[field]}"], monkeypatch))
    assert found == ({"log"} if field in ("eval_every", "eval_tokens") else {"log", "weights"})


@pytest.mark.parametrize("field", fields(DataConfig))
def test_every_field_of_the_data_is_alive(field, folder, trained, tmp_path, monkeypatch):
    found = differs(trained, train(folder, tmp_path, [f"data.{field}={DATA[field]}"], monkeypatch))
    assert "log" in found and ("weights" in found or field == "valid")
