"""Shared fixtures: small brains with every pathway alive, token ids, a driver that cuts anywhere, the data folder.

Factories are fixtures that return functions, so that tests under ``--import-mode=importlib`` need no import from here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import backends
from backends import Ops
from neuro import atomic, presets
from neuro.brain import Brain
from neuro.config import apply_sets, to_dict
from neuro.events import CommitEvents
from neuro.state import BrainState, leaves

REGIONS = ("thalamus", "amygdala", "endocrine", "hippocampus")
LAYERS = {
    "spiking only": ["cortex.feedforwards=spiking,spiking"],
    "dense only": ["cortex.feedforwards=dense,dense"],
    "recurrence only": ["cortex.mixers=recurrence,recurrence", "cortex.feedforwards=spiking,spiking"],
    "spikes before every product": [
        "cortex.encoding=spikes",
        "cortex.burst=2",
        "cortex.mixers=recurrence,recurrence",
        "cortex.feedforwards=spiking,spiking",
        "procedural.enabled=false",
    ],
    "window only": ["cortex.mixers=window,window"],
    "window first": ["cortex.mixers=window,recurrence", "cortex.feedforwards=dense,spiking"],
    "whole layers skipped": ["thalamus.skips=layer"],
    "whole dense layers skipped": ["thalamus.skips=layer", "cortex.feedforwards=dense,spiking", "cortex.window=5"],
    "whole layers of spikes skipped": [
        "thalamus.skips=layer",
        "cortex.encoding=spikes",
        "cortex.burst=2",
        "cortex.mixers=recurrence,recurrence",
        "cortex.feedforwards=spiking,spiking",
        "procedural.enabled=false",
    ],
    "branched feed-forwards": ["cortex.feedforwards=branched,spiking"],
    "branched layers skipped": ["thalamus.skips=layer", "cortex.feedforwards=spiking,branched", "cortex.branches=3"],
    "window longer than two spans": ["cortex.window=40"],
    "hormones on decay": ["endocrine.modulates_decay=true"],
    "a hormone at rest": ["endocrine.off=serotonin"],
    "no cortex": ["cortex.enabled=false"],
    "no cortex and no thalamus": ["cortex.enabled=false", "thalamus.enabled=false"],
    "no procedural memory": ["procedural.enabled=false"],
    "delta rule": ["procedural.rule=delta"],
    "errors through dense layers": ["procedural.through_dense=true"],
    "errors through dense layers that are skipped": [
        "procedural.through_dense=true",
        "thalamus.skips=layer",
        "cortex.feedforwards=dense,spiking",
    ],
    "delta rule on errors through dense layers": ["procedural.through_dense=true", "procedural.rule=delta"],
    "rebinding": ["hippocampus.rebind=true"],
    "contiguity": ["hippocampus.contiguity=0.3"],
    "contiguity within events": ["hippocampus.contiguity=0.3", "hippocampus.segments=true"],
    "keys of several tokens": ["hippocampus.key_trace=0.6"],
    "phrases": ["hippocampus.phrase=0.4"],
    "time in the keys": ["hippocampus.time_cells=6"],
    "learned sparsity": ["hippocampus.learned_sparsity=true"],
    "a pointer": ["hippocampus.pointer=true", "hippocampus.key_direct=true"],
    "natural": ["procedural.natural=true", "procedural.through_dense=true"],
    "fast weights on what the cortex says": ["procedural.outward_half_life_tokens=40"],
    "natural, with fast weights on what the cortex says": [
        "procedural.natural=true",
        "procedural.outward_half_life_tokens=40",
        "procedural.through_dense=true",
    ],
    "a fast bias": ["procedural.bias_rate=0.05"],
    "a fast bias of its own half-life": ["procedural.bias_rate=0.05", "procedural.bias_half_life_tokens=20"],
    "random writes": ["hippocampus.controller=random", "hippocampus.writes_per_span=3"],
    "tagged writes": ["hippocampus.tag=true", "hippocampus.controller=tagged", "hippocampus.writes_per_span=3"],
    "few writes": [
        "hippocampus.controller=learned",
        "hippocampus.writes_per_span=3",
        "hippocampus.slots=5",
        "hippocampus.top_k=2",
    ],
}


def _toggles() -> dict[str, list[str]]:
    """Each region off alone, each on alone, all on and all off, so any two in every way; and every kind of cortex."""
    found = {}
    for few in (0, 1, len(REGIONS) - 1, len(REGIONS)):
        for off in itertools.combinations(REGIONS, few):
            found["no " + "+".join(off) if off else "everything on"] = [f"{name}.enabled=false" for name in off]
    return found | LAYERS


TOGGLES = _toggles()


MEASURED = pytest.StashKey[dict[str, Any]]()


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[[str, Any], None]:
    """``measured(name, value)``: kept for the summary of ``pytest -v``; of numbers, the largest over all parameters."""
    found = request.config.stash.setdefault(MEASURED, {})

    def keep(name: str, value: Any) -> None:
        _keep_largest(found, {f"{request.path.stem}::{request.function.__name__} {name}": value})

    return keep


def _keep_largest(found: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        old = found.get(key)
        found[key] = max(old, value) if isinstance(value, int | float) and old is not None else value


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """What one of several processes measured."""
    found = node.config.stash.setdefault(MEASURED, {})
    _keep_largest(found, getattr(node, "workeroutput", {}).get("measured", {}))


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        found = session.config.stash.get(MEASURED, {})
        output["measured"] = {k: v if isinstance(v, int | float | str) else str(v) for k, v in found.items()}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found = config.stash.get(MEASURED, {})
    if found and config.get_verbosity() >= 0:  # -q is the default here: -v is 0
        terminalreporter.section("measured")
        for key, value in sorted(found.items()):
            terminalreporter.write_line(f"{key} = {value:.3g}" if isinstance(value, float) else f"{key} = {value}")


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    """One thread, the same seed, and the global switches as they were."""
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)
    assert torch.get_default_dtype() == dtype
    assert torch.is_grad_enabled()


@pytest.fixture(params=list(TOGGLES), ids=lambda name: name.replace(" ", "_"))
def toggles(request: pytest.FixtureRequest) -> list[str]:
    """``--set`` overrides of the brain, one combination after the other."""
    return TOGGLES[request.param]


@pytest.fixture(scope="session")
def tiny_brain() -> Callable[..., Brain]:
    """Factory of tiny brains in which nothing is multiplied by a zero weight and spiking layers fire at 2 to 20 %."""

    def make(
        sets: Sequence[str] = (),
        seed: int = 0,
        ops: Ops | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> Brain:
        config = apply_sets(presets.tiny().brain, list(sets))
        backend = dataclasses.replace(backends.select("cpu", dtype=dtype), autocast=None)
        if ops is not None:
            backend = dataclasses.replace(backend, ops=ops)
        torch.manual_seed(seed)
        brain = Brain(config, backend, **options)
        generator = torch.Generator().manual_seed(seed + 1)
        with torch.no_grad():
            for name, p in brain.named_parameters():
                if not p.any():  # what starts at zero would hide what lies behind it
                    p.copy_(0.3 * torch.randn(p.shape, generator=generator))
                if name.endswith("depth.score.weight"):
                    p.mul_(10.0)  # tokens differ in which layers run for them,
                if config.skips_layers and name.endswith("thalamus.route.bias"):
                    p.zero_()  # and layers do not
                if name.endswith("memory.null.bias"):
                    p.zero_()  # recall competes with nothing from the first item on
        return brain

    return make


@pytest.fixture(scope="module")
def traced_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., None]]:
    """While a module runs, `onnx_graph.write` copies what any worker of this run traced from the same brain.

    Tracing is nine tenths of an export and leaves the same bytes (test_a_brain_traced_again_leaves_the_same_bytes);
    all that follows it runs every time. -> the function that traces.
    """
    pytest.importorskip("onnx")
    from export import onnx_graph

    own = tmp_path_factory.getbasetemp()
    shared = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "traced"
    trace = onnx_graph.write

    def write(brain: Brain, files: dict[str, Path], scatter: bool = True, raster: bool = False) -> None:
        said = json.dumps([to_dict(brain.config), scatter, raster], sort_keys=True)
        digest = hashlib.sha256(said.encode())
        for name, tensor in brain.state_dict().items():
            digest.update(name.encode() + tensor.detach().cpu().float().numpy().tobytes())
        place = shared / digest.hexdigest()
        if not all((place / name).is_file() for name in files):
            trace(brain, files, scatter=scatter, raster=raster)
            place.mkdir(parents=True, exist_ok=True)
            for name, file in files.items():
                with atomic.replacing(place / name) as temporary:
                    shutil.copyfile(file, temporary)
        for name, file in files.items():
            shutil.copyfile(place / name, file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_graph, "write", write)
        yield trace


@pytest.fixture(scope="session")
def tokens() -> Callable[..., Tensor]:
    """Factory of random ids [batch, length]."""

    def make(batch: int, length: int, seed: int = 0, vocab_size: int = 300) -> Tensor:
        return torch.randint(0, vocab_size, (batch, length), generator=torch.Generator().manual_seed(seed))

    return make


def gap(a: Tensor, b: Tensor) -> float:
    """The largest absolute difference; infinite where one of them is not a number (``max`` would overlook it)."""
    assert a.shape == b.shape
    worst = (a.detach().double() - b.detach().double()).abs().nan_to_num(nan=torch.inf)
    return float(worst.max()) if worst.numel() else 0.0


@dataclasses.dataclass
class Trace:
    """Everything that a run over several spans let out."""

    logits: Tensor  # [B, T, V]
    surprise: Tensor  # [B, T]
    spikes: Tensor  # [B, T, S] counts
    raster: Tensor | None  # [B, T, S, N]
    state: BrainState
    commits: list[CommitEvents]
    events: dict[str, Tensor]

    gap = staticmethod(gap)

    def leaves(self) -> dict[str, Tensor]:
        return dict(leaves(self.state))


@pytest.fixture(scope="session")
def drive() -> Callable[..., Trace]:
    """Runs tokens in pieces of the given lengths (cut at span boundaries, where it commits)."""

    def run(
        brain: Brain,
        ids: Tensor,
        state: BrainState | None = None,
        pieces: Sequence[int] | int | None = None,
        prosody: Tensor | None = None,
        valid: Tensor | None = None,
        commits: Sequence[int] = (),
        grad: bool = False,
    ) -> Trace:
        """``pieces``: lengths, repeated for as long as needed; None is as long as the span allows; 1 is `Brain.step`.

        ``commits``: token counts after which the span is ended early.
        """
        lengths = itertools.cycle([10**9] if pieces is None else [pieces] if isinstance(pieces, int) else pieces)
        state = brain.init_state(ids.shape[0]) if state is None else state
        outs, ends, start = [], [], 0
        with torch.set_grad_enabled(grad):
            while start < ids.shape[1]:
                until = min([stop for stop in commits if stop > start], default=ids.shape[1])
                end = min(start + next(lengths), start + brain.remaining(state), until, ids.shape[1])
                part = slice(start, end)
                p = None if prosody is None else prosody[:, part]
                if pieces == 1 and valid is None:
                    out = brain.step(ids[:, start], state, None if p is None else p[:, 0])
                    outs.append((out.logits.unsqueeze(1), out.events))
                else:
                    out = brain.scan(ids[:, part], state, p, None if valid is None else valid[:, part])
                    outs.append((out.logits, out.events))
                state, start = out.state, end
                if brain.remaining(state) == 0 or end in commits:
                    state, commit = brain.commit(state)
                    ends.append(commit)
        events = {
            name: torch.cat([getattr(e, name) for _, e in outs], 1)
            for name in outs[0][1]._fields
            if getattr(outs[0][1], name) is not None
        }
        logits = torch.cat([logits for logits, _ in outs], 1)
        return Trace(logits, events["surprise"], events["spikes"], events.get("raster"), state, ends, events)

    return run


@pytest.fixture(scope="session")
def neuro_data() -> Path:
    """The folder of real data; without the variable NEURO_DATA the test is skipped."""
    folder = os.environ.get("NEURO_DATA")
    if not folder:
        pytest.skip("NEURO_DATA is not set: it names the folder with wikitext-2/, books/ and the other data sets")
    return Path(folder)
