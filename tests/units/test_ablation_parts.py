"""Ablation of parts: arms are of equal size and differ in the part alone, and the table gives back what was put in."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from neuro import presets
from neuro.config import apply_sets, to_dict
from neuro.errors import UsageError
from neuro.evaluate import ablation_brain, ablation_parts, ablation_report
from neuro.evaluate.ablation_parts import PARTS, WHOLE

BRAIN = presets.tiny().brain


def changed(a: dict, b: dict, where: str = "") -> set[str]:
    found: set[str] = set()
    for key, value in a.items():
        if isinstance(value, dict):
            found |= changed(value, b[key], f"{where}{key}.")
        elif value != b[key]:
            found.add(where + key)
    return found


@pytest.mark.parametrize("name", PARTS)
def test_a_brain_without_a_part_is_of_equal_size_and_differs_in_the_part_alone(name):
    whole, arm = ablation_parts.arm(WHOLE, BRAIN), ablation_parts.arm(name, BRAIN)
    assert arm.parameters == ablation_parts.parameters(arm.brain)
    assert abs(arm.parameters - whole.parameters) <= ablation_parts.TOLERANCE * whole.parameters
    differ = changed(to_dict(BRAIN), to_dict(arm.brain)) - {"cortex.feedforward_width"}
    region, _, kind = name.partition(".")
    expected = {
        "cortex": {"window": {"cortex.mixers"}, "recurrence": {"cortex.mixers"}, "spiking": {"cortex.feedforwards"}},
        "controller": {rule: {"hippocampus.controller"} for rule in ("learned", "random", "periodic")},
    }.get(region, {}).get(kind, {f"{region}.enabled"})
    if region == "controller":
        assert arm.brain.hippocampus.writes_per_span == BRAIN.hippocampus.writes_per_span // 4
        expected = (expected if kind != "surprise" else set()) | {"hippocampus.writes_per_span"}
    assert differ == expected


def test_what_takes_parameters_away_is_given_them_back_in_width():
    arm = ablation_parts.arm("hippocampus", BRAIN)
    assert arm.brain.cortex.feedforward_width > BRAIN.cortex.feedforward_width
    assert ablation_parts.arm(WHOLE, BRAIN).brain == BRAIN


def test_sizes_that_cannot_agree_are_refused(monkeypatch):
    monkeypatch.setattr(ablation_parts, "TOLERANCE", 0.0)
    with pytest.raises(UsageError) as error:
        ablation_parts.arm("hippocampus", BRAIN)
    assert error.value.what.startswith("ablation of hippocampus: got ") and "within 0 %" in error.value.what
    assert error.value.do == "Take a larger brain, or leave out this part."


def test_parts_are_named_whole_or_by_their_first_word():
    assert ablation_parts.chosen(None, BRAIN) == list(PARTS)
    assert ablation_parts.chosen("[endocrine,cortex.window]", BRAIN) == ["cortex.window", "endocrine"]
    assert ablation_parts.chosen("cortex", BRAIN) == ["cortex.spiking", "cortex.window", "cortex.recurrence"]
    assert ablation_parts.chosen("controller.random", BRAIN) == ["controller.surprise", "controller.random"]
    bare = apply_sets(BRAIN, ["hippocampus.enabled=false", "cortex.mixers=recurrence,recurrence"])
    had = ablation_parts.chosen(None, bare)
    assert not {"hippocampus", "cortex.window", "controller.random"} & {*had} and "cortex.recurrence" in had


@pytest.mark.parametrize(
    ("asked", "sets", "what", "do"),
    [
        ("hipocampus", [], "--parts: got 'hipocampus', expected a part of the brain.", "Did you mean 'hippocampus'?"),
        (
            "amygdala",
            ["amygdala.enabled=false"],
            "--parts: got 'amygdala', which this brain does not have.",
            "Leave out amygdala.",
        ),
        ("[]", [], "--parts: got none, expected a part of the brain.", "Known: "),
    ],
    ids=["unknown", "missing", "none"],
)
def test_a_part_that_is_not_there_is_refused(asked, sets, what, do):
    with pytest.raises(UsageError) as error:
        ablation_parts.chosen(asked, apply_sets(BRAIN, sets))
    assert error.value.what == what and error.value.do.startswith(do)


def units(ratio: float, seeds: int = 3, count: int = 40, spread: float = 0.0) -> np.ndarray:
    """[S, N, 2]: every unit has a difficulty of its own, the same in every arm."""
    sizes = np.random.default_rng(9).integers(20, 60, count).astype(float)
    hard = np.random.default_rng(8).normal(0, 0.5, count)
    noise = np.random.default_rng(int(1000 * ratio)).normal(0, spread, (seeds, count))
    return np.stack([(ratio + hard + noise) * sizes, np.broadcast_to(sizes, (seeds, count))], 2)


def test_worth_is_what_the_brain_without_the_part_does_worse():
    found = {WHOLE: units(5.0), "hippocampus": units(5.2), "amygdala": units(4.9)}
    record = ablation_brain.compared(found, better=-1, draws=500)
    worth = record["worth"]
    assert record["units"] == 40
    assert worth["hippocampus"]["worth"] == pytest.approx(0.2) == worth["hippocampus"]["interval"][0]
    assert worth["amygdala"]["worth"] == pytest.approx(-0.1)
    assert worth["hippocampus"]["by_seed"] == pytest.approx([0.2] * 3)
    assert worth["hippocampus"]["p"] == pytest.approx(2 / 500)
    assert worth["hippocampus"]["p_holm"] == pytest.approx(4 / 500)
    assert ablation_brain.compared(found, better=1, draws=500)["worth"]["amygdala"]["worth"] == pytest.approx(0.1)
    low, high = record["values"][WHOLE]["interval"]
    assert high - low > 0.1, "documents differ more than arms do"


def test_controllers_are_compared_with_surprise_at_as_many_writes():
    found = {WHOLE: units(5.0), "controller.surprise": units(5.3), "controller.random": units(5.5)}
    worth = ablation_brain.compared(found, better=-1, draws=200)["worth"]
    assert worth["controller.surprise"]["worth"] == pytest.approx(0.3)
    assert worth["controller.random"]["worth"] == pytest.approx(0.2)


def test_seeds_that_disagree_widen_the_interval():
    apart = units(5.2) + np.array([-0.3, 0.0, 0.3])[:, None, None] * units(5.2)[..., 1:] * np.array([1.0, 0.0])
    wide, narrow = (
        ablation_brain.compared({WHOLE: units(5.0), "amygdala": other}, -1, draws=400)["worth"]["amygdala"]["interval"]
        for other in (apart, units(5.2))
    )
    assert wide[1] - wide[0] > 0.2 > narrow[1] - narrow[0]


def test_no_difference_is_within_its_interval():
    found = {WHOLE: units(5.0, spread=0.2), "amygdala": units(5.001, spread=0.2)}
    row = ablation_brain.compared(found, -1, draws=500)["worth"]["amygdala"]
    assert row["interval"][0] < 0 < row["interval"][1] and row["p_holm"] > 0.05


def record() -> dict:
    arms = [WHOLE, "hippocampus", "controller.surprise", "controller.random"]
    found = {name: units(5.0 + n / 10) for n, name in enumerate(arms)}
    return {
        "seeds": 2,
        "indicative": True,
        "config": {"train": {"steps": 7}},
        "arms": {
            name: {
                "without": PARTS[name].words if name in PARTS else "",
                "against": PARTS[name].against if name in PARTS else None,
                "parameters": 1000,
                "feedforward_width": 48,
            }
            for name in arms
        },
        "measures": {
            "perplexity": ablation_brain.compared(found, -1, draws=100),
            "recall right": ablation_brain.compared(found, 1, draws=100),
        },
        "energy": {name: {"cpu alone": 2.5e-3} for name in arms},
    }


def test_the_tables_hold_every_part_and_what_it_is_compared_with():
    lines, rows = ablation_report.table(record()), ablation_report.markdown(record())
    assert lines[0].startswith("2 seeds, 7 steps each") and lines[-1] == "indicative: a claim needs 5 seeds, this has 2"
    assert any(line.startswith("hippocampus ") and "+0.100 [+0.100, +0.100]" in line for line in lines)
    assert any(row.startswith("| controller.random (against controller.surprise) | +0.100") for row in rows)
    assert any(row.startswith("| hippocampus | +0.100 [+0.100, +0.100] | -10.0 [-10.0, -10.0]") for row in rows)
    assert "| whole | everything on | 1000 | 48 | 2.5 |" in rows
    widths = {row.count("|") for row in rows if row.startswith("|")}
    assert len(widths) == 2, "every row of a table has as many cells"


def test_the_picture_has_a_panel_for_each_measure(tmp_path):
    path = ablation_report.picture(record(), tmp_path / "a.png")
    assert path is not None and path.read_bytes().startswith(b"\x89PNG")


def test_a_frozen_default_is_not_shared():
    settings = ablation_brain.Settings()
    assert dataclasses.replace(settings, rows=3) != settings == ablation_brain.Settings()
