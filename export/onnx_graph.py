"""Two graphs of one brain: ``step`` (a token in, logits out) and ``commit`` (what the span's end writes).

A gated write inside every step would cost far more than a second graph that runs once a span. Both are traced from the
same `Brain` code on the portable operators, whose time loops are plain tensor code, so nothing of the model is written
twice and no custom autograd function is traced.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import torch
from onnxscript import opset18 as op
from torch import Tensor, nn

import backends
from backends import portable
from export import ports
from neuro.brain import Brain
from neuro.errors import MissingError, NeuroError
from neuro.state import replace_leaves

OPSET = 18  # the newest whose operators the CPU and the DirectML provider of ONNX Runtime both have (20 adds Gelu)
EMBEDDING = "embedding"  # the vocabulary matrix [V,D], read by token and multiplied by the readout, stored once
_FIRST_TORCH = (2, 6)  # traces with names for inputs and outputs
_TRACED_BATCH = 2  # a batch of one would be baked in
_MOST_ROWS = 1 << 16


class _Step(nn.Module):
    """token [B], prosody [B,C], state -> logits [B,V], spikes [B,S], changed state. [B,1,D] inside: Linear is MatMul."""

    def __init__(self, brain: Brain, changed: list[str]) -> None:
        super().__init__()
        self.brain, self.changed, self.template = brain, changed, brain.init_state(_TRACED_BATCH)

    def forward(self, token: Tensor, prosody: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        before = replace_leaves(self.template, list(state))
        out = self.brain._scan(token.unsqueeze(1), before, prosody.unsqueeze(1))
        return (out.logits[:, 0], out.events.spikes[:, 0], *ports.pick(out.state, self.changed))


class _Commit(nn.Module):
    """state -> slots written [B], hormones [B,H], changed state."""

    def __init__(self, brain: Brain, changed: list[str]) -> None:
        super().__init__()
        self.brain, self.changed, self.template = brain, changed, brain.init_state(_TRACED_BATCH)

    def forward(self, *state: Tensor) -> tuple[Tensor, ...]:
        after, events = self.brain.commit(replace_leaves(self.template, list(state)))
        return (events.writes, events.modulators, *ports.pick(after, self.changed))


def portable_copy(brain: Brain) -> Brain:
    """The same weights on the portable operators, on the CPU in float32, for inference."""
    backend = dataclasses.replace(backends.select("cpu"), ops=portable.OPS)
    copy = Brain(brain.config, backend)
    copy.load_state_dict({name: tensor.cpu().float() for name, tensor in brain.state_dict().items()})
    return copy.eval()


@torch.no_grad()
def write(brain: Brain, files: dict[str, Path]) -> None:
    """Write the graphs "step" and "commit" to the paths in ``files``.

    Raises:
        MissingError: this torch has no exporter that names its ports.
        NeuroError: the batch axis was frozen while tracing.
    """
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < _FIRST_TORCH:
        raise MissingError(
            f"export: got torch {torch.__version__}, expected 2.6 or newer.", "pip install 'torch>=2.6,<2.14'"
        )
    brain = portable_copy(brain)
    state = brain.init_state(_TRACED_BATCH)
    paths = [port.name.removeprefix(ports.INTO) for port in ports.state_ports(brain)]
    tensors = ports.pick(state, paths)
    token = torch.zeros(_TRACED_BATCH, dtype=torch.int64)
    prosody = torch.zeros(_TRACED_BATCH, brain.config.prosody_channels)
    stepped = ports.changed(state, brain._scan(token.unsqueeze(1), state).state)
    committed = ports.changed(state, brain.commit(state)[0])
    into = [ports.INTO + path for path in paths]

    def trace(name: str, module: nn.Module, given: list[Tensor], inputs: list[str], outputs: list[str]) -> None:
        onnx.save(_tidy(_trace(module, given, inputs, outputs)), files[name])

    out = [ports.OUT + path for path in stepped]
    trace(
        "step",
        _Step(brain, stepped),
        [token, prosody, *tensors],
        ["token", "prosody", *into],
        ["logits", "spikes", *out],
    )
    out = [ports.OUT + path for path in committed]
    trace("commit", _Commit(brain, committed), tensors, into, ["writes", "modulators", *out])


def _trace(module: nn.Module, given: list[Tensor], inputs: list[str], outputs: list[str]) -> onnx.ModelProto:
    batch = torch.export.Dim(ports.BATCH, min=1, max=_MOST_ROWS)
    axes = [{0: batch} if tensor.dim() else {} for tensor in given]
    named = len(given) - sum(name.startswith(ports.INTO) for name in inputs)  # the rest is the *state of `forward`
    with _quiet():
        torch._dynamo.reset()  # an earlier static export in this process would freeze the axes
        program = torch.export.export(module.eval(), tuple(given), dynamic_shapes=(*axes[:named], tuple(axes[named:])))
        traced = torch.onnx.export(
            program,
            opset_version=OPSET,
            dynamo=True,
            input_names=inputs,
            output_names=outputs,
            custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
            verbose=False,
        )
    assert traced is not None
    return traced.model_proto


def _stable_sort(scores: Any, stable: bool = False, dim: int = -1, descending: bool = False) -> Any:
    # The exporter knows no stable sort; TopK is one: the standard puts the lower index of equals first.
    size = op.Shape(scores, start=dim, end=dim + 1 or None)
    return op.TopK(scores, size, axis=dim, largest=int(descending), sorted=1)


def _tidy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Name the weights, drop inputs nothing reads and the exporter's notes, check that the batch axis stayed dynamic.

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
        axes = value.type.tensor_type.shape.dim
        if axes and not axes[0].dim_param:
            raise NeuroError(
                f"export: the batch axis of '{value.name}' was frozen at {axes[0].dim_value}, expected any batch.",
                "Report this model's configuration; nothing was written.",
            )
        if axes:
            axes[0].dim_param = ports.BATCH
    onnx.checker.check_model(model, full_check=True)
    return model


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
