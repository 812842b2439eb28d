"""Layers and their NIR graph fire the same spikes in float64, through a file and back; what NIR cannot say raises."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import backends
from backends import LifRule
from neuro import nir_graph as nir
from neuro.errors import UsageError
from neuro.layers.spiking_linear import SpikingLinear
from neuro.neurons import ALIF, IF, LIF, PLIF, Neuron, Synaptic
from neuro.nir_graph import Graph
from neuro.nir_modules import from_classifier, from_modules, to_modules
from neuro.spiking_classifier import ClassifierConfig, LayerConfig, SpikingClassifier
from sims.nir import count, run

STEPS = 60
RULES = {
    "soft": LifRule(),
    "soft above": LifRule(strict=True),
    "soft delayed": LifRule(delayed=True, strict=True),
    "hard": LifRule("hard"),
    "hard above": LifRule("hard", strict=True, v_reset=-0.3),
    "none": LifRule("none"),
}


def layer_of(kind: str, n: int, rule: LifRule, many: bool) -> Neuron:
    taus = torch.linspace(3.0, 20.0, n, dtype=torch.float64)
    threshold = torch.linspace(0.6, 1.2, n, dtype=torch.float64) if many else 0.8
    common = {"threshold": threshold, "rule": rule, "dt_ms": 0.5}
    tau = taus if many else 7.0
    return {
        "LIF": lambda: LIF(n, tau, **common),
        "LIF box": lambda: LIF(n, tau, decay_input=True, **common),
        "PLIF": lambda: PLIF(n, tau, **common).double(),
        "IF": lambda: IF(n, **common),
        "Synaptic": lambda: Synaptic(n, tau / 2, tau, **common),
        "Synaptic box": lambda: Synaptic(n, tau / 2, tau, decay_input=True, **common),
        "LIF without a leak": lambda: LIF(n, beta=1.0, **common),
        "Synaptic without a leak": lambda: Synaptic(n, tau, beta=1.0, **common),
    }[kind]()


def fold(layers: list[nn.Module], x: Tensor) -> list[Tensor]:
    """What each layer gives, [T,1,...]: neurons see their input flattened."""
    found = []
    with torch.no_grad():
        for layer in layers:
            if isinstance(layer, Neuron):
                flat = x.reshape(len(x), 1, -1)
                x = layer.scan(flat, layer.init_state(1, dtype=x.dtype))[0].reshape(x.shape)
            elif isinstance(layer, SpikingLinear):
                x = layer.scan(x, layer.init_state(1))[0]
            else:
                x = layer(x.flatten(0, 1)).unflatten(0, (len(x), 1))
            found.append(x)
    return found


def fired(graph: Graph, x: Tensor) -> list[np.ndarray]:
    """The rasters of a graph's spiking nodes, in order."""
    went = run(graph, x[:, 0].numpy())
    return [went[row.name] for row in nir.emitters(graph) if type(graph.nodes[row.name]) in nir.SPIKING]


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "kind",
    [
        *("LIF", "LIF box", "PLIF", "IF", "Synaptic", "Synaptic box"),
        *("LIF without a leak", "Synaptic without a leak"),
    ],
)
def test_spikes_are_the_same_and_come_back(tmp_path, kind, rule, many):
    torch.manual_seed(0)
    first, k = nn.Linear(7, 5).double(), 12.0 if "box" in kind else 1.0  # where a current is multiplied by 1 - decay
    nn.init.normal_(first.weight, 0.3 * k, k)
    layers = [first, layer_of(kind, 5, RULES[rule], many), nn.Linear(5, 4, bias=False).double()]
    nn.init.normal_(layers[2].weight, 0.6 * k, k)
    layers.append(layer_of(kind, 4, RULES[rule], many))
    x = (torch.rand(STEPS, 1, 7) < 0.3).double()
    spikes = [s for s, layer in zip(fold(layers, x), layers, strict=True) if isinstance(layer, Neuron)]
    assert all(0 < s.sum() for s in spikes)

    graph = from_modules(layers, (7,))
    for ours, theirs in zip(fired(graph, x), spikes, strict=True):
        assert np.array_equal(ours, theirs[:, 0].numpy())
    nir.write(graph, tmp_path / "a.nir")
    again = to_modules(nir.read(tmp_path / "a.nir"))
    for s, layer in zip(fold(again, x), layers, strict=True):
        if isinstance(layer, Neuron):
            assert torch.equal(s, spikes.pop(0))
    found = again[1]
    assert found.rule.reset == RULES[rule].reset and found.rule.strict == RULES[rule].strict
    assert found.dt_ms == 0.5 and found.threshold == pytest.approx(layers[1].threshold, rel=1e-15)
    assert torch.equal(again[0].weight, first.weight) and torch.equal(again[0].bias, first.bias)


