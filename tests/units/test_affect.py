"""The affect head: texts as numbers, vectors by counting, n-grams, training, measures, the stored file and what it says."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest
import torch

from neuro.affect import corpora, fit, measures, ngrams, reader, vectors, words
from neuro.affect.encoder import AffectNet, EncoderConfig
from neuro.errors import FormatError, MissingError, UsageError

GOOD = ["good lovely day", "a lovely good thing", "what a good day", "lovely lovely day"]
BAD = ["bad awful night", "an awful bad thing", "what a bad night", "awful awful night"]
needs_data = pytest.mark.skipif("NEURO_DATA" not in os.environ, reason="NEURO_DATA is not set")


def vocabulary() -> words.Vocabulary:
    return words.Vocabulary(["a", "good", "bad", "day"], {"good": 1.9, "awful": -2.0}, 64, 64)


def small(**changes: float) -> EncoderConfig:
    sizes = dict(words=4, piece_rows=64, phrase_rows=64, width=8, phrase_width=4, single=4, triple=4)
    return EncoderConfig(**(sizes | changes))


def task(name: str = "positive") -> fit.Task:
    labels = torch.tensor([[1.0]] * 4 + [[0.0]] * 4)
    return fit.Task(name, vocabulary().encode(GOOD + BAD), labels, 1)


def made() -> reader.Reader:
    torch.manual_seed(0)
    net = AffectNet(small(), dict(zip(reader.HEADS, (2, 3, 1, 1), strict=True)))
    found = ngrams.listed(GOOD + BAD, 128)
    inverse = ngrams.frequencies(found, 128)
    wide = {
        head: reader.Wide(inverse, torch.randn(128, size), torch.randn(size), 0.5)
        for head, size in (("emotion", 2), ("intent", 3))
    }
    cuts = reader.Cuts((0.0, 9.0))
    return reader.Reader(net, vocabulary(), ("joy", "fear"), ("bill", "pay", "oos"), cuts, wide)


def test_a_text_is_cut_into_words_signs_and_emoticons():
    assert words.cut("I'm soooooo HAPPY :) <3 !!!") == ["i'm", "sooo", "happy", ":)", "<3", "!", "!", "!"]
    assert words.cut("日本 Привет 42") == ["日本", "привет", "42"]
    assert words.cut(" \n") == []


def test_rows_are_the_same_everywhere():
    assert [words.hashed(text, 1000) for text in ("a", "日本")] == [907, 756]
    assert words.pieces("ab") == ["<ab", "ab>", "<ab>"] and words.pieces("!") == ["!"]


def test_lists_are_taken_in_any_order():
    lists = words.Lists([[1, 2], [], [3]])
    values, starts, lengths = lists.take(np.array([2, 1, 0]))
    assert values.tolist() == [3, 1, 2] and starts.tolist() == [0, 1, 1] and lengths.tolist() == [1, 0, 2]


def test_features_of_a_text_do_not_depend_on_its_batch():
    torch.manual_seed(0)
    net = AffectNet(small(), {"x": 2}).eval()
    texts = vocabulary().encode(["good", "a bad day and a long one", "日本"])
    together = net.features(texts.batch(np.arange(3)))
    alone = torch.cat([net.features(texts.batch(np.array([i]))) for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-6) and torch.isfinite(together).all()
    assert torch.allclose(fit.features(net, texts, batch=2), together, atol=1e-6)


def test_the_order_of_words_matters():
    net = AffectNet(small(), {"x": 2}).eval()
    one, other = net.features(vocabulary().encode(["a good day", "day good a"]).batch(np.arange(2)))
    assert not torch.allclose(one, other)


def test_words_in_like_places_get_like_vectors():
    random = np.random.default_rng(0)
    animals, tools = ["cat", "dog", "cow"], ["saw", "axe", "nail"]
    sentences = []
    for _ in range(400):
        own, verbs = (
            (animals, ["eats", "runs", "sleeps"]) if random.random() < 0.5 else (tools, ["cuts", "rusts", "bends"])
        )
        sentences.append(["the", random.choice(own), random.choice(verbs), "now"])
    known, counts, table = vectors.learn(sentences, 6)
    row = {word: table[i] for i, word in enumerate(known)}
    assert counts == sorted(counts, reverse=True) and table.shape == (len(known), 6)

    def like(a: str, b: str) -> float:
        return float(torch.cosine_similarity(row[a], row[b], dim=0))

    assert min(like("cat", "dog"), like("saw", "axe")) > max(like("cat", "saw"), like("dog", "nail")) + 0.3


def test_bags_are_a_matrix_and_its_transpose():
    found = ngrams.listed(GOOD + BAD, 32)
    x = ngrams.bags(found, ngrams.frequencies(found, 32))
    dense = x.times(torch.eye(32))
    assert torch.allclose(dense.square().sum(1), torch.ones(8), atol=1e-5)
    assert torch.allclose(x.turned(32).times(torch.eye(8)), dense.T)


def test_an_unknown_text_is_an_empty_bag():
    found = ngrams.listed(GOOD, 1 << 16)
    x = ngrams.bags(ngrams.listed(["日本"], 1 << 16), ngrams.frequencies(found, 1 << 16))
    assert x.times(torch.ones(1 << 16, 2)).tolist() == [[0.0, 0.0]]


def test_the_fit_of_values_is_the_closed_form():
    found = ngrams.listed(GOOD + BAD, 16)
    x = ngrams.bags(found, ngrams.frequencies(found, 16))
    dense, y = x.times(torch.eye(16)).double(), torch.linspace(-1, 1, 8).unsqueeze(1)
    table, bias = ngrams.fit(x, 16, y, "values", 0.5, steps=200)
    design = torch.cat([dense, torch.ones(8, 1, dtype=torch.float64)], 1)
    penalty = torch.eye(17, dtype=torch.float64)
    penalty[-1, -1] = 0.0
    exact = torch.linalg.solve(design.T @ design + penalty, design.T @ y.double())
    assert torch.allclose(torch.cat([table, bias.unsqueeze(0)]).double(), exact, atol=1e-4)


@pytest.mark.parametrize("kind", ["labels", "classes"])
def test_the_fit_of_classes_stands_where_the_slope_is_zero(kind):
    found = ngrams.listed(GOOD + BAD, 256)
    x = ngrams.bags(found, ngrams.frequencies(found, 256))
    y = torch.tensor([[1.0, 0.0]] * 4 + [[0.0, 1.0]] * 4)
    table, bias = ngrams.fit(x, 256, y, kind, 0.1, steps=100)
    logits = x.times(table) + bias
    slope = (logits.sigmoid() if kind == "labels" else logits.softmax(1)) - y
    assert (x.turned(256).times(slope) + 0.2 * table).abs().max() < 1e-3
    assert (logits.argmax(1) == y.argmax(1)).all()


def test_an_unknown_kind_of_fit_is_named():
    found = ngrams.listed(GOOD, 16)
    x = ngrams.bags(found, ngrams.frequencies(found, 16))
    with pytest.raises(UsageError, match="got kind 'odd' and penalty 1.0, expected one of labels, classes, values"):
        ngrams.fit(x, 16, torch.ones(4, 1), "odd", 1.0)


def test_training_learns_and_repeats_itself():
    plan = fit.Plan(epochs=60, batch=4, layer_rate=1e-2)
    first, second = (fit.fit(small(dropout=0.0), [task()], None, plan) for _ in range(2))
    with torch.no_grad():
        logits = first(task().texts.batch(np.arange(8)), "positive")[:, 0]
    assert (logits[:4] > 0).all() and (logits[4:] < 0).all()
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_training_leaves_the_random_state_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    fit.fit(small(), [task()], None, fit.Plan(epochs=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loss_that_is_not_finite_is_named():
    broken = dataclasses.replace(task(), labels=torch.full((8, 1), float("nan")))
    with pytest.raises(fit.NeuroError, match="the loss of 'positive' in epoch 1 is not finite"):
        fit.fit(small(), [broken], None, fit.Plan(epochs=1))


def test_plans_and_sizes_are_checked():
    with pytest.raises(UsageError, match="plan: got 0 epochs"):
        fit.Plan(epochs=0)
    with pytest.raises(UsageError, match=r"encoder: got dropout = 1.0, expected 0 to below 1.\nCorrect dropout."):
        small(dropout=1.0)


def test_ridge_is_least_squares_where_the_penalty_is_small():
    torch.manual_seed(0)
    x, weight = torch.randn(50, 3), torch.tensor([[1.0, -2.0, 0.5]])
    found, bias = fit.ridge(x, x @ weight.T + 4.0, 1e-6)
    assert torch.allclose(found, weight, atol=1e-4) and torch.allclose(bias, torch.tensor([4.0]), atol=1e-4)
    with pytest.raises(UsageError, match="ridge: got penalty 0"):
        fit.ridge(x, x, 0)


def test_thresholds_are_the_best_ones():
    random = np.random.default_rng(0)
    labels, scores = random.random((60, 2)) < 0.3, random.random((60, 2))
    cuts = measures.thresholds(labels, scores)
    best = measures.f1(labels, scores > cuts)
    for cut in np.linspace(-0.1, 1.1, 200):
        assert (measures.f1(labels, scores > cut) <= best + 1e-12).all()


def test_areas_and_recalls_are_counted():
    random = np.random.default_rng(0)
    a, b = random.integers(0, 5, 30).astype(float), random.integers(0, 5, 40).astype(float)
    pairs = (a[:, None] > b).mean() + 0.5 * (a[:, None] == b).mean()
    assert measures.auroc(a, b) == pytest.approx(pairs)
    right = np.array([True, True, False, True])
    assert measures.recall_at_accuracy(right, np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.5, 1.5]), 0.5) == (0.5, 1.0)
    assert measures.recall_at_accuracy(right, np.zeros(4), np.ones(2), 0.9) == (0.0, float("inf"))
    assert measures.correlation(np.ones(3), np.arange(3.0)) == 0.0


def test_a_stored_head_says_the_same(tmp_path):
    one = made()
    reader.save(one, tmp_path / "a.safetensors", {"seed": 0})
    other = reader.load(tmp_path / "a.safetensors")
    texts = ["good lovely day", "an awful thing", "日本"]
    for head, value in one.logits(texts).items():
        assert torch.allclose(other.logits(texts)[head], value, atol=0.08), head
    again = tmp_path / "b.safetensors"
    reader.save(other, again, {"seed": 0})
    assert torch.equal(reader.load(again).logits(texts)["emotion"], other.logits(texts)["emotion"])
    assert other.vocabulary.lexicon["good"] == pytest.approx(1.9, abs=1e-3)


def test_what_it_says_of_a_text_is_in_bounds():
    affect, foreign = made().read(["Good day!", "日本 本日"])
    assert set(affect.emotions) <= {"joy", "fear"} and 0.0 <= affect.positive <= 1.0 and affect.vad is None
    assert affect.known == 1.0 and foreign.known == 0.0
    assert (affect.intent is None) == (affect.out_of_scope > 0.0)


@pytest.mark.parametrize("text", ["!!!", "🙂", "日本 本日", "-- ..."])
def test_a_text_without_a_word_it_knows_has_no_intent(text):
    one = made()
    one.cuts = reader.Cuts(one.cuts.emotion, out_of_scope=1e9)  # nothing looks out of scope
    (said,) = one.read([text])
    assert said.known == 0.0 and said.intent is None and said.out_of_scope < 0.0
    assert one.read(["good day"])[0].intent is not None


def test_a_valence_head_is_stored_beside(tmp_path):
    one = made()
    inputs = reader.Vad.inputs(one.logits(GOOD))
    inverse = one.wide["emotion"].inverse
    wide = reader.Wide(inverse, torch.randn(128, 3), torch.full((3,), 3.0), 0.25)
    one.vad = reader.Vad(0.1 * torch.randn(3, inputs.shape[1]), torch.full((3,), 3.0), wide)
    reader.save(one, tmp_path / "a.safetensors", {})
    reader.save_vad(one.vad, tmp_path / "vad.safetensors", {})
    found = reader.load(tmp_path / "a.safetensors", tmp_path / "vad.safetensors").read(GOOD)
    expected = one.vad.read(one.logits(GOOD), GOOD).clamp(1.0, 5.0)
    assert torch.allclose(torch.tensor([affect.vad for affect in found]), expected, atol=0.05)


def test_empty_texts_and_missing_files_are_named(tmp_path):
    with pytest.raises(UsageError, match=r"affect: got no text, expected at least one.\nGive a text."):
        made().read([])
    with pytest.raises(
        UsageError, match=r"affect: got one text, expected a list of them.\nPut it in a list: \[text\]."
    ):
        made().read("good")
    with pytest.raises(UsageError, match=r"affect: text 2 of 2 is empty, expected at least one word.\nLeave it out."):
        made().read(["good", " \t"])
    with pytest.raises(MissingError, match="no such file"):
        reader.load(tmp_path / "none")
    (tmp_path / "torn").write_bytes(b"torn")
    with pytest.raises(FormatError, match="truncated or foreign"):
        reader.load(tmp_path / "torn")


def test_a_file_whose_words_do_not_fit_is_named(tmp_path):
    one = made()
    one.vocabulary.known.append("more")
    reader.save(one, tmp_path / "a.safetensors", {})
    with pytest.raises(FormatError, match=r"words, names and cuts do not agree with its sizes.\nUse another copy."):
        reader.load(tmp_path / "a.safetensors")


@needs_data
def test_the_real_sets_have_their_published_sizes():
    assert [len(corpora.goemotions(split).texts) for split in corpora.SPLITS] == [43410, 5426, 5427]
    assert [len(corpora.emobank(split).texts) for split in corpora.SPLITS] == [8062, 1000, 1000]
    clinc = corpora.clinc150("test")
    assert len(clinc.texts) == 5500 and (clinc.labels == 150).sum() == 1000 and clinc.names[150] == "oos"
    parts = [corpora.polarity(split) for split in corpora.SPLITS]
    assert sum(len(part.texts) for part in parts) == 10662 and len(parts[2].texts) == 1068
    assert sum(len(corpora.subjectivity(split).texts) for split in corpora.SPLITS) == 10000
    assert corpora.vader()["good"] == 1.9 and corpora.stress()["prosody"] == "100"
    spoken = [word for sentence in corpora.prosody("test") for word in sentence]
    assert sum(word.prominence is not None for word in spoken) == 90063


@pytest.mark.parametrize(
    ("name", "text", "load", "message"),
    [
        (
            "goemotions/test.tsv.gz",
            "a\t99\tx\n",
            lambda root: corpora.goemotions("test", root),
            "test.tsv.gz, line 1: expected text",
        ),
        ("emobank/emobank.csv.gz", "a,b\n1,2\n", lambda root: corpora.emobank("test", root), "expected columns split"),
        ("clinc150/data_full.json.gz", "{}", lambda root: corpora.clinc150("test", root), "expected lists of"),
        (
            "helsinki-prosody/test.txt.gz",
            "word\t0\n",
            lambda root: corpora.prosody("test", root),
            "line 1: expected a word",
        ),
        ("vader/vader_lexicon.txt.gz", "word\n", corpora.vader, "line 1: expected a word and its valence"),
    ],
)
def test_a_foreign_file_is_named(tmp_path, name, text, load, message):
    import gzip

    path = tmp_path / name
    path.parent.mkdir()
    path.write_bytes(gzip.compress(text.encode()))
    (path.parent / "emotions.txt").write_text("joy\nfear\n")
    with pytest.raises(FormatError, match=message) as caught:
        load(tmp_path)
    assert caught.value.do == "It is truncated or foreign: use another copy."
    path.write_bytes(b"\x1f\x8btorn")
    with pytest.raises(FormatError, match="not a whole file"):
        load(tmp_path)
