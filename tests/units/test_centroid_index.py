"""Centroid index: exact at full probe, pure when read, one item once, nearest lists after growth, forgetting for good."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from neuro import tensor_file
from neuro.errors import FormatError, MissingError, UsageError
from neuro.memory.centroid_index import SCHEMA, CentroidIndex, IndexConfig
from neuro.plots.index import curves as picture

WIDTH = 16
SMALL = IndexConfig(WIDTH, capacity=2000, list_size=10, probes=8, block=64, half_life_tokens=100.0)


def vectors(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(20, WIDTH, generator=generator)
    return centres[torch.randint(20, (count,), generator=generator)] + torch.randn(count, WIDTH, generator=generator)


def grown(count: int = 1000, config: IndexConfig = SMALL) -> CentroidIndex:
    index = CentroidIndex(config)
    index.add(vectors(count), times=torch.arange(count), segments=torch.arange(count) // 100)
    return index


def contents(index: CentroidIndex, path) -> dict[str, Tensor]:
    index.save(path)
    return tensor_file.read(path, SCHEMA)[0]


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("count", [5, 63, 64, 1000])
@pytest.mark.parametrize("queries", [1, 300])
def test_full_probe_is_the_exact_scan_and_that_is_the_float64_order(count, queries):
    index, asked = grown(count), vectors(queries, seed=1)
    full, exact = index.search(asked, 5, probes=10**6), index.exact(asked, 5)
    assert torch.equal(full.ids, exact.ids) and torch.equal(full.cosines, exact.cosines)
    stored, unit = (torch.nn.functional.normalize(x.double(), dim=1) for x in (vectors(count), asked))
    cosine, ids = (unit @ stored.T).topk(5)
    assert torch.equal(exact.ids, ids)
    torch.testing.assert_close(exact.cosines, cosine, atol=1e-6, rtol=0)


def test_few_probes_find_nearly_all_with_few_products():
    index, asked = grown(2000), vectors(200, seed=1)
    found, exact = index.search(asked, 10, 40), index.exact(asked, 10)
    recall = (found.ids.unsqueeze(2) == exact.ids.unsqueeze(1)).any(2).double().mean()
    assert recall >= 0.95 and found.scanned.double().mean() < 0.75 * len(index)
    assert (exact.scanned == len(index)).all()


def test_rows_of_a_batch_do_not_see_each_other():
    index, asked = grown(), vectors(50, seed=1)
    together = index.search(asked, 5)
    for row in (0, 17, 49):
        alone = index.search(asked[row : row + 1], 5)
        assert all(torch.equal(a[0], b[row]) for a, b in zip(alone, together, strict=True))


def test_reading_changes_nothing_and_the_same_items_make_the_same_index(tmp_path):
    index = grown()
    before = contents(index, tmp_path / "a")
    index.search(vectors(20, seed=1), 3)
    index.exact(vectors(20, seed=1), 3)
    index.neighbours(torch.tensor([5]), 2)
    index.strengths(torch.tensor([5]), 2000)
    assert same(before, contents(index, tmp_path / "b")) and same(before, contents(grown(), tmp_path / "c"))


def test_after_growth_every_settled_row_is_in_its_closest_list_and_no_list_is_long(tmp_path):
    held = contents(grown(2000), tmp_path / "a")
    settled = int(held["counts"].sum())
    lists = torch.repeat_interleave(torch.arange(len(held["counts"])), held["counts"])
    cosine = held["vectors"][:settled] @ held["centroids"].T
    assert (cosine.max(1).values - cosine.gather(1, lists.unsqueeze(1)).squeeze(1)).max() < 1e-6
    assert len(held["counts"]) >= settled / 20 and held["counts"].min() >= 1 and held["counts"].max() <= 60


def test_a_rebuild_keeps_items_and_answers():
    index, asked = grown(), vectors(20, seed=1)
    before = index.exact(asked, 5)
    index.rebuild(rounds=2)
    after = index.search(asked, 5, 10**6)
    assert torch.equal(before.ids, after.ids) and torch.equal(before.cosines, after.cosines)


def test_an_item_that_is_there_is_strengthened_and_takes_the_new_time():
    index = grown()
    again = index.add(3.0 * vectors(1000)[[7, 900, 7]], strengths=2.0, times=1000, segments=99)
    assert again.tolist() == [7, 900, 7] and len(index) == 1000
    expected = [2.0 + 2.0 + 2.0 ** (-993 / 100), 2.0 + 0.5]
    torch.testing.assert_close(index.strengths(torch.tensor([7, 900]), 1000), torch.tensor(expected).double())
    assert index.neighbours(torch.tensor([7]), 1).tolist() == [[-1, 900]]


def test_equals_in_one_block_are_one_item_as_they_are_one_by_one():
    drawn = vectors(30).repeat(3, 1)[torch.randperm(90, generator=torch.Generator().manual_seed(2))]
    at_once, one_by_one = CentroidIndex(SMALL), CentroidIndex(SMALL)
    ids = at_once.add(drawn, 0.5, torch.arange(90))
    assert ids.tolist() == [int(one_by_one.add(row.unsqueeze(0), 0.5, time)) for time, row in enumerate(drawn)]
    assert len(at_once) == 30
    torch.testing.assert_close(at_once.strengths(ids, 90), one_by_one.strengths(ids, 90))


def test_neighbours_in_time_come_along_within_the_segment():
    index = grown(300)
    assert index.neighbours(torch.tensor([50, 100, 299]), 2).tolist() == [
        [48, 49, 51, 52],
        [-1, -1, 101, 102],
        [297, 298, -1, -1],
    ]
    index.forget(torch.tensor([49]))
    assert index.neighbours(torch.tensor([50]), 2).tolist() == [[47, 48, 51, 52]]


def test_strengths_halve_and_the_weakest_now_is_evicted():
    index = CentroidIndex(IndexConfig(WIDTH, capacity=3, block=2, half_life_tokens=100.0))
    ids = index.add(vectors(3), torch.tensor([4.0, 1.0, 1.5]), torch.tensor([0, 150, 150]))
    torch.testing.assert_close(index.strengths(ids, 200), torch.tensor([1.0, 2**-0.5, 1.5 * 2**-0.5]).double())
    new = index.add(vectors(1, seed=3), 1.0, 200)
    assert len(index) == 3 and index.strengths(torch.tensor([0, 2, int(new)]), 200).min() > 0
    with pytest.raises(
        UsageError, match=r"got id 1, expected one of the 3 stored items\.\nIt was forgotten or evicted"
    ):
        index.strengths(ids[1:2], 200)
    assert 1 not in index.exact(vectors(3), 3).ids and 1 not in index.search(vectors(3), 3, 9).ids


def test_strengthening_saves_an_item_and_no_age_overflows():
    index = CentroidIndex(IndexConfig(WIDTH, capacity=2, half_life_tokens=1.0))
    index.add(vectors(2), times=torch.tensor([0, 10_000]))
    index.strengthen(torch.tensor([0, 0]), by=0.5, now=10_001)
    assert index.strengths(torch.tensor([0, 1]), 10_001).tolist() == [1.0, 0.5]
    index.add(vectors(1, seed=3), 0.6, times=10_001)
    assert math.isclose(float(index.strengths(torch.tensor([0]), 10_001)), 1.0)


def test_a_steady_stream_over_capacity_stays_bounded_and_exact():
    config = IndexConfig(WIDTH, capacity=100, list_size=5, block=16, half_life_tokens=100.0)
    index = CentroidIndex(config)
    for start in range(0, 600, 7):
        index.add(vectors(600)[start : start + 7], times=torch.arange(start, min(start + 7, 600)))
    assert len(index) == 100
    found = index.search(vectors(600)[500:], 1, 10**6)
    assert found.ids[:, 0].tolist() == list(range(500, 600))


def test_the_forgotten_is_in_no_answer_and_in_no_row_of_the_file(tmp_path):
    index = grown()
    gone = torch.arange(0, 1000, 9)
    before = contents(index, tmp_path / "a")
    lost = before["vectors"][torch.isin(before["ids"], gone)]
    index.forget(gone)
    assert len(index) == 1000 - len(gone)
    assert not torch.isin(index.exact(vectors(1000), 3).ids, gone).any()
    after = contents(index, tmp_path / "b")
    for kept in (after["vectors"], after["centroids"], index._vectors):
        assert (lost @ kept.T).max() < 0.9999
    lists = torch.repeat_interleave(torch.arange(len(after["counts"])), after["counts"])
    means = torch.stack([after["vectors"][lists == name].double().sum(0) for name in range(len(after["counts"]))])
    near = torch.nn.functional.cosine_similarity(means, after["centroids"].double())
    assert near.median() > 0.999  # of what is left


def test_all_may_be_forgotten_and_the_index_goes_on():
    index = grown(200)
    index.forget(torch.arange(200))
    assert len(index) == 0 and index.lists == 0
    assert index.add(vectors(1)).tolist() == [200]
    assert index.search(vectors(1), 1).ids.tolist() == [[200]]


def test_a_file_keeps_everything(tmp_path):
    index, path, asked = grown(1030), tmp_path / "a.index", vectors(30, seed=1)
    index.save(path)
    other = CentroidIndex.load(path)
    assert other.config == index.config and len(other) == len(index)
    assert all(torch.equal(a, b) for a, b in zip(index.search(asked, 4), other.search(asked, 4), strict=True))
    assert index.add(asked, times=2000).tolist() == other.add(asked, times=2000).tolist()
    assert same(contents(index, path), contents(other, tmp_path / "b"))


def test_missing_truncated_and_inconsistent_files_are_refused(tmp_path):
    path = tmp_path / "a.index"
    with pytest.raises(MissingError, match="no such file"):
        CentroidIndex.load(path)
    held = contents(grown(100), path)
    _, header = tensor_file.read(path, SCHEMA)
    tensor_file.write(path, held | {"counts": held["counts"] + 100}, header)
    with pytest.raises(FormatError, match=r"its items do not fit its lists\.\nIt is foreign"):
        CentroidIndex.load(path)
    tensor_file.write(path, held, {k: v for k, v in header.items() if k != "width"})
    with pytest.raises(FormatError, match="its header is broken"):
        CentroidIndex.load(path)
    tensor_file.write(path, held | {"times": held["times"][:-1]}, header)
    with pytest.raises(FormatError, match="'times' has shape"):
        CentroidIndex.load(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(FormatError, match="not a whole safetensors file"):
        CentroidIndex.load(path)


BAD = torch.ones(2, WIDTH)
NAN = torch.full((1, WIDTH), torch.nan)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda i: i.search(BAD, 101), r"got k = 101, expected 1 to 100, the stored items\.\nAsk for fewer\."),
        (lambda i: i.search(BAD, 0), "got k = 0"),
        (lambda i: i.search(BAD, 1, 0), r"index\.probes: got 0, expected at least 1"),
        (lambda i: i.search(BAD[:, 1:], 1), r"got queries of shape \[2, 15\], expected \[N, 16\]\.\nGive one row"),
        (lambda i: i.exact(BAD[0], 1), r"got queries of shape \[16\]"),
        (lambda i: i.search(BAD[:0], 1), r"got no queries, expected at least 1\.\nLeave the call out"),
        (lambda i: i.search(NAN, 1), "queries with NaN, infinite or all-zero rows"),
        (
            lambda i: i.add(NAN),
            r"vectors with NaN, infinite or all-zero rows, expected finite directions\.\nLeave those",
        ),
        (lambda i: i.add(0 * BAD), "all-zero rows"),
        (lambda i: i.add(BAD[:, :3]), r"got vectors of shape \[2, 3\]"),
        (lambda i: i.add(BAD, 0.0), r"a strength that is not above 0, expected all above 0\.\nLeave it out"),
        (lambda i: i.add(BAD, torch.ones(3)), r"strengths of shape \[3\], expected one number or \[2\]\.\nGive one"),
        (lambda i: i.forget(torch.tensor([1, 100])), "got id 100, expected one of the 100"),
        (lambda i: i.neighbours(torch.tensor([1]), 0), r"index\.reach: got 0"),
        (lambda i: i.strengthen(torch.tensor([1]), math.nan, 0), r"index\.by: got nan, expected above 0"),
        (lambda i: i.rebuild(0), r"index\.rounds: got 0"),
        (lambda i: CentroidIndex(SMALL).search(BAD, 1), r"a search of an empty index.*\nAdd vectors first\."),
        (lambda i: IndexConfig(0), r"index\.width: got 0, expected at least 1\.\nCorrect the value"),
        (lambda i: IndexConfig(4, list_size=1), r"index\.list_size: got 1"),
        (lambda i: IndexConfig(4, same=1.5), r"index\.same: got 1\.5, expected in \(0, 1\]"),
        (lambda i: IndexConfig(4, half_life_tokens=0.0), r"index\.half_life_tokens: got 0"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(call, text, tmp_path):
    index = grown(100)
    before = contents(index, tmp_path / "a")
    with pytest.raises(UsageError, match=text):
        call(index)
    assert same(before, contents(index, tmp_path / "b"))


def test_a_picture_of_curves_is_drawn(tmp_path):
    work = {f"{way}_microseconds": {"median": 10.0} for way in ("batch", "single")}
    curve = [{name: work | {"recall": share, "scanned": share / 2} for name in ("a", "b")} for share in (0.5, 1.0)]
    out = picture({"one": curve, "two": curve}, ["a", "b"], tmp_path / "a.png")
    assert out is None or out.stat().st_size > 1000
