"""Graphs of one brain: ``step`` (a token in, logits out), ``prefill`` (many tokens) and ``commit`` (a span's end).

A gated write inside every step would cost far more than a graph that runs once a span. All are traced from the same
`Brain` code on the portable operators, so nothing of the model is written twice and no custom autograd function is traced.
The prefill's recurrences are Scan (`export.scans`); its batch and length are both free, which `_tidy` checks.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from onnxscript import opset18 as op
from torch import Tensor, nn

import backends
from backends import Ops, portable
from export import ports, scans
from export.runtime import LEAST_LENGTH
from neuro.brain import Brain
from neuro.errors import MissingError, NeuroError
from neuro.state import BrainState, replace_leaves

OPSET = 18  # the newest whose operators the CPU and the DirectML provider of ONNX Runtime both have (20 adds Gelu)
EMBEDDING = "embedding"  # the vocabulary matrix [V,D], read by token and multiplied by the readout, stored once
_FIRST_TORCH = (2, 6)  # traces with names for inputs and outputs
_TRACED_BATCH, _TRACED_LENGTH = 2, 5  # one would be baked in
_BATCH = torch.export.Dim(ports.BATCH, min=1, max=1 << 16)


class _Step(nn.Module):
    """token [B], prosody [B,C], state -> logits [B,V], spikes [B,S], changed state. [B,1,D] inside: Linear is MatMul.

    A brain that records its raster gives it, [B,S,N], after the spikes.
    """

    def __init__(self, brain: Brain, changed: list[str]) -> None:
        super().__init__()
        self.brain, self.changed, self.template = brain, changed, brain.init_state(_TRACED_BATCH)

    def forward(self, token: Tensor, prosody: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        before = replace_leaves(self.template, list(state))
        out = self.brain._scan(token.unsqueeze(1), before, prosody.unsqueeze(1))
        raster = [] if out.events.raster is None else [out.events.raster[:, 0]]
        return (out.logits[:, 0], out.events.spikes[:, 0], *raster, *ports.pick(out.state, self.changed))


class _Prefill(nn.Module):
    """tokens [B,T], prosody [B,T,C], state -> logits [B,T,V], spikes [B,T,S], changed state; T at most what is left."""

    def __init__(self, brain: Brain, changed: list[str]) -> None:
        super().__init__()
        self.brain, self.changed, self.template = brain, changed, brain.init_state(_TRACED_BATCH)

    def forward(self, tokens: Tensor, prosody: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        out = self.brain._scan(tokens, replace_leaves(self.template, list(state)), prosody)
        return (out.logits, out.events.spikes, *ports.pick(out.state, self.changed))


class _Commit(nn.Module):
    """state -> slots written [B], hormones [B,H], changed state."""

    def __init__(self, brain: Brain, changed: list[str]) -> None:
        super().__init__()
        self.brain, self.changed, self.template = brain, changed, brain.init_state(_TRACED_BATCH)

    def forward(self, *state: Tensor) -> tuple[Tensor, ...]:
        after, events = self.brain.commit(replace_leaves(self.template, list(state)))
        return (events.writes, events.modulators, *ports.pick(after, self.changed))


class _SpanBrain(Brain):
    """Surprise in one product of steps for any length: the exporter loses the unreduced cross-entropy of `Brain`."""

    def _surprise(self, tokens: Tensor, logits: Tensor, valid: Tensor, state: BrainState) -> tuple[Tensor, Tensor]:
        before = torch.cat([state.logits.unsqueeze(1), logits[:, :-1]], 1)
        nats = -torch.log_softmax(before, -1).gather(2, tokens.unsqueeze(-1)).squeeze(-1)
        predicted = torch.cat([state.started.unsqueeze(1), valid[:, :-1]], 1) * valid
        return nats * predicted, predicted


def portable_copy(brain: Brain, ops: Ops = portable.OPS, kind: type[Brain] = Brain, raster: bool = False) -> Brain:
    """The same weights on the portable operators, on the CPU in float32, for inference."""
    copy = kind(brain.config, dataclasses.replace(backends.select("cpu"), ops=ops), record_raster=raster)
    copy.load_state_dict({name: tensor.cpu().float() for name, tensor in brain.state_dict().items()})
    return copy.eval()


@torch.no_grad()
def write(brain: Brain, files: dict[str, Path], scatter: bool = True, raster: bool = False) -> None:
    """Write the graphs "step", "commit" and, where ``files`` has it, "prefill" to the paths in ``files``.

    ``scatter``: rows are taken and written by index; without it, by products with one-hot rows.
    ``raster``: the step also gives every neuron's spikes; of a brain that has spiking neurons.

    Raises:
        MissingError: this torch has no exporter that names its ports.
        NeuroError: an axis that should be free was frozen while tracing.
    """
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < _FIRST_TORCH:
        raise MissingError(
            f"export: got torch {torch.__version__}, expected 2.6 or newer.", "pip install 'torch>=2.6,<2.14'"
        )
    brain = portable_copy(brain, scans.STEP_OPS if scatter else portable.OPS, raster=raster)
    state = brain.init_state(_TRACED_BATCH)
    paths = [port.name.removeprefix(ports.INTO) for port in ports.state_ports(brain)]
    tensors = ports.pick(state, paths)
    token = torch.zeros(_TRACED_BATCH, dtype=torch.int64)
    prosody = torch.zeros(_TRACED_BATCH, brain.config.prosody_channels)
    stepped = ports.changed(state, brain._scan(token.unsqueeze(1), state).state)
    committed = ports.changed(state, brain.commit(state)[0])
    into = [ports.INTO + path for path in paths]

    ids, out = ["token", "prosody", *into], [ports.OUT + path for path in stepped]
    axes = [{0: _BATCH} if tensor.dim() else {} for tensor in tensors]
    given = (token, prosody, *tensors)
    free = ({0: _BATCH}, {0: _BATCH}, tuple(axes))
    seen = ["logits", "spikes", "raster"] if raster else ["logits", "spikes"]
    _write(files["step"], _Step(brain, stepped), given, free, ids, [*seen, *out])
    out = [ports.OUT + path for path in committed]
    _write(files["commit"], _Commit(brain, committed), tensors, (tuple(axes),), into, ["writes", "modulators", *out])
    if "prefill" not in files:
        return
    spans = portable_copy(brain, scans.OPS, _SpanBrain)
    length = torch.export.Dim(ports.LENGTH, min=LEAST_LENGTH, max=brain.config.plasticity_span)
    given = (
        token.new_zeros(_TRACED_BATCH, _TRACED_LENGTH),
        prosody.new_zeros(_TRACED_BATCH, _TRACED_LENGTH, prosody.shape[1]),
    )
    free = ({0: _BATCH, 1: length}, {0: _BATCH, 1: length}, tuple(axes))
    out = [ports.OUT + path for path in stepped]
    ids = ["tokens", "prosody", *into]
    _write(files["prefill"], _Prefill(spans, stepped), (*given, *tensors), free, ids, ["logits", "spikes", *out])


def _write(
    path: Path, module: nn.Module, given: Sequence[Tensor], free: tuple[Any, ...], inputs: list[str], outputs: list[str]
) -> None:
    onnx.save(_tidy(_trace(module, given, free, inputs, outputs)), path)


def _trace(
    module: nn.Module, given: Sequence[Tensor], free: tuple[Any, ...], inputs: list[str], outputs: list[str]
) -> onnx.ModelProto:
    with _quiet():
        torch._dynamo.reset()  # an earlier static export in this process would freeze the axes
        program = torch.export.export(module.eval(), tuple(given), dynamic_shapes=free)
        traced = torch.onnx.export(
            program,
            opset_version=OPSET,
            dynamo=True,
            input_names=inputs,
            output_names=outputs,
            custom_translation_table={
                torch.ops.aten.sort.stable: _stable_sort,
                torch.ops.aten.sigmoid.default: _sigmoid,
            },
            verbose=False,
        )
    assert traced is not None
    model = traced.model_proto
    scans.lower(model)
    return model


def _stable_sort(scores: Any, stable: bool = False, dim: int = -1, descending: bool = False) -> Any:
    # The exporter knows no stable sort; TopK is one: the standard puts the lower index of equals first.
    size = op.Shape(scores, start=dim, end=dim + 1 or None)
    return op.TopK(scores, size, axis=dim, largest=int(descending), sorted=1)


def _sigmoid(x: Any) -> Any:
    # ONNX Runtime's is good to 1e-8 in all, not to 1e-8 of the value: far below zero it says 0, and a memory of little
    # salience would be an empty slot. What is [B,T] (salience among it) takes three operators, the wide gates the one.
    if len(x.shape) > 2:
        return op.Sigmoid(x)
    return op.Reciprocal(op.Add(op.Exp(op.Neg(x)), op.Constant(value_float=1.0)))


def _tidy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Name the weights, drop inputs nothing reads and the exporter's notes, check that batch and length stayed free.

    The notes are stack traces: larger than a small model, and they hold paths of the machine that exported it.
    """
    graph = model.graph
    _name_weights(graph)
    read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    kept = [value for value in graph.input if value.name in read]
    del graph.input[:], graph.value_info[:], graph.metadata_props[:], model.metadata_props[:]
    graph.input.extend(kept)
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    for value in (*graph.input, *graph.output):
        _free_axes(value)
    onnx.checker.check_model(model, full_check=True)
    return model


