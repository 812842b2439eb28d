"""The spiking parts of a model as NIR graphs: one for each part whose spikes meet no operator that NIR lacks.

NIR has no norm, gate, attention or memory, so a brain is cut there. What is left of a cortex, D features, N neurons:

    feed-forward                 Input [D+1]: g x, g -> weight with the bias as last column -> LIF -> weight -> Output [D]
    with encoding "spikes"       Input -> a Scale and a Threshold each for the ON and OFF neurons -> weights -> LIF -> ...
    before a mixer's products    Input [D] -> ON and OFF neurons -> weights -> Output

g is the thalamus's route (0 or 1, and 0 for padding): a layer that is routed past gets no current, its bias included. Every
graph says in its metadata what it is a part of, what comes in and goes out, what was cut, the step, the reset and the
threshold rule, none of which NIR has a field for. differs: `neuro.nir_modules` says how each neuron is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from neuro import nir_graph as nir
from neuro.brain import Brain
from neuro.errors import UsageError
from neuro.layers.affine_recurrence import AffineRecurrence
from neuro.layers.feedforward import SpikingFeedforward
from neuro.layers.spiking_encoder import SpikingEncoder
from neuro.layers.spiking_linear import SpikingLinear
from neuro.neurons import LIF, Neuron
from neuro.neurons.eprop import EpropNetwork
from neuro.nir_graph import Edge, Graph, Node, Shape
from neuro.nir_modules import FIRES_AT, from_classifier, from_modules
from neuro.nir_network import NirNetwork
from neuro.spiking_classifier import SpikingClassifier

SCHEMA = "neuro.nir/1"
_OF_LAYER = "the norm before it, the residual path around it, the fast weights that add to its output"


class Part(NamedTuple):
    """A graph and the path of the module it is of."""

    name: str
    graph: Graph


def of_brain(brain: Brain) -> list[Part]:
    """The spiking parts of a brain, in the order of its layers.

    Raises:
        UsageError: none, or neurons that fire several spikes a token.
    """
    parts: list[Part] = []
    routed, dt = brain.config.thalamus.enabled, brain.config.cortex.dt_ms / 1000.0
    for path, module in brain.regions["cortex"].named_modules(prefix="cortex"):
        if isinstance(module, SpikingFeedforward):
            parts.append(_told(path, of_feedforward(module, routed), *_ports(routed)))
        elif isinstance(module, AffineRecurrence) and module.inward is not None and module.outward is not None:
            weight, comes = module.project.weight, "what the mixer's norm gives, scaled by the hormones, 0 for padding"
            goes = "decay, drive and gate before their nonlinearities"
            parts.append(_told(f"{path}.inward", of_encoder(module.inward, weight, dt), comes, goes, _OF_LAYER))
            weight, comes = module.out.weight, "the normalised state times its gate"
            goes = "what the mixer adds to its layer's features"
            parts.append(_told(f"{path}.outward", of_encoder(module.outward, weight, dt), comes, goes, _OF_LAYER))
    if not parts:
        _refuse("export to NIR", "got a brain without spiking layers, expected one or more", "Export it to ONNX.")
    return parts


def of_module(module: nn.Module, shape: Sequence[int] = (), dt_ms: float | None = None) -> Graph:
    """A spiking module of ours as a graph.

    Args:
        module: neurons, SpikingLinear, a sequence of layers, SpikingFeedforward, SpikingClassifier, EpropNetwork, NirNetwork.
        shape: of the input of one step; needed where the first layer does not tell.
        dt_ms: the step of a classifier, which counts by steps alone.

    Raises:
        UsageError: what NIR cannot say: adaptive neurons, several spikes a step, other layers; no step; no shape.
    """
    if isinstance(module, SpikingFeedforward):
        return of_feedforward(module)
    if isinstance(module, SpikingClassifier):
        if dt_ms is None:
            _refuse("export to NIR", "got a classifier without dt_ms, expected its step", "Give dt_ms.")
        return with_rules(from_classifier(module, dt_ms))
    if isinstance(module, EpropNetwork):
        return of_eprop(module)
    if isinstance(module, NirNetwork):
        return module.graph()
    layers = list(module) if isinstance(module, nn.Sequential) else [module]
    return with_rules(from_modules(layers, tuple(shape) or _shape_of(layers)))


def of_feedforward(module: SpikingFeedforward, routed: bool = True) -> Graph:
    """Input [D+1] of the gated features and the gate, or [D] of a module that always runs."""
    c = module.config
    weight, bias = _array(module.inject.weight), _array(module.inject.bias)
    project = nir.Linear(_array(module.project.weight))
    neurons = LIF(c.feedforward_width, beta=c.decay, threshold=c.v_threshold, rule=module.rule, dt_ms=c.dt_ms)
    gated = np.concatenate([weight, bias[:, None]], 1)
    if module.inward is None:
        inject: Node = nir.Linear(gated) if routed else nir.Affine(weight, bias)
        return with_rules(from_modules([inject, neurons, project], (weight.shape[1] + int(routed),)))
    chain = from_modules([nir.Linear(np.eye(len(bias), dtype=weight.dtype)), neurons, project], (len(bias),))
    nodes, edges = _encoded(module.inward, gated, "inject")
    kept = {name: node for name, node in chain.nodes.items() if name not in ("input", "0_linear")}
    first = chain.after["0_linear"][0]
    edges += [(f"inject_{sign}", first) for sign in ("on", "off")]
    edges += [edge for edge in chain.edges if not {"input", "0_linear"} & set(edge)]
    return with_rules(Graph(nodes | kept, tuple(edges), chain.metadata))


def of_encoder(encoder: SpikingEncoder, weight: Tensor, dt: float) -> Graph:
    """ON and OFF neurons and the product that reads them."""
    nodes, edges = _encoded(encoder, _array(weight), "project")
    nodes["output"] = nir.Output((len(weight),))
    edges += [(f"project_{sign}", "output") for sign in ("on", "off")]
    return with_rules(Graph(nodes, tuple(edges), {"dt": dt}))


def of_eprop(network: EpropNetwork) -> Graph:
    """Recurrent neurons, their spikes a step late through the recurrent weights, and the leaky readout."""
    c = network.constants
    if network.adaptive:
        _refuse("EpropNetwork", "got adaptive neurons, expected adaptation 0", "NIR has no threshold that moves.")
    (inputs, recurrent, out), mask = map(_array, (network.inputs, network.recurrent, network.out)), _array(network.mask)
    neurons = LIF(len(inputs), beta=c.decay("tau_mem_ms"), threshold=c.threshold, dt_ms=c.dt_ms)
    chain = from_modules([nir.Linear(inputs), neurons, nir.Linear(out)], (inputs.shape[1],))
    dt, kappa = chain.metadata["dt"], c.decay("tau_out_ms")
    tau = np.full(len(out), dt / (1.0 - kappa))
    nodes = chain.nodes | {
        "recurrent": nir.Linear(recurrent * mask),
        "readout": nir.LI(tau, tau / dt, np.zeros(len(out))),
    }
    edges = [edge for edge in chain.edges if edge[1] != "output"]
    edges += [("1_threshold", "recurrent"), ("recurrent", "1_held"), ("2_linear", "readout"), ("readout", "output")]
    return with_rules(Graph(nodes, tuple(edges), chain.metadata))


def with_rules(graph: Graph) -> Graph:
    """The graph with its reset and threshold rule in words, beside the step."""
    rows = [row for row in nir.emitters(graph) if type(graph.nodes[row.name]) in nir.SPIKING]
    resets = {_reset(graph, row) for row in rows}
    at = {"at" if FIRES_AT in graph.nodes[row.name].metadata else "above" for row in rows}
    said = {"schema": SCHEMA, "reset": ", ".join(sorted(resets)), "threshold_rule": ", ".join(sorted(at))}
    return Graph(graph.nodes, graph.edges, graph.metadata | said)


def write(parts: Sequence[Part], out: str | Path) -> list[Path]:
    """One part as the file ``out``; of several each as a file beside it, OUT.PART.nir.

    Raises:
        UsageError: a file that is no NIR file is there.
        MissingError: the ``nir`` extra is not installed.
        NeuroError: it cannot be written there.
    """
    target = Path(out)
    stem = target.name.removesuffix(".nir")
    several = [target.with_name(f"{stem}.{part.name}.nir") for part in parts]
    paths = [target] if len(parts) == 1 else several
    for part, path in zip(parts, paths, strict=True):
        nir.write(part.graph, path)
    return paths


def _encoded(encoder: SpikingEncoder, weight: np.ndarray, name: str) -> tuple[dict[str, Node], list[Edge]]:
    """From the Input to what reads its spikes; a column of ``weight`` beyond the channels is a gate of its own."""
    if encoder.burst > 1:
        _refuse(
            "SpikingEncoder", f"got bursts of up to {encoder.burst} spikes a token, expected 1", "Set cortex.burst=1."
        )
    inverse = _array(torch.exp(-encoder.log_threshold))
    gates = weight.shape[1] - len(inverse)
    below = np.nextafter(np.ones(len(inverse), weight.dtype), weight.dtype.type(-np.inf)).astype(np.float64)
    told = {FIRES_AT: weight.dtype.name}
    nodes: dict[str, Node] = {"input": nir.Input((weight.shape[1],))}
    edges: list[Edge] = []
    for sign, factor, gate in (("on", 1, 1.0), ("off", -1, 0.0)):
        scale = np.concatenate([factor * inverse, np.full(gates, gate, weight.dtype)])
        fires = np.concatenate([below, np.full(gates, 0.5)])
        reads = np.concatenate([factor * weight[:, : len(inverse)], gate * weight[:, len(inverse) :]], 1)
        names = [f"{sign}_scale", sign, f"{name}_{sign}"]
        nodes |= dict(
            zip(names, (nir.Scale(scale), nir.Threshold(fires, metadata=told), nir.Linear(reads)), strict=True)
        )
        edges += [("input", names[0]), (names[0], names[1]), (names[1], names[2])]
    return nodes, edges


def _ports(routed: bool) -> tuple[str, str, str]:
    gate = "the route of the layer (0 or 1, 0 for padding) times its normalised features, then the route itself"
    comes = gate if routed else "the normalised features of the layer"
    return comes, "what the feed-forward adds to its layer's features, without the fast weights", _OF_LAYER


def _told(path: str, graph: Graph, comes: str, goes: str, cut: str) -> Part:
    said = {"part": path, "input": comes, "output": goes, "cut": cut}
    return Part(path, Graph(graph.nodes, graph.edges, graph.metadata | said))


def _reset(graph: Graph, row: nir.Emitter) -> str:
    if row.reset:
        return "subtract"
    if type(graph.nodes[row.name]) is nir.Threshold:
        return "none" if row.membrane != row.name else "memoryless"
    return "value"


def _shape_of(layers: Sequence[Any]) -> Shape:
    first = layers[0] if layers else None
    if isinstance(first, SpikingLinear):
        return (first.weight.shape[1],)
    if isinstance(first, nn.Linear):
        return (first.in_features,)
    if isinstance(first, Neuron):
        return (first.neurons,)
    _refuse(
        "export to NIR",
        f"got {type(first).__name__} first without a shape, expected one",
        "Give shape, without a batch.",
    )


def _array(value: Tensor) -> np.ndarray:
    found = value.detach().cpu()
    return (found if found.dtype == torch.float64 else found.float()).numpy().copy()


def _refuse(where: str, what: str, do: str) -> NoReturn:
    raise UsageError(f"{where}: {what}.", do)