def test_a_raster_at_the_threshold_tells_at_from_above():
    """Currents of exactly the threshold fire one kind and not the other, in either type."""
    for dtype in (torch.float32, torch.float64):
        for strict, expected in ((False, 1.0), (True, 0.0)):
            layers = [nn.Linear(1, 1, bias=False).to(dtype), IF(1, threshold=0.1, rule=LifRule("hard", strict=strict))]
            nn.init.constant_(layers[0].weight, torch.tensor(0.1, dtype=dtype).item())
            if dtype == torch.float32:
                layers[1].threshold = float(np.float32(0.1))
            graph = from_modules(layers, (1,))
            assert run(graph, np.ones((1, 1)))["output"][0] == expected


def test_float32_layers_come_back_bit_for_bit(tmp_path):
    torch.manual_seed(1)
    layers = [
        nn.Linear(6, 8),
        LIF(8, beta=torch.rand(8) * 0.4 + 0.55, threshold=torch.rand(8) + 0.5),
        SpikingLinear(8, Synaptic(5, alpha=0.7, beta=0.9, rule=LifRule("hard", strict=True))),
        SpikingLinear(5, LIF(3, beta=0.3), bias=False),
    ]
    nir.write(from_modules(layers, (6,)), tmp_path / "a.nir")
    again = to_modules(nir.read(tmp_path / "a.nir"))
    flat = [layers[0], layers[1], layers[2], layers[2].neuron, layers[3], layers[3].neuron]
    for ours, theirs in zip(again, flat, strict=True):
        for name in ("weight", "bias", "decay", "alpha", "threshold"):
            if hasattr(theirs, name) and not (isinstance(ours, Neuron) and name in ("weight", "bias")):
                left, right = getattr(ours, name), getattr(theirs, name)
                if isinstance(right, Tensor):
                    assert left.dtype == right.dtype and torch.equal(left, right), name
                else:
                    assert left == (right if right is None else pytest.approx(right, abs=2**-53)), name
    assert [type(layer) for layer in again] == [nn.Linear, LIF, nn.Linear, Synaptic, nn.Linear, LIF]


def test_pictures_are_the_same(tmp_path):
    torch.manual_seed(2)
    layers = nn.Sequential(
        nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 0), groups=2),
        LIF(4 * 4 * 5, 6.0, rule=LifRule("hard")),
        nn.AvgPool2d(2, 2, padding=1),
        nn.Sequential(nn.Conv2d(4, 3, 2, dilation=2, padding="same", bias=False), nn.Flatten()),
        IF(27, threshold=0.4),
        nn.Linear(27, 3),
    ).double()
    nn.init.normal_(layers[0].weight, 0.2, 0.6)
    x = (torch.rand(STEPS, 1, 2, 7, 6) < 0.5).double()
    out = fold(list(layers[:3]) + list(layers[3]) + list(layers[4:]), x)
    assert out[1].sum() > 0 and out[5].sum() > 0
    graph = from_modules(layers, (2, 7, 6))
    for ours, theirs in zip(fired(graph, x), (out[1], out[5]), strict=True):
        assert np.array_equal(ours, theirs[:, 0].numpy())
    np.testing.assert_allclose(run(graph, x[:, 0].numpy())["output"], out[-1][:, 0].numpy(), atol=1e-12)
    nir.write(graph, tmp_path / "a.nir")
    again = fold(to_modules(nir.read(tmp_path / "a.nir")), x)
    assert torch.equal(again[1], out[1]) and torch.equal(again[5], out[5]) and torch.allclose(again[-1], out[-1])


