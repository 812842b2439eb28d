"""What plasticity says to wrong input, and its picture."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from neuro.errors import UsageError
from neuro.neurons.eprop import EpropNetwork, EpropNeuron
from neuro.neurons.pairing import pairing
from neuro.neurons.stdp import BI_POO, Bounds, RewardStdp, Stdp
from neuro.plots.plasticity import plasticity

STATE = BI_POO.init_state(2, 3, 4)
PRE, POST = torch.zeros(6, 2, 3), torch.zeros(6, 2, 4)
PAIR = {"a_plus": 0.1, "a_minus": 0.1, "tau_plus_ms": 10.0, "tau_minus_ms": 20.0}


def refusal(call) -> str:
    with pytest.raises(UsageError) as caught:
        call()
    what, do = str(caught.value).split("\n")
    assert what == caught.value.what and do == caught.value.do
    return f"{what} {do}"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (
            {"tau_plus_ms": -5.0},
            "Stdp.tau_plus_ms: got -5 ms, expected a positive time constant. Give it in milliseconds",
        ),
        ({"tau_minus_ms": 0.0}, "Stdp.tau_minus_ms: got 0 ms, expected a positive time constant."),
        ({"tau_minus_ms": float("nan")}, "Stdp.tau_minus_ms: got nan ms, expected a positive time constant."),
        ({"dt_ms": 15.0}, "dt_ms: got 15 ms, expected at most Stdp.tau_plus_ms = 10 ms. Shorten the step"),
        ({"dt_ms": 0.0}, "dt_ms: got 0 ms, expected a positive step. Give the length of one step in ms."),
        ({"a_minus": -0.1}, "Stdp.a_minus: got -0.1, expected a number >= 0. Give the size of the change"),
        ({"a3_plus": 0.1}, "Stdp.a3_plus: got 0.1 without tau_y_ms, expected both or neither. Give tau_y_ms"),
        ({"a3_minus": 0.1}, "Stdp.a3_minus: got 0.1 without tau_x_ms, expected both or neither. Give tau_x_ms"),
    ],
)
def test_a_rule_that_cannot_be(wrong, words):
    assert words in refusal(lambda: Stdp(**{**PAIR, **wrong}))


@pytest.mark.parametrize(
    ("pre", "post", "words"),
    [
        (
            PRE.transpose(0, 1),
            POST,
            "Stdp: pre: got batch-first input [2, 6, 3], expected time first [T,B,N] = [T,2,3]. "
            "Transpose it: x.transpose(0, 1).",
        ),
        (
            torch.zeros(6, 5, 3),
            POST,
            "Stdp: pre: got shape [6, 5, 3], expected [T,B,N] = [T,2,3] as the state has. "
            "Make the state with this batch",
        ),
        (PRE, torch.zeros(6, 2, 3), "Stdp: post: got shape [6, 2, 3], expected [T,B,N] = [T,2,4] as the state has."),
        (PRE[:, 0], POST, "Stdp: pre: got shape [6, 3], expected [T,B,N] = [T,2,3]. Put time first"),
        (PRE[:0], POST[:0], "Stdp: pre: got no step at all, expected T >= 1. Leave out the call"),
        (PRE / 0.0, POST, "Stdp: pre: got NaN or infinity, expected finite numbers. Look for the first step"),
        (PRE[:4], POST, "Stdp: got 4 steps of pre and 6 of post, expected as many. Cut both at the same step."),
    ],
)
def test_spikes_that_do_not_fit(pre, post, words):
    assert words in refusal(lambda: BI_POO.scan(pre, post, STATE))


def test_one_step_is_held_to_the_same():
    assert "Stdp: post: got NaN or infinity" in refusal(lambda: BI_POO.step(PRE[0], POST[0] / 0.0, STATE))


def test_weights_and_bounds_that_do_not_fit():
    assert "Bounds: got low 1 and high 0, expected low < high. Swap" in refusal(lambda: Bounds(1.0, 0.0))
    said = refusal(lambda: BI_POO.learn(torch.zeros(3, 4), PRE, POST, STATE, Bounds()))
    assert "Stdp.learn: got weights [3, 4], expected [O,I] = [4, 3] or one such a stream. Rows are" in said
    for bad in (2.0, float("nan")):
        said = refusal(lambda bad=bad: BI_POO.learn(torch.full((4, 3), bad), PRE, POST, STATE, Bounds()))
        assert "Stdp.learn: got weights outside [0, 1] or NaN, expected them inside. Clamp the weights" in said


def test_rewards_that_do_not_fit():
    learner = RewardStdp(BI_POO, 100.0)
    state = learner.init_state(2, 3, 4)
    said = refusal(lambda: learner.scan(PRE, POST, torch.zeros(2, 6), state))
    assert "RewardStdp: reward: got batch-first input [2, 6, 1], expected time first [T,B,N] = [T,2,1]." in said
    said = refusal(lambda: learner.scan(PRE, POST, torch.zeros(5, 2), state))
    assert "RewardStdp: got 5 steps of reward for 6 of spikes, expected as many. Give every step its reward" in said
    assert "RewardStdp.tau_eligibility_ms: got -1 ms" in refusal(lambda: RewardStdp(BI_POO, -1.0))


def test_an_experiment_that_cannot_be():
    assert "pairing: got 900 Hz in steps of 1 ms, expected pairs at least two" in refusal(
        lambda: pairing(900.0, (1.0,))
    )


def test_networks_and_errors_that_do_not_fit():
    assert (
        "EpropNetwork.feedback: got 'symetric', expected one of symmetric, random, adaptive. Did you mean"
        in refusal(lambda: EpropNetwork(3, 4, 2, feedback="symetric"))
    )
    assert "EpropNetwork.adaptation: got shape [3], expected one number or [4]. Give every neuron" in refusal(
        lambda: EpropNetwork(3, 4, 2, adaptation=torch.ones(3))
    )
    assert "dt_ms: got 30 ms, expected at most EpropNeuron.tau_mem_ms = 20 ms." in refusal(
        lambda: EpropNeuron(dt_ms=30.0)
    )
    net = EpropNetwork(3, 4, 2)
    said = refusal(lambda: net.scan(PRE.transpose(0, 1), net.init_state(2)))
    assert "EpropNetwork: x: got batch-first input [2, 6, 3], expected time first [T,B,N] = [T,2,3]." in said
    activity, _ = net.scan(PRE, net.init_state(2))
    assert "EpropNetwork: error: got shape [6, 2, 4], expected [T,B,N] = [T,2,2]" in refusal(
        lambda: net.gradients(activity, POST)
    )
    assert "EpropNetwork: got 5 steps of error for 6 of activity, expected as many. Give every step its" in refusal(
        lambda: net.gradients(activity, torch.zeros(5, 2, 2))
    )


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_the_picture_is_drawn(tmp_path):
    out = plasticity(
        ([-5.0, 5.0], [-0.2, 0.5]),
        (1.0, 10.0),
        {10.0: ((0.0, 0.1), (0.1, 0.1)), -10.0: ((-0.1, 0.2), (0.1, 0.1))},
        {"a model": {10.0: (0.0, 0.2), -10.0: (-0.2, 0.1)}},
        {"symmetric": [(1.0, 0.9, 0.95)]},
        tmp_path / "picture.png",
    )
    assert out is not None and out.read_bytes().startswith(b"\x89PNG")
