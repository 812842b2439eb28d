"""The chips' files: statements have unit, source and evidence, what is not known says why, and the rest is refused."""

from __future__ import annotations

import json

import pytest

from neuro.errors import FormatError, MissingError, UsageError
from sims import chips
from sims.chips import chip as data
from sims.chips import speck

CHIPS = (
    "dynap_se2 loihi1 loihi2 odin reckon seneca speck spinnaker1 spinnaker2 truenorth xylo_audio2 xylo_audio3 xylo_imu"
).split()


def raw(name: str = "loihi1") -> dict:
    return json.loads((chips.FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def test_there_are_thirteen_chips():
    assert chips.names() == CHIPS


@pytest.mark.parametrize("name", CHIPS)
def test_every_statement_has_a_source_and_a_grade_or_says_why_it_is_not_known(name):
    chip = chips.load(name)
    assert chip.chip == name and chip.name and chip.neuron.value and chip.learning.value
    assert set(data.REQUIRED) <= set(chip.rows)
    for key, row in [*chip.rows.items(), *chip.rules.items(), ("neuron", chip.neuron), ("learning", chip.learning)]:
        if row.value is None:
            assert row.note and row.source is None, key
            with pytest.raises(MissingError, match=f"chip {name}: '{key}' is not known"):
                chip.limit(key)
        else:
            assert row.source["paper"] and row.source["url"].startswith("https://"), key
            assert row.evidence in data.EVIDENCE, key
        if row.evidence == "background":
            assert "check it in the source" in row.note, key
        if row.source and row.source["commit"]:
            assert row.source["file"], key
    known = {key: row.value for key, row in chip.rows.items() if isinstance(row.value, int)}
    assert chip.limits == known and all(chip.limit(key) == value for key, value in known.items())


def test_limits_that_follow_from_one_another_agree():
    loihi, odin, reckon = (chips.load(name).limits for name in ("loihi1", "odin", "reckon"))
    assert (
        loihi["synapse_words_per_core"] * loihi["synapse_word_bits"] == loihi["synapse_bits_per_core"] == 128 * 8 * 1024
    )
    assert 2 ** loihi["index_bits"] == loihi["compartments_per_core"]
    assert odin["synapse_words_per_core"] * odin["synapse_word_bits"] == odin["synapse_bits_per_core"]
    assert odin["crossbar_rows"] * odin["crossbar_cols"] * (odin["weight_bits"] + 1) == odin["synapse_bits_per_core"]
    assert reckon["fan_in"] * 256 + 16 * 256 == reckon["synapses_per_core"]
    assert reckon["synapse_bits_per_core"] == 136 * 1024 * 8
    xylo, dynap = chips.load("xylo_audio2").limits, chips.load("dynap_se2").limits
    assert xylo["hidden_neurons"] * xylo["fan_out"] == xylo["synapses_per_core"]
    assert dynap["compartments_per_core"] * dynap["fan_in"] == dynap["synapses_per_core"]
    speck = chips.load("speck")
    assert sum(speck.options("compartments_per_core")) == 320 * 1024
    assert sum(speck.options("kernel_words_per_core")) == 272 * 1024
    for key in ("compartments_per_core", "kernel_words_per_core", "bias_words_per_core"):
        assert len(speck.options(key)) == speck.limits["cores"]
    for name in CHIPS:
        chip = chips.load(name)
        place = chip.topology
        if None not in (place.cols, place.rows, place.cores_per_tile) and not place.note.startswith("Quads"):
            assert place.cols * place.rows * place.cores_per_tile >= chip.limit("cores"), name


def test_a_layer_of_speck_takes_whole_address_bits():
    """The overview's own example: 16 channels in, 32 out, 3 x 3: 8 Ki; and 64 x 64 neurons of 32 channels: 128 Ki."""
    assert speck.kernel_words(16, 32, 3, 3) == 8 * 1024
    assert speck.neuron_words(32, 64, 64) == 128 * 1024
    assert speck.kernel_words(1, 1, 1, 1) == 1 and speck.kernel_words(3, 5, 2, 2) == 3 * 8 * 4
    assert speck.neuron_words(10, 5, 3) == 10 * 8 * 4


def test_the_places_of_cores():
    loihi = chips.load("loihi1").topology
    assert [loihi.position(4 * tile) for tile in (0, 1, 4, 31)] == [(0, 0), (0, 1), (1, 0), (7, 3)]
    assert loihi.position(0) == loihi.position(3)
    assert len({loihi.position(core) for core in range(128)}) == 32
    by_row = data.Topology("mesh", 3, 2, 1, "row")
    assert [by_row.position(core) for core in (0, 2, 3)] == [(0, 0), (2, 0), (0, 1)]
    with pytest.raises(UsageError, match=r"topology: got core 128, expected 0 to 127\.\nNumber cores within one chip"):
        loihi.position(128)
    with pytest.raises(MissingError, match="the places of cores are not known: A mesh; its columns.*\nUse a chip with"):
        chips.load("loihi2").topology.position(0)


def test_what_is_known_about_a_limit_in_words():
    assert chips.load("loihi1").why("cores").splitlines() == [
        "loihi1.cores: 128 cores per chip",
        "  source    nengo-loihi, 'Chips cannot have more than 128 cores', https://github.com/nengo/nengo-loihi, "
        "nengo_loihi/hardware/allocators.py, e564f66",
        "  evidence  primary",
        "  note      Neuromorphic cores; the 3 embedded x86 cores hold no neurons.",
    ]
    assert chips.load("loihi2").why("fan_out") == (
        "loihi2.fan_out: not known\n  note      No public document states it."
    )


def test_a_limit_that_is_not_one_number_is_refused_with_the_reason():
    with pytest.raises(MissingError) as raised:
        chips.load("loihi2").limit("fan_in")
    assert str(raised.value) == (
        "chip loihi2: 'fan_in' is not known: No public document states it: axon and synapse memory share a core's memory.\n"
        "Choose another chip, or put the number with its source into the chip's file."
    )
    speck_chip = chips.load("speck")
    with pytest.raises(
        UsageError, match=r"chip speck: 'kernel_words_per_core' is a list, expected one number\.\nRead it"
    ):
        speck_chip.limit("kernel_words_per_core")
    with pytest.raises(UsageError, match=r"chip speck: got 'fan_inn', which is no limit of it\.\n"):
        speck_chip.limit("fan_inn")
    assert speck_chip.options("weight_bits") == (8,)


def test_an_unknown_chip_lists_the_known_ones():
    with pytest.raises(UsageError, match="chip: got 'loihi_1', expected one of dynap_se2, loihi1") as raised:
        chips.load("loihi_1")
    assert raised.value.do == "Did you mean 'loihi1'?"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"value": 0}, r"limit 'cores' is 0, expected integers from 1, or null\.\nCorrect the chip's file"),
        ({"value": -128}, r"limit 'cores' is -128, expected integers from 1"),
        ({"value": 1.5}, r"limit 'cores' is 1\.5, expected integers"),
        ({"value": True}, r"limit 'cores' is True, expected integers"),
        ({"value": []}, r"limit 'cores' is \[\], expected integers"),
        ({"value": [4, -1]}, r"limit 'cores' is \[4, -1\], expected integers"),
        ({"value": "128"}, r"limit 'cores' is '128', expected integers"),
        ({"unit": "tiles"}, r"limit 'cores' is in 'tiles', expected 'cores per chip'"),
        ({"source": None}, r"limit 'cores' has no source, expected one with paper and url"),
        ({"source": {"paper": "", "url": "https://a", "file": None, "commit": None}}, "limit 'cores' has no source"),
        ({"source": {"paper": "A", "url": "https://a"}}, "limit 'cores' has no source"),
        ({"evidence": "sure"}, r"limit 'cores' has evidence 'sure', expected one of primary, vendor"),
        ({"value": None}, r"limit 'cores' has no value, expected a note why and neither source nor evidence"),
        ({"value": None, "source": None, "evidence": None, "note": ""}, r"limit 'cores' has no value"),
        ({"page": 3}, r"limit 'cores' has evidence, note, page, source, unit, value, expected evidence, note, source"),
    ],
)
def test_a_statement_that_breaks_the_rules_is_refused(tmp_path, change, words):
    broken = raw()
    broken["limits"]["cores"] |= change
    (tmp_path / "mine.json").write_text(json.dumps(broken))
    with pytest.raises(FormatError, match=words):
        chips.load("mine", tmp_path)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("schema", "neuro.chip/1", r"got schema 'neuro\.chip/1', expected 'neuro\.chip/2'\.\nRewrite the chip's file"),
        ("limits.core", {}, r"limit 'core' is unknown\.\nDid you mean 'cores'"),
        ("topology.kind", "ring", r"topology has kind 'ring' and order 'column', expected one of mesh, single, layers"),
        ("topology.order", "spiral", r"topology has kind 'mesh' and order 'spiral'"),
        ("topology.cols", 0, r"topology has sizes \[0, 4, 4\], expected integers from 1, or null"),
        ("topology.source", None, r"topology has no source"),
        ("neuron.value", "", r"'neuron' has no value in words"),
        ("learning.source", None, r"'learning' has no source"),
        ("topology", None, r"not a chip \(TypeError"),
        ("limits", [], r"not a chip \(AttributeError"),
    ],
)
def test_a_file_that_breaks_the_schema_is_refused(tmp_path, path, value, words):
    broken = raw()
    *above, last = path.split(".")
    place = broken[above[0]] if above else broken
    place[last] = value
    (tmp_path / "mine.json").write_text(json.dumps(broken))
    with pytest.raises(FormatError, match=words):
        chips.load("mine", tmp_path)


@pytest.mark.parametrize("key", data.REQUIRED)
def test_what_every_chip_has_must_be_stated(tmp_path, key):
    broken = raw()
    del broken["limits"][key]
    (tmp_path / "less.json").write_text(json.dumps(broken))
    with pytest.raises(FormatError, match=rf"limit '{key}' is missing\.\nState it, or null with a note why"):
        chips.load("less", tmp_path)


def test_a_topology_without_sizes_says_why(tmp_path):
    broken = raw("loihi2")
    broken["topology"]["note"] = ""
    (tmp_path / "mine.json").write_text(json.dumps(broken))
    with pytest.raises(FormatError, match=r"topology has no sizes, expected a note why"):
        chips.load("mine", tmp_path)


def test_a_file_that_is_cut_off_is_refused(tmp_path):
    (tmp_path / "cut.json").write_text((chips.FOLDER / "odin.json").read_text()[:500])
    with pytest.raises(FormatError, match=r"not a chip \(JSONDecodeError"):
        chips.load("cut", tmp_path)