@pytest.mark.parametrize("shape", [(6,), (2, 7, 6)])
def test_a_classifier_is_the_same_and_counts_the_same(shape):
    torch.manual_seed(3)
    convs = (LayerConfig(4, (3, 2), 2),) if len(shape) == 3 else ()
    config = ClassifierConfig(shape, (*convs, LayerConfig(7)), 3, decay=0.8)
    model = SpikingClassifier(config, backends.select("cpu").ops).double()
    x = (torch.rand(STEPS, 1, *shape) < 0.3).double()
    model.settle(x)
    logits, entered = model(x)
    graph = from_classifier(model, 1.0)
    for ours, theirs in zip(fired(graph, x), entered[1:], strict=True):
        assert np.array_equal(ours.reshape(STEPS, -1), theirs[:, 0].detach().numpy())
    mean = run(graph, x[:, 0].numpy())["output"].mean(0)
    np.testing.assert_allclose(mean, logits[0].detach().numpy(), atol=1e-12)

    hand, load = model.count(entered), count(graph, x[:, 0].numpy(), input_signal="binary")
    assert [p.spikes for p in load.populations] == hand.spikes
    assert [p.synaptic_ops for p in load.populations] == hand.synaptic_ops
    assert sum(p.updates for p in load.populations) == hand.updates
    macs = [row for row in load.operations if row.kind == "mac"]
    assert [row.count for row in macs] == [STEPS * n for n in hand.synapses]
    assert [row.effective for row in macs] == hand.synaptic_ops


LIF5 = nir.LIF(np.full(5, 5e-3), np.full(5, 5.0), np.zeros(5), np.ones(5), np.zeros(5))


