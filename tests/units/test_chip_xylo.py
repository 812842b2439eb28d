"""The integer network of Xylo: golden vectors of its maker's simulator, and its rule read word by word."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from neuro.errors import UsageError
from sims.chips import xylo_lif
from sims.chips.xylo_lif import XyloNetwork, simulate

FIXTURES = Path(__file__).parent.parent / "fixtures"
NAMES = {
    "w_in": "w_in",
    "w_rec": "w_rec",
    "w_out": "w_out",
    "threshold": "th",
    "threshold_out": "th_out",
    "dash_syn": "ds",
    "dash_mem": "dm",
    "dash_syn_out": "ds_out",
    "dash_mem_out": "dm_out",
    "bias": "bias",
    "bias_out": "bias_out",
}


@pytest.fixture(scope="module")
def golden():
    with np.load(FIXTURES / "xylo_lif.npz", allow_pickle=False) as file:
        return dict(file)


def network(golden, n: int) -> XyloNetwork:
    arrays = {name: golden[key][n].astype(np.int64) for name, key in NAMES.items()}
    return XyloNetwork(**arrays, shifts=tuple(golden["shifts"][n].tolist()))


def tiny(weight: int = 100, shift: int = 0, **changes) -> XyloNetwork:
    """One input, one hidden, one output neuron."""
    one = np.ones(1, np.int64)
    whole = np.full((1, 1), weight)
    rows = {"threshold": 1000 * one, "threshold_out": 50 * one, "bias": 0 * one, "bias_out": 0 * one}
    rows |= {name: one for name in ("dash_syn", "dash_mem", "dash_syn_out", "dash_mem_out")}
    return XyloNetwork(whole, 0 * whole, whole, **rows | changes, shifts=(shift, 0, 0))


def test_the_golden_vectors_are_reproduced(golden, measured):
    kinds = golden["kind"].tolist()
    assert len(kinds) == 24 and sorted(set(kinds)) == sorted(
        json.loads((FIXTURES / "xylo_lif.json").read_text())["kinds"]
    )
    wrong = spikes = 0
    for n, kind in enumerate(kinds):
        run = simulate(network(golden, n), golden["x"][n][:, None].astype(np.int64))
        pairs = [(run.hidden[:, 0], golden["hidden"][n]), (run.output[:, 0], golden["output"][n])]
        pairs += [
            (state[0], golden[key][n]) for state, key in zip(run.state, ("i", "v", "i_out", "v_out"), strict=True)
        ]
        wrong += sum(int((mine != theirs).sum()) for mine, theirs in pairs)
        spikes += int(run.hidden.sum())
        assert run.held > 0 or kind != "saturating"
    measured("mismatches of 24 networks", wrong)
    assert wrong == 0 and spikes > 10_000 and int(golden["hidden"].max()) == 31


def test_a_batch_is_its_rows(golden):
    net = network(golden, 20)
    x = np.random.default_rng(0).integers(0, 16, (30, 5, 8))
    whole = simulate(net, x)
    parts = [simulate(net, x[:, b : b + 1]) for b in range(5)]
    assert np.array_equal(whole.hidden, np.concatenate([part.hidden for part in parts], 1))
    assert np.array_equal(whole.output, np.concatenate([part.output for part in parts], 1))
    assert whole.held == sum(part.held for part in parts) > 0


def test_the_rule_read_word_by_word():
    """Positive values decay by 1 at least, several spikes a step, and the output hears a spike one step later."""
    run = simulate(tiny(), np.array([15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])[:, None, None])
    i, v, hidden = 1500, 0, []
    for _ in range(13):
        i -= max(i >> 1, 1) if i > 0 else i >> 1
        v = v - (max(v >> 1, 1) if v > 0 else v >> 1) + i
        hidden.append(v // 1000)
        v -= 1000 * hidden[-1]
    assert run.hidden[:, 0, 0].tolist() == hidden and sum(hidden) == 0
    assert i == 0 and run.state[0][0, 0] == 0
    lower = tiny(threshold=np.array([100]))
    run = simulate(lower, np.array([15, 0, 0])[:, None, None])
    assert run.hidden[:, 0, 0].tolist() == [7, 4, 1]  # membranes 750, 25 + 375, 0 + 188
    assert run.output[:, 0, 0].tolist() == [0, 1, 1]


def test_events_and_spikes_have_their_most():
    net = tiny(weight=127, shift=4, threshold=np.array([10]))
    run = simulate(net, np.array([40, 0])[:, None, None])
    assert run.hidden[0, 0, 0] == xylo_lif.MOST_SPIKES and run.dropped == 25
    same = simulate(net, np.array([15, 0])[:, None, None])
    assert np.array_equal(run.hidden, same.hidden) and same.dropped == 0
    assert run.output.max() == 1


def test_states_are_held_at_the_ends_of_16_bits():
    far = tiny(weight=-128, shift=6, dash_mem=np.array([15]))
    run = simulate(far, np.full((6, 1, 1), 15))
    assert run.state[1][0, 0] == -(1 << 15) and run.held > 0
    assert simulate(tiny(), np.full((6, 1, 1), 15)).held == 0


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"threshold": np.array([0])}, r"xylo threshold: got 0 to 0, expected 1 to 32767\.\nQuantize"),
        ({"bias": np.array([40000])}, r"xylo bias: got 40000 to 40000, expected -32768 to 32767\.\nQuantize"),
        ({"dash_mem": np.array([16])}, r"xylo dash_mem: got 16 to 16, expected 0 to 15"),
        ({"dash_syn": np.array([1.0])}, r"xylo dash_syn: got float64 \[1\], expected integers \[1\]\.\nQuantize"),
        ({"bias_out": np.array([1, 2])}, r"xylo bias_out: got int64 \[2\], expected integers \[1\]"),
        ({"w_in": np.array([[128]])}, r"xylo w_in: got 128 to 128, expected -128 to 127"),
        ({"shifts": (0, -1, 0)}, r"xylo shifts: got \(0, -1, 0\), expected three of 0 to 15\.\nScale"),
    ],
)
def test_what_does_not_fit_the_chips_bits_is_refused(changes, text):
    with pytest.raises(UsageError, match=text):
        dataclasses.replace(tiny(), **changes)


@pytest.mark.parametrize(
    ("events", "text"),
    [
        (np.zeros((3, 1, 2), np.int64), r"xylo: got events int64 \[3, 1, 2\], expected integers \[T, B, 1\]\.\nGive"),
        (np.zeros((3, 1, 1)), r"xylo: got events float64"),
        (np.full((3, 1, 1), -1), r"xylo: got -1 events, expected 0 or more\.\nCount events"),
    ],
)
def test_wrong_events_are_refused(events, text):
    with pytest.raises(UsageError, match=text):
        simulate(tiny(), events)
