"""The ablation table: made-up arms give back what was put in, ties and small samples are not passed over."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from neuro.errors import UsageError
from neuro.evaluate import ablation

N = 40
WORDS, BYTES = np.full(N, 50.0), np.full(N, 250.0)


def arm(mean: float, seeds: int = 3, seed: int = 0, spread: float = 5.0) -> np.ndarray:
    """[seeds, N]: a document's own difficulty is the same in every arm."""
    difficulty = np.random.default_rng(99).normal(0, 30, N)
    return mean + difficulty + np.random.default_rng(seed).normal(0, spread, (seeds, N))


def test_holm_by_hand():
    assert ablation.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert ablation.holm([0.5, 0.9]) == [1.0, 1.0]
    assert ablation.holm([]) == []
    with pytest.raises(UsageError, match="expected values in 0..1"):
        ablation.holm([1.2])


def test_values_are_those_of_the_sums():
    flat = np.full((1, N), 200.0)
    record = ablation.compare({"real": flat, "off": flat + 10.0}, WORDS, BYTES, "real", draws=200)
    real, off = record["arms"]["real"], record["arms"]["off"]
    assert real["word_perplexity"] == pytest.approx(np.exp(4.0)) and real["by_seed"] == [real["word_perplexity"]]
    assert off["bits_per_byte"] == pytest.approx(210 / np.log(2) / 250)
    assert record["differences"]["off"]["nats_per_word"] == pytest.approx(0.2)
    assert record["differences"]["off"]["interval"] == pytest.approx((0.2, 0.2))
    assert record["differences"]["off"]["p"] == pytest.approx(2 / 200) and record["tied"] == []


def test_a_difference_is_paired_and_no_difference_is_none():
    nats = {"real": arm(200), "off": arm(205, seed=1), "same": arm(200, seed=2), "base": arm(220, seeds=1, seed=3)}
    record = ablation.compare(nats, WORDS, BYTES, "real", draws=2000)
    found = record["differences"]
    low, high = found["off"]["interval"]
    assert 0.0 < low < 0.1 and high - low < 0.1, "far narrower than the spread of documents, 0.4"
    assert found["off"]["p_holm"] < 0.01 and found["base"]["p_holm"] < 0.01
    assert found["same"]["p_holm"] > 0.05 and found["same"]["interval"][0] < 0 < found["same"]["interval"][1]
    assert all(found[name]["p_holm"] >= found[name]["p"] for name in found)
    text = "\n".join(ablation.table(record))
    assert "40 documents, 3 seeds" in text and "real saves" in text and "(Holm)" in text and "tie" not in text


def test_seeds_that_disagree_widen_the_interval():
    apart = arm(205, seed=1) + np.array([[-15.0], [0.0], [15.0]])
    alike = arm(205, seed=1)
    widths = []
    for other in (alike, apart):
        record = ablation.compare({"real": arm(200), "off": other}, WORDS, BYTES, "real", draws=1000)
        low, high = record["differences"]["off"]["interval"]
        widths.append(high - low)
    assert widths[1] > 3 * widths[0]


def test_the_false_alarm_rate_is_what_it_should_be():
    """Arms without a difference: p below 0.05 about once in twenty."""
    low = 0
    for trial in range(60):
        nats = {"real": arm(200, 1, seed=2 * trial), "off": arm(200, 1, seed=2 * trial + 1)}
        low += ablation.compare(nats, WORDS, BYTES, "real", draws=400)["differences"]["off"]["p"] < 0.05
    assert low <= 9


def test_an_exact_tie_warns():
    nats = {"real": arm(200), "off": arm(200), "base": arm(210, seeds=1)}
    with pytest.warns(ablation.TiedArmsWarning, match="arms 'real' and 'off' tie exactly"):
        record = ablation.compare(nats, WORDS, BYTES, "real", draws=100)
    assert record["tied"] == [["real", "off"]] and ablation.table(record)[-1] == "exact tie: real and off"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ablation.compare({"real": arm(200), "off": arm(200, seed=1)}, WORDS, BYTES, "real", draws=100)


def test_a_constant_arm_of_one_seed_ties_with_equal_seeds():
    one = arm(200, seeds=1)
    with pytest.warns(ablation.TiedArmsWarning):
        ablation.compare({"real": np.repeat(one, 3, 0), "base": one}, WORDS, BYTES, "real", draws=100)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda a: ({"real": a["real"][:, :9], "off": a["off"][:, :9]}, WORDS[:9], BYTES[:9], "real"),
            "got 9 documents",
        ),
        (lambda a: (a, WORDS, BYTES, "reel"), "got reference 'reel', expected one of real, off"),
        (lambda a: (a | {"off": a["off"][:2]}, WORDS, BYTES, "real"), "arm 'off' has shape [2, 40], expected [3, 40]"),
    ],
    ids=["few", "reference", "shape"],
)
def test_what_cannot_be_compared_is_refused(change, text):
    with pytest.raises(UsageError) as error:
        ablation.compare(*change({"real": arm(200), "off": arm(205)}))
    assert text in error.value.what and error.value.do
