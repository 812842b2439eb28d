"""Pictures of spikes hold what they were given: counted in the SVG, and of the stated kind and size as a PNG."""

from __future__ import annotations

import itertools
import struct
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")
from neuro import plots
from neuro.errors import UsageError
from neuro.plots import spikes as pictures

SVG = "{http://www.w3.org/2000/svg}"


def svg(path: Path) -> ElementTree.Element:
    root = ElementTree.parse(path).getroot()
    assert root.tag == f"{SVG}svg"
    return root


def texts(root: ElementTree.Element) -> list[str]:
    return ["".join(element.itertext()).strip() for element in root.iter(f"{SVG}text")]


def ticks(root: ElementTree.Element, name: str) -> int:
    """Marks drawn in the group of a population."""
    (group,) = [element for element in root.iter(f"{SVG}g") if element.get("id") == f"spikes:{name}"]
    drawn = [element for element in group.iter() if element.tag in (f"{SVG}path", f"{SVG}use")]
    return len(drawn) - len(list(group.iter(f"{SVG}defs")))


def png_size(path: Path) -> tuple[int, int]:
    raw = path.read_bytes()
    assert raw[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", raw[16:24])


def fired(steps: int, neurons: int, rate: float = 0.1, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random((steps, neurons)) < rate).astype(np.uint8)


EVERY = {
    "raster": lambda out: pictures.raster({"a": fired(30, 9)}, out),
    "membrane": lambda out: pictures.membrane({"a": fired(30, 9) * 1.0}, {"a": fired(30, 9)}, out),
    "rates": lambda out: pictures.rates({"a": fired(30, 9).sum(0)}, 30, out),
    "weights": lambda out: pictures.weights({"a": fired(30, 9) - 0.5}, out),
    "surrogate": lambda out: pictures.surrogate({"a": (np.arange(5.0), np.ones(5))}, out),
}


@pytest.mark.parametrize("name", EVERY)
def test_each_is_drawn_as_png_and_svg_and_the_same_twice(name, tmp_path):
    for suffix in (".png", ".svg"):
        first, second = (EVERY[name](tmp_path / f"{number}{suffix}") for number in range(2))
        assert first == tmp_path / f"0{suffix}" and first.read_bytes() == second.read_bytes()
    width, height = png_size(tmp_path / "0.png")
    assert 1000 <= width <= 2800 and height >= 300
    assert len(texts(svg(tmp_path / "0.svg"))) > 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.png", "0.svg", "1.png", "1.svg"]


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("wrong", ["x.pdf", "x", "x.PNG", "png"])
def test_another_suffix_is_refused(name, wrong, tmp_path):
    with pytest.raises(UsageError) as caught:
        EVERY[name](tmp_path / wrong)
    assert caught.value.what == f"picture: got '{tmp_path / wrong}', expected a name that ends in .png or .svg."
    assert caught.value.do == "Rename it." and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", EVERY)
def test_without_matplotlib_there_is_no_picture(name, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "_pyplot", lambda: None)
    assert EVERY[name](tmp_path / "x.png") is None and not list(tmp_path.iterdir())


def test_a_raster_has_one_tick_for_each_spike(tmp_path):
    populations = {"first": fired(50, 40), "second": fired(50, 12, 0.3, seed=1), "silent": np.zeros((50, 8))}
    root = svg(pictures.raster(populations, tmp_path / "x.svg", step="token", commits=[15, 31]))
    for name, spikes in populations.items():
        assert ticks(root, name) == np.count_nonzero(spikes), name
    said = texts(root)
    assert f"first  (40 neurons, {100 * populations['first'].mean():.1f} % fire per token)" in said
    assert {"token", "neuron", "commit"} <= set(said)


def test_of_many_neurons_a_raster_draws_some_and_says_so(tmp_path):
    spikes = fired(20, 500)
    root = svg(pictures.raster({"a": spikes}, tmp_path / "x.svg", most=10))
    kept = np.linspace(0, 499, 10).astype(int)
    assert ticks(root, "a") == np.count_nonzero(spikes[:, kept])
    assert any(text.startswith("a  (10 of 500 neurons, ") for text in texts(root))
    assert {"0", "499"} <= set(texts(root)), "the axis counts all neurons"


def test_with_a_step_in_milliseconds_time_and_rate_have_units(tmp_path):
    spikes = np.zeros((100, 10))
    spikes[::10] = 1  # one spike in ten steps of 2 ms: 50 Hz
    said = texts(svg(pictures.raster({"a": spikes}, tmp_path / "x.svg", first=1000, dt_ms=2.0)))
    assert {"time (ms)", "rate (Hz)", "a  (10 neurons, 50.0 Hz)"} <= set(said)
    assert {"2000", "2200"} & set(said), "the axis begins where the range does"
    said = texts(svg(pictures.rates({"a": spikes.sum(0)}, 100, tmp_path / "y.svg", dt_ms=2.0)))
    assert {"firing rate (Hz)", "mean 50", "median 50", "a  (10 neurons, 0.0 % silent)"} <= set(said)


def test_the_rate_of_a_long_run_is_averaged_over_bins_and_says_so(tmp_path):
    spikes = fired(1000, 5)
    for dt_ms, words in ((None, ("fire per", "step (%)", "in 3 steps")), (0.5, ("rate (Hz)", "in 1.5 ms"))):
        said = " ".join(texts(svg(pictures.raster({"a": spikes}, tmp_path / "x.svg", dt_ms=dt_ms))))
        assert all(word in said for word in words)


def test_tokens_are_written_while_there_is_room(tmp_path):
    labels = ["the", "$5", "line\n", *["x"] * 157]
    said = texts(svg(pictures.raster({"a": fired(160, 3)}, tmp_path / "x.svg", labels=labels)))
    assert {"the", "$5", "line↵"} <= set(said) and said.count("x") == 157
    said = texts(svg(pictures.raster({"a": fired(321, 3)}, tmp_path / "y.svg", labels=["x"] * 321)))
    assert "the" not in said


def test_a_very_full_raster_becomes_an_image_in_the_svg(tmp_path):
    root = svg(pictures.raster({"a": np.ones((400, 64))}, tmp_path / "x.svg"))
    assert len(list(root.iter(f"{SVG}image"))) == 1
    assert (tmp_path / "x.svg").stat().st_size < 400_000


def test_membranes_are_those_of_the_most_and_the_least_active(tmp_path):
    u = np.random.default_rng(0).standard_normal((60, 30))
    spikes = (u >= 1.0).astype(np.uint8)
    spikes[:, 10:] = 0
    spikes[:, 3] = 1
    root = svg(
        pictures.membrane({"a": u}, {"a": spikes}, tmp_path / "x.svg", threshold=1.0, after={"a": u - spikes}, most=3)
    )
    counts = spikes.sum(0)
    drawn = [int(text.removeprefix("no. ")) for text in texts(root) if text.startswith("no. ")]
    assert drawn[0] == 3 and len(drawn) == 3
    assert counts[drawn[2]] == counts[counts > 0].min() and counts[drawn].tolist() == sorted(counts[drawn])[::-1]
    for neuron in drawn:
        assert ticks(root, f"a:{neuron}") == counts[neuron]
    assert {"spike", "threshold (1)", "membrane potential (a.u.)", "step"} <= set(texts(root))


def test_silent_neurons_are_drawn_for_want_of_others(tmp_path):
    u = np.zeros((20, 3))
    root = svg(pictures.membrane({"a": u}, {"a": u}, tmp_path / "x.svg", unit="mV", dt_ms=1.0))
    assert [text for text in texts(root) if text.startswith("no. ")] == ["no. 0", "no. 1", "no. 2"]
    assert {"membrane potential (mV)", "time (ms)"} <= set(texts(root))


def test_rates_say_who_is_silent(tmp_path):
    said = texts(svg(pictures.rates({"a": np.array([0, 0, 0, 4])}, 8, tmp_path / "x.svg", step="token")))
    assert {"a  (4 neurons, 75.0 % silent)", "mean 0.125", "median 0", "spikes per token"} <= set(said)


def test_nobody_firing_is_a_picture_too(tmp_path):
    nothing = np.zeros((10, 4))
    for out in (
        pictures.raster({"a": nothing}, tmp_path / "a.png"),
        pictures.rates({"a": nothing.sum(0)}, 10, tmp_path / "b.png"),
        pictures.weights({"a": nothing}, tmp_path / "c.png"),
    ):
        assert min(png_size(out)) > 100


def test_a_weight_is_called_by_its_size_mean_and_spread(tmp_path):
    weight = np.tile([[1.0, -1.0]], (6, 10))
    root = svg(pictures.weights({"project": weight}, tmp_path / "x.svg"))
    assert {"project  [6 x 20]", "mean 0, s.d. 1", "from", "to", "synapses"} <= set(texts(root))
    assert len(list(root.iter(f"{SVG}image"))) >= 1


def test_a_surrogate_shows_where_the_membranes_lie(tmp_path):
    u = np.linspace(-2, 4, 61)
    curves = {"arctan": (u, 1 / (1 + u**2)), "box": (u, 1.0 * (abs(u) < 1))}
    alone = pictures.surrogate(curves, tmp_path / "x.svg")
    both = pictures.surrogate(curves, tmp_path / "y.svg", membranes={"layer": np.array([0.0, 0.5, 1.0, 9.0])})
    assert {"ds/du, arctan", "ds/du, box", "spike s(u)"} <= set(texts(svg(alone)))
    assert "layer (25.0 % outside)" in texts(svg(both)) and not any("layer" in text for text in texts(svg(alone)))


@pytest.mark.parametrize("shapes", [[(5, 2), (6, 2)], [(5,)], [(0, 3)], [(5, 0)], [(5, 2, 3)], []])
def test_arrays_of_another_shape_are_refused(shapes, tmp_path):
    populations = {str(number): np.zeros(shape) for number, shape in enumerate(shapes)}
    with pytest.raises(UsageError, match=r"expected \[steps, neurons\] with the same steps.*\nTake one row of a batch"):
        pictures.raster(populations, tmp_path / "x.png")


@pytest.mark.parametrize("tokens", [4, 100, 195, 320])
def test_no_token_is_written_over_the_next(tokens, tmp_path, monkeypatch):
    """Of the overview: as many are written as have room, from the first on, evenly."""
    kept = []
    monkeypatch.setattr(plots, "_save", lambda pyplot, figure, out: kept.append(figure))
    flat = {"x": np.zeros(tokens)}
    plots.limbic_raster(["gj|"] * tokens, {"a": fired(tokens, 8)}, flat, flat, [], tmp_path / "x.png")
    axis = kept[0].axes[-1]
    kept[0].canvas.draw()
    boxes = [label.get_window_extent() for label in axis.get_xticklabels()]
    assert len(boxes) == tokens if tokens <= 100 else tokens / 4 <= len(boxes) < tokens
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
    assert set(np.diff(axis.get_xticks())) == {-(-tokens // len(boxes))} and axis.get_xticks()[0] == 0
