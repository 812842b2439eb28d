"""What leaves as NIR fires as the model does, through a file and back; what NIR cannot say raises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import backends
import neuro
from backends import native
from export.nir_graph import of_brain, of_module, write
from neuro import nir_graph as nir
from neuro.config import CortexConfig
from neuro.errors import UsageError
from neuro.layers.affine_recurrence import AffineRecurrence
from neuro.layers.feedforward import SpikingFeedforward
from neuro.layers.spiking_linear import SpikingLinear
from neuro.neurons import ALIF, IF, LIF, Synaptic
from neuro.neurons.eprop import EpropNetwork, EpropNeuron
from neuro.nir_modules import from_classifier
from neuro.nir_network import NirNetwork
from neuro.session import Session
from neuro.spiking_classifier import ClassifierConfig, LayerConfig, SpikingClassifier
from sims.nir import run

SPIKES = [
    *("cortex.encoding=spikes", "cortex.burst=1", "cortex.mixers=recurrence,recurrence"),
    *("cortex.feedforwards=spiking,spiking", "procedural.enabled=false"),
]


class Ports:
    """What came into the spiking parts of a brain and what left them, by the name of the part; [B,T,...] each."""

    def __init__(self, brain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: dict[str, dict[str, list[torch.Tensor]]] = {}
        names = {module: f"cortex.{name}" for name, module in brain.region("cortex").named_modules()}
        feed, mix = SpikingFeedforward.scan, AffineRecurrence.scan

        def feedforward(module: Any, x: torch.Tensor, route: torch.Tensor, state: Any) -> Any:
            out = feed(module, x, route, state)
            gate = route.unsqueeze(-1)
            self.keep(names[module], "in", torch.cat([x * gate, gate], -1))
            self.keep(names[module], "spikes", out[2][-1].spikes)
            self.keep(names[module], "out", out[0])
            return out

        def mixer(module: Any, x: torch.Tensor, valid: torch.Tensor, state: Any) -> Any:
            out = mix(module, x, valid, state)
            if module.inward is not None:
                self.keep(f"{names[module]}.inward", "in", x * valid.unsqueeze(-1))
                self.keep(f"{names[module]}.inward", "spikes", out[2][0].spikes)
                self.keep(f"{names[module]}.inward", "out", module.project(module.inward(x * valid.unsqueeze(-1))[0]))
                self.keep(f"{names[module]}.outward", "spikes", out[2][1].spikes)
                self.keep(f"{names[module]}.outward", "out", out[0])
                self.keep(f"{names[module]}.outward", "in", self.last_outward)
            return out

        monkeypatch.setattr(SpikingFeedforward, "scan", feedforward)
        monkeypatch.setattr(AffineRecurrence, "scan", mixer)
        for module in names:
            if isinstance(module, AffineRecurrence) and module.outward is not None:
                module.outward.register_forward_pre_hook(lambda _, given: setattr(self, "last_outward", given[0]))

    def keep(self, name: str, what: str, value: torch.Tensor) -> None:
        self.rows.setdefault(name, {}).setdefault(what, []).append(value.detach())

    def of(self, name: str, what: str) -> np.ndarray:
        return torch.cat(self.rows[name][what], 1).numpy()


@pytest.mark.parametrize("sets", [[], ["thalamus.enabled=false"], SPIKES], ids=["gated", "always", "spikes"])
def test_the_parts_of_a_brain_fire_as_they_do_in_it(sets, tiny_brain, tokens, tmp_path, monkeypatch):
    brain = tiny_brain(sets, dtype=torch.float64).eval()
    parts = of_brain(brain)
    paths = write(parts, tmp_path / "brain.nir")
    ports = Ports(brain, monkeypatch)
    session = Session(brain, batch=2)
    with torch.no_grad():
        session.feed(tokens(2, 40))  # over commits
    assert [part.name for part in parts] == list(dict.fromkeys(part.name for part in parts))
    assert {part.name for part in parts} == set(ports.rows)
    routes = 0
    for part, path in zip(parts, paths, strict=True):
        graph = nir.read(path)
        for row in range(2):
            given = ports.of(part.name, "in")[row]
            if given.shape[1] > graph.shapes["input"][0][0]:
                assert (given[:, -1] == 1).all()  # no thalamus: the layer always runs
                given = given[:, :-1]
            elif "feedforward" in part.name:
                routes += int((given[:, -1] == 0).sum())
            went = run(graph, given)
            spikes = ports.of(part.name, "spikes")[row]
            assert 0 < spikes.sum()
            fired = went["1_threshold"] if "1_threshold" in went else went["on"] + went["off"]
            np.testing.assert_array_equal(fired, spikes)
            np.testing.assert_allclose(went["output"], ports.of(part.name, "out")[row], atol=1e-9)
    assert routes > 0 or "thalamus.enabled=false" in sets  # a layer was routed past, and its bias too


def test_the_shipped_brain_fires_as_its_files_do(tmp_path, monkeypatch):
    """In float32, in the layers and in the graph as a module: a spike may differ within rounding of the threshold."""
    brain = neuro.load("small", "cpu")
    parts = of_brain(brain)
    ports = Ports(brain, monkeypatch)
    ids = brain.tokenizer.encode("Once upon a time there was a little girl who lived in a village near the forest.")
    with torch.no_grad():
        Session(brain).feed(torch.tensor([ids]))
    assert [part.name for part in parts] == [f"cortex.layers.{n}.feedforward" for n in (0, 1, 3)]
    for part, path in zip(parts, write(parts, tmp_path / "small.nir"), strict=True):
        assert path.name == f"small.{part.name}.nir"
        graph = nir.read(path)
        assert graph.metadata["dt"] == 1e-3 and graph.metadata["schema"] == "neuro.nir/1"
        assert graph.metadata["reset"] == "subtract" and graph.metadata["threshold_rule"] == "at"
        assert graph.metadata["part"] == part.name
        assert "route" in graph.metadata["input"] and "fast weights" in graph.metadata["cut"]
        given = ports.of(part.name, "in")[0]
        found = run(graph, given)["1_threshold"] != ports.of(part.name, "spikes")[0]
        assert found.sum() <= 1e-5 * found.size + 1 and ports.of(part.name, "spikes").sum() > 100


def classifier(**options: Any) -> SpikingClassifier:
    config = ClassifierConfig((2, 7, 6), (LayerConfig(4, (3, 2), 2), LayerConfig(7)), 3, decay=0.8, **options)
    return SpikingClassifier(config, backends.select("cpu").ops).double()


@pytest.mark.parametrize("options", [{}, {"reset": "hard"}, {"synapse_decay": 0.6}], ids=str)
def test_a_classifier_through_a_file(tmp_path, options):
    model = classifier(**options)
    x = (torch.rand(40, 1, 2, 7, 6) < 0.3).double()
    model.settle(x)
    logits, entered = model(x)
    graph = of_module(model, dt_ms=2.0)
    nir.write(graph, tmp_path / "a.nir")
    went = run(nir.read(tmp_path / "a.nir"), x[:, 0].numpy())
    fired = [row.name for row in nir.emitters(graph) if type(graph.nodes[row.name]) in nir.SPIKING]
    for name, expected in zip(fired, entered[1:], strict=True):
        assert expected.sum() > 0
        np.testing.assert_array_equal(went[name].reshape(40, -1), expected[:, 0].detach().numpy())
    np.testing.assert_allclose(went["output"].mean(0), logits[0].detach().numpy(), atol=1e-12)
    assert graph.metadata["dt"] == 2e-3
    assert graph.metadata["reset"] == ("value" if options.get("reset") == "hard" else "subtract")


def test_bursts_of_a_classifier_are_refused():
    with pytest.raises(UsageError) as error:
        from_classifier(classifier(burst=3), 1.0)
    assert str(error.value) == (
        "from_classifier: got bursts of up to 3 spikes a step, expected 1.\n"
        "A spike is one bit in NIR: train with burst=1."
    )


def test_a_recurrent_network_comes_back_as_one(tmp_path):
    network = EpropNetwork(5, 9, 3, EpropNeuron(tau_mem_ms=6.0, tau_out_ms=8.0), gain=(3.0, 1.5)).double()
    x = (torch.rand(80, 1, 5) < 0.3).double()
    with torch.no_grad():
        activity, _ = network.scan(x, network.init_state(1))
    assert 0.02 < activity.spikes.mean() < 0.6
    graph = of_module(network)
    assert graph.recurrent == {("recurrent", "1_held"), ("1_reset", "1_held")}
    nir.write(graph, tmp_path / "a.nir")
    again = nir.read(tmp_path / "a.nir")
    went = run(again, x[:, 0].numpy())
    np.testing.assert_array_equal(went["1_threshold"], activity.spikes[:, 0].numpy())
    np.testing.assert_allclose(went["output"], activity.out[:, 0].numpy(), atol=1e-10)
    module = NirNetwork(again)
    with torch.no_grad():
        torch.testing.assert_close(module.scan(x, module.init_state(1))[0], activity.out, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "module",
    [
        LIF(4, 5.0),
        SpikingLinear(4, IF(3)),
        nn.Sequential(nn.Linear(4, 3), Synaptic(3, 3.0, 9.0), SpikingLinear(3, LIF(2, 4.0))),
    ],
    ids=["neurons", "spiking linear", "sequence"],
)
def test_other_modules_say_their_shape(module):
    graph = of_module(module)
    assert graph.shapes["input"] == ((4,), (4,)) and graph.metadata["reset"] == "subtract"
    assert of_module(NirNetwork(graph)).shapes == graph.shapes


def test_what_nir_cannot_say(tiny_brain):
    cases: list[tuple[Any, str]] = [
        (
            lambda: of_brain(tiny_brain(["cortex.feedforwards=dense,dense"])),
            "export to NIR: got a brain without spiking layers, expected one or more.\nExport it to ONNX.",
        ),
        (
            lambda: of_brain(tiny_brain([*SPIKES, "cortex.burst=2"])),
            "SpikingEncoder: got bursts of up to 2 spikes a token, expected 1.\nSet cortex.burst=1.",
        ),
        (
            lambda: of_module(EpropNetwork(3, 4, 2, adaptation=0.2)),
            "EpropNetwork: got adaptive neurons, expected adaptation 0.\nNIR has no threshold that moves.",
        ),
        (
            lambda: of_module(ALIF(3, 9.0, 90.0)),
            "from_modules, layer 0: ALIF: got ALIF, expected IF, LIF, PLIF or Synaptic.\nNIR has no other in common.",
        ),
        (
            lambda: of_module(classifier()),
            "export to NIR: got a classifier without dt_ms, expected its step.\nGive dt_ms.",
        ),
        (
            lambda: of_module(nn.Sequential(nn.Flatten(), LIF(3, 5.0))),
            "export to NIR: got Flatten first without a shape, expected one.\nGive shape, without a batch.",
        ),
    ]
    for make, text in cases:
        with pytest.raises(UsageError) as error:
            make()
        assert str(error.value) == text


def test_a_feedforward_alone_is_gated():
    module = SpikingFeedforward(6, CortexConfig(feedforward_width=9), 0, native.OPS).double()
    x, route = 3 * torch.randn(1, 50, 6, dtype=torch.float64), (torch.rand(1, 50) < 0.7).double()
    nn.init.normal_(module.inject.bias, 0.3)
    with torch.no_grad():
        out, _, fired, _ = module.scan(
            x, route, module.init_state(1, torch.device("cpu"))._replace(v=torch.zeros(1, 9).double())
        )
    given = torch.cat([x * route.unsqueeze(-1), route.unsqueeze(-1)], -1)[0].numpy()
    went = run(of_module(module), given)
    np.testing.assert_array_equal(went["1_threshold"], fired[0].spikes[0].numpy())
    np.testing.assert_allclose(went["output"], out[0].numpy(), atol=1e-12)