@pytest.mark.parametrize(
    ("layers", "text"),
    [
        (
            [nn.Linear(4, 5), ALIF(5, 9.0)],
            "from_modules, layer 1: ALIF: got ALIF, expected IF, LIF, PLIF or Synaptic.\nNIR has no other in common.",
        ),
        (
            [nn.Linear(4, 5), nn.ReLU()],
            "from_modules, layer 1: ReLU: got ReLU, expected Linear, Conv1d, Conv2d, Flatten, AvgPool2d, SpikingLinear or "
            "a neuron.\nNIR has no node for it: export the layers before and after it.",
        ),
        (
            [nn.Linear(4, 5), LIF(5, 9.0, rule=LifRule("hard", delayed=True))],
            "from_modules, layer 1: LIF: got a delayed hard reset, expected one at once.\nLeave delayed out.",
        ),
        (
            [nn.Linear(4, 5), LIF(6, 9.0)],
            "from_modules, layer 1: LIF: got 6 neurons for a shape [5], expected 5.\nGive the layer's width.",
        ),
        (
            [LIF(4, 9.0), nn.Linear(4, 5), LIF(5, 9.0, dt_ms=0.5)],
            "from_modules: got neurons with steps of 0.5, 1 ms, expected one.\nGive all the same dt_ms.",
        ),
        (
            [LIF(4, beta=torch.tensor([1.0, 0.9, 0.9, 0.9]))],
            "from_modules, layer 0: LIF: got some neurons with a decay of 1, expected all or none.\nSplit the layer.",
        ),
        (
            [LIF(4, beta=1.0, decay_input=True)],
            "from_modules, layer 0: LIF: got decay_input without any leak, expected an input.\nLeave decay_input out.",
        ),
        (
            [Synaptic(4, alpha=1.0, beta=0.5)],
            "from_modules, layer 0: Synaptic: got a synapse that never decays, expected alpha below 1.\nGive it a tau_syn_ms.",
        ),
        (
            [nn.Flatten(0)],
            "from_modules, layer 0: Flatten: got start_dim 0, which takes the batch in, expected 1 or more.\nRaise it.",
        ),
        (
            [nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")],
            "from_modules, layer 0: Conv2d: got padding_mode 'circular', expected zeros.\nNIR has no other.",
        ),
        (
            [nn.AvgPool2d(2, ceil_mode=True)],
            "from_modules, layer 0: AvgPool2d: got ceil_mode, divisor_override or a mean without the padding, expected none.\n"
            "NIR has none.",
        ),
    ],
)
def test_what_nir_cannot_say(layers, text):
    with pytest.raises(UsageError) as error:
        from_modules(layers, (4,))
    assert str(error.value) == text


def test_classifiers_that_nir_cannot_say():
    for options, got in (({"neuron": "graded"}, "graded neurons"), ({"start": 0.5}, "membranes that start at 0.5")):
        model = SpikingClassifier(ClassifierConfig((4,), (LayerConfig(3),), **options), backends.select("cpu").ops)
        with pytest.raises(UsageError, match=f"from_classifier: got {got}, expected spiking ones that start at 0"):
            from_classifier(model, 1.0)


def chain(*nodes: nir.Node, dt: float | None = 1e-3) -> Graph:
    return nir.sequence((5,), nodes, dt)


def with_reset(scale: float) -> Graph:
    one = np.ones(5)
    nodes = {
        "input": nir.Input((5,)),
        "li": nir.LI(one * 5e-3, one * 5, one * 0),
        "fires": nir.Threshold(one),
        "reset": nir.Scale(one * scale),
        "output": nir.Output((5,)),
    }
    edges = (("input", "li"), ("li", "fires"), ("fires", "reset"), ("reset", "li"), ("fires", "output"))
    return Graph(nodes, edges, {"dt": 1e-3})


def changed(node: nir.Node, **values) -> nir.Node:
    return type(node)(**{**node.arrays(), **values})


@pytest.mark.parametrize(
    ("graph", "text"),
    [
        (
            chain(LIF5, dt=None),
            "NIR graph: got no time step, expected one: it is not stored with this graph.\nGive dt in seconds.",
        ),
        (
            chain(nir.Scale(np.ones(5))),
            "to_modules: got '0_scale' of type Scale, which no layer of ours is.\nRun the graph",
        ),
        (
            chain(nir.LI(np.ones(5), np.ones(5), np.zeros(5))),
            "to_modules, node '0_li': got LI, which never fires, expected a neuron that does.\nAdd a Threshold.",
        ),
        (chain(nir.Threshold(np.ones(5))), "to_modules, node '0_threshold': got a Threshold without an integrator"),
        (
            chain(changed(LIF5, v_leak=np.ones(5))),
            "to_modules, node '0_lif': got v_leak other than 0, expected 0.\nMeasure potentials from v_leak.",
        ),
        (
            chain(changed(LIF5, v_reset=np.arange(5.0))),
            "to_modules, node '0_lif': got a v_reset for each neuron, expected one.\nShift",
        ),
        (
            chain(changed(LIF5, r=np.full(5, 3.0))),
            "to_modules, node '0_lif': got r 3, expected 1 or tau / dt.\nMove the rest of r into the weights before.",
        ),
        (
            chain(LIF5, dt=6e-3),
            "to_modules, node '0_lif': got tau 0.005 s with dt 0.006, expected a step no longer than it.\nTake a smaller dt.",
        ),
        (
            with_reset(-0.3),
            "to_modules, node 'li': got a reset by 0.3, expected the threshold 1, or what the decay leaves of it.\nCorrect",
        ),
        (
            Graph(
                {
                    "input": nir.Input((5,)),
                    "a": LIF5,
                    "w": nir.Linear(np.eye(5)),
                    "output": nir.Output((5,)),
                },
                (("input", "a"), ("a", "w"), ("w", "a"), ("a", "output")),
                {"dt": 1e-3},
            ),
            "to_modules: got 'a' with 2 edges in and 2 out, expected a chain.\nRun the graph with sims.nir.run, or cut it.",
        ),
        (
            Graph(
                {
                    "input": nir.Input((5,)),
                    "a": LIF5,
                    "syn": nir.LI(np.full(5, 5e-3), np.full(5, 5.0), np.zeros(5)),
                    "b": LIF5,
                    "output": nir.Output((5,)),
                },
                (("input", "a"), ("a", "syn"), ("syn", "b"), ("a", "b"), ("b", "output")),
                {"dt": 1e-3},
            ),
            "to_modules: got 'a' with 1 edges in and 2 out, expected a chain.\nRun the graph",
        ),
        (
            chain(
                nir.CubaLIF(
                    *[np.full(5, 5e-3)] * 2, np.full(5, 5.0), np.zeros(5), np.full(5, 2.0), np.ones(5), np.zeros(5)
                )
            ),
            "to_modules, node '0_cubalif': got a synapse of tau 0.005 s with a factor of 2, expected tau / dt",
        ),
    ],
)
def test_what_our_layers_cannot_say(graph, text):
    with pytest.raises(UsageError) as error:
        to_modules(graph)
    assert str(error.value).startswith(text)


def test_a_reset_by_subtraction_is_one_population():
    graph = with_reset(-0.8)
    assert nir.emitters(graph) == (nir.Emitter("fires", "li", "reset"),)
    load = count(graph, np.ones((20, 5)), input_signal="dense")
    (only,) = load.populations
    assert (only.name, only.neurons, only.updates, only.synaptic_ops, only.fan_out) == ("fires", 5, 100, 0, 0)
    assert only.spikes > 0 and math.prod(only.input_signal == s for s in ("dense",)) and load.operations == ()
