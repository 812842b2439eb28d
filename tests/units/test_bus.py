"""The bus: declarations are checked once, with messages that name the regions, and sorted into one order."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

import neuro
from neuro.bus import CHANNELS, INPUTS, wire
from neuro.errors import UsageError


@dataclasses.dataclass
class Part:
    name: str
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()


THALAMUS = Part("thalamus", ("embedding", "modulators~"), ("relay", "route"))
AMYGDALA = Part("amygdala", ("relay", "prosody", "valid"), ("affect", "salience"))
CORTEX = Part("cortex", ("relay", "route", "valid", "modulators~"), ("hidden", "spikes"))
READOUT = Part("readout", ("hidden", "recall", "modulators~"), ("logits",))


def refused(parts: list[Part], what: str, do: str) -> None:
    with pytest.raises(UsageError) as error:
        wire(parts)
    assert (error.value.what, error.value.do) == (what, do)
    assert error.value.exit_code == 2


def test_order_follows_the_channels_not_the_list():
    for parts in ([THALAMUS, AMYGDALA, CORTEX, READOUT], [READOUT, CORTEX, AMYGDALA, THALAMUS]):
        order = wire(parts).order
        assert sorted(order) == ["amygdala", "cortex", "readout", "thalamus"]
        assert order.index("thalamus") < order.index("cortex") < order.index("readout")
        assert order.index("thalamus") < order.index("amygdala")


def test_order_does_not_depend_on_the_hash_seed():
    code = "import sys; sys.path[:0] = sys.argv[1:]; from test_bus import *; print(wire([READOUT, CORTEX, AMYGDALA, THALAMUS]))"
    found = set()
    for seed in ("1", "2", "3"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(Path(__file__).parent), str(Path(neuro.__file__).parents[1])],
            capture_output=True, text=True, check=True, env=os.environ | {"PYTHONHASHSEED": seed},
        )  # fmt: skip
        found.add(done.stdout)
    assert len(found) == 1 and "thalamus" in found.pop()


def test_edges_name_writer_channel_and_reader():
    wiring = wire([THALAMUS, CORTEX, READOUT])
    assert ("thalamus", "relay", "cortex") in wiring.edges
    assert ("input", "embedding", "thalamus") in wiring.edges
    assert ("commit", "modulators~", "readout") in wiring.edges
    assert ("silent", "recall", "readout") in wiring.edges
    assert wiring.silent == ("recall",)


def test_a_silent_channel_may_be_stood_in_for_by_another():
    wiring = wire([CORTEX, READOUT])
    assert wiring.silent == ("relay", "route", "recall")
    assert ("input", "relay", "cortex") in wiring.edges
    assert all(CHANNELS[name].silent in INPUTS for name in wiring.silent if isinstance(CHANNELS[name].silent, str))
    assert all(CHANNELS[name].silent is not None for name in wiring.silent)


def test_feedback_makes_no_cycle():
    early = Part("early", ("embedding", "surprise~"), ("relay",))
    assert wire([early, CORTEX, READOUT]).order.index("early") == 0


def test_two_writers_are_refused():
    refused([THALAMUS, Part("double", (), ("relay",))],
            "bus: 'relay' has two writers, thalamus and double.", "Give each channel one writer.")  # fmt: skip


def test_one_region_writing_twice_is_refused():
    refused([Part("double", (), ("relay", "relay"))],
            "bus: 'relay' has two writers, double and double.", "Give each channel one writer.")  # fmt: skip


@pytest.mark.parametrize("name", INPUTS)
def test_the_callers_channels_may_not_be_written(name):
    refused([Part("liar", (), (name,))],
            f"bus: '{name}' has two writers, input and liar.", "Give each channel one writer.")  # fmt: skip


def test_feedback_may_not_be_written_inside_a_step():
    """Its readers do not wait for it: they would see the value of this token or of the last commit, by chance."""
    refused([Part("hasty", ("embedding",), ("modulators~",))],
            "bus: hasty writes the feedback channel 'modulators~'.", "Feedback is written by the commit alone.")  # fmt: skip


def test_unknown_channels_are_refused():
    refused([Part("typo", ("relai",), ())], "bus: typo reads the unknown channel 'relai'.",
            "Declare it in neuro/bus.py.")  # fmt: skip
    refused([Part("typo", (), ("relai",))], "bus: typo writes the unknown channel 'relai'.",
            "Declare it in neuro/bus.py.")  # fmt: skip
    refused([Part("typo", ("mood~",), ())], "bus: typo reads the unknown channel 'mood~'.",
            "Declare it in neuro/bus.py.")  # fmt: skip


def test_a_channel_without_a_writer_and_without_a_silent_value_is_refused():
    refused([READOUT], "bus: readout reads 'hidden', which no region writes.", "Switch its writer on.")


def test_a_cycle_inside_a_step_is_refused_and_named():
    one, two = Part("one", ("salience",), ("relay",)), Part("two", ("relay",), ("salience",))
    with pytest.raises(UsageError) as error:
        wire([one, two])
    assert error.value.what.startswith("bus: a cycle inside a step: ")
    assert "one -> two" in error.value.what or "two -> one" in error.value.what
    assert error.value.do == "Read one of them across the span as 'name~'."
    with pytest.raises(UsageError, match="a cycle inside a step: self -> self"):
        wire([Part("self", ("relay",), ("relay",))])


def test_two_regions_of_one_name_are_refused():
    refused([Part("twin", (), ("relay",)), Part("twin", (), ("route",))],
            "bus: two regions are called 'twin'.", "Give each region its own name.")  # fmt: skip


def test_a_wiring_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        wire([THALAMUS]).order = ()