def _free_axes(value: onnx.ValueInfoProto) -> None:
    """Name the axes that must be free; raises NeuroError where one was frozen: the exporter says nothing when it does."""
    axes = value.type.tensor_type.shape.dim
    names = ports.TOKEN_AXES.get((value.name, len(axes)), (ports.BATCH,) if axes else ())
    for axis, name in zip(axes, names, strict=False):
        if not axis.dim_param:
            raise NeuroError(
                f"export: the axis '{name}' of '{value.name}' was frozen at {axis.dim_value}, expected any {name}.",
                "Report this model's configuration; nothing was written.",
            )
        axis.dim_param = name


def _name_weights(graph: onnx.GraphProto) -> None:
    """Give weights that the exporter transposed and numbered ("val_57") the names they have in torch."""
    weights = {tensor.name for tensor in graph.initializer}
    taken, names = set(weights), {}
    for node in graph.node:
        notes = {note.key: note.value for note in node.metadata_props}
        scopes = ast.literal_eval(notes.get("pkg.torch.onnx.name_scopes", "[]"))
        weight = node.input[1] if node.op_type in ("MatMul", "Gemm") else ""
        if weight in weights and weight not in names and weight.startswith("val_") and len(scopes) >= 2:
            name = f"{scopes[-2].removeprefix('brain.')}.weight"
            if name not in taken:
                names[weight] = name
                taken.add(name)
    names |= {name: name.removeprefix("brain.") for name in weights if name.startswith("brain.")}
    if "brain.regions.readout.weight" in names:
        names["brain.regions.readout.weight"] = EMBEDDING  # tied: its owner is the brain
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporter says about itself: its own deprecations, and notes on packages it does not find."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for category in (DeprecationWarning, FutureWarning):
                warnings.simplefilter("ignore", category)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
