"""A NIR graph at the command line: counted, priced and placed as a model is; its mistakes are said in two lines."""

from __future__ import annotations

import json

import numpy as np
import pytest

from neuro import nir_graph
from neuro.cli import main
from neuro.nir_nodes import LIF, Linear
from sims.energy import report
from sims.mapping.nir import rates_of, to_network
from sims.nir import count

pytest.importorskip("nir")


@pytest.fixture
def files(tmp_path):
    draw = np.random.default_rng(0)

    def neurons(number: int) -> LIF:
        ones = np.ones(number)
        return LIF(tau=0.02 * ones, r=ones, v_leak=0 * ones, v_threshold=0.05 * ones, v_reset=0 * ones)

    layers = [Linear(draw.normal(0, 0.6, (24, 12))), neurons(24), Linear(draw.normal(0, 0.6, (5, 24))), neurons(5)]
    graph = nir_graph.sequence((12,), layers, 1e-3)
    nir_graph.write(graph, tmp_path / "net.nir")
    sample = (draw.random((30, 12)) < 0.3).astype(float)
    np.save(tmp_path / "sample.npy", sample)
    return tmp_path, graph, sample


def test_energy_and_map_of_a_graph_are_those_of_its_count(files, capsys):
    folder, graph, sample = files
    target, given = str(folder / "net.nir"), str(folder / "sample.npy")
    load = count(graph, sample, input_signal="binary", model=target)
    assert sum(p.spikes for p in load.populations) > 100
    network = to_network(graph, rates_of(graph, sample), target)
    priced = report.estimate(load, network=network).to_dict()
    assert main(["energy", target, given, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == priced
    updates = [t["count"] for t in priced["chip"]["counts"]["inference"] if t["kind"] == "neuron_update"]
    assert sum(updates) == 30 * (24 + 5)  # the targets are populations: each neuron once a step
    spikes = [t["count"] for t in priced["chip"]["counts"]["inference"] if t["kind"] == "spike"]
    assert sum(spikes) == sum(p.spikes for p in load.populations if p.updates)  # the Input's are made elsewhere
    assert main(["map", target, given, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cores"] == priced["chip"]["cores"] == 1


def test_a_dense_run_is_the_other_side(files, capsys):
    folder, graph, sample = files
    dense = folder / "dense.json"
    dense.write_text(count(graph, sample[:1], input_signal="dense", model="dense").to_json())
    target, given = str(folder / "net.nir"), str(folder / "sample.npy")
    assert main(["energy", target, given]) == 0
    assert "all products are made at each of 30 steps" in capsys.readouterr().out
    assert main(["energy", target, given, "--dense", str(dense)]) == 0
    assert "at each of" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["energy", "NET", "SAMPLE", "--rate", "0.1"], "got --rate and a sample, expected one"),
        (["energy", "NET", "--rate", "2"], "at a rate of 2"),
        (["energy", "NET", "--macs", "3"], "--macs has no effect here"),
        (["energy", "NET", "--dt", "0"], "dt"),
        (["energy", "small", "--dt", "1"], "--dt has no effect here"),
        (["map", "small", "--rate", "0.1"], "--rate has no effect here"),
        (["map", "small", "extra"], "got a sample"),
    ],
)
def test_mistakes(files, argv, words, capsys):
    folder = files[0]
    names = {"NET": str(folder / "net.nir"), "SAMPLE": str(folder / "sample.npy")}
    assert main([names.get(word, word) for word in argv]) == 2
    captured = capsys.readouterr()
    assert words in captured.err and captured.out == ""
