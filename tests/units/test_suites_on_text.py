"""Suites babi, adaptation and generation: their items by hand, their formulas on made-up numbers, what they refuse."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import torch

from neuro import presets
from neuro.brain import Brain
from neuro.config import apply_sets
from neuro.errors import FormatError, MissingError, UsageError
from neuro.evaluate import adaptation, babi, generation
from neuro.evaluate.stream import Stream
from neuro.tokenizer import Tokenizer

STORY = "1 Mary went to the {a}.\n2 John went to the {b}.\n3 Where is Mary? \t{a}\t1\n4 Where is John? \t{b}\t2\n"
FILE = "".join(STORY.format(a=a, b=b) for a in ("hall", "park", "cellar") for b in ("garden", "attic", "park")) * 5
TEXT = "The keeper of the lamp in the harbour is called Victor and was never seen again, not by me or you.\n" * 60


@pytest.fixture(scope="module")
def brain() -> Brain:
    torch.manual_seed(0)
    tokenizer = Tokenizer.train([TEXT, FILE], 300)
    brain = Brain(apply_sets(presets.tiny().brain, [f"vocab_size={tokenizer.vocab_size}"])).eval()
    brain.tokenizer = tokenizer
    with torch.no_grad():
        for name, p in brain.named_parameters():
            if name.endswith("memory.null.bias"):
                p.zero_()
            elif not p.any():
                p.normal_(0.0, 0.3)
    return brain


def test_babi_reads_the_test_files_of_a_zip_a_folder_and_a_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "babi.zip", "w") as archive:
        for name in ("en/qa10_x_test.txt", "en/qa2_y_test.txt", "en/qa2_y_train.txt"):
            archive.writestr(name, FILE if "test" in name else "training")
    assert babi.read(tmp_path / "babi.zip") == {"qa2": FILE, "qa10": FILE}
    (tmp_path / "en").mkdir()
    (tmp_path / "en" / "qa1_z_test.txt").write_text(FILE, encoding="utf-8")
    assert babi.read(tmp_path / "en") == babi.read(tmp_path / "en" / "qa1_z_test.txt") == {"qa1": FILE}
    (tmp_path / "broken.zip").write_bytes(b"PK")
    with pytest.raises(FormatError, match="Give bAbI's zip"):
        babi.read(tmp_path / "broken.zip")
    with pytest.raises(MissingError, match="expected bAbI's zip"):
        babi.read(tmp_path / "none.zip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"without a \*_test.txt, expected bAbI's tasks"):
        babi.read(tmp_path / "empty")


def test_babi_episodes_are_the_stories_in_order_and_share_no_question(brain, monkeypatch):
    monkeypatch.setattr(babi, "QUESTIONS", 4)
    stories = babi.parsed(FILE, "qa1")
    assert len(stories) == 45 and stories[0][2].answer == "hall" and stories[0][2].support == (1,)
    episodes = babi.made(brain, stories, [" hall"], 15, 0, "qa1")
    decode = brain.tokenizer.decode
    said = []
    for episode in episodes:
        stream = [token for step in episode for token in step.tokens]
        for number, step in enumerate(episode):
            (asked,) = step.questions
            ((start, stop),) = asked.support
            sentence = decode(stream[start:stop]).strip()
            assert sentence.endswith(decode(asked.answer).strip() + "."), "the supporting sentence says the answer"
            read = decode([t for s in episode[: number + 1] for t in s.tokens])
            assert read.count("?") == number and decode(asked.cue).startswith("Where is")
        said.append(decode(stream))
    assert sum(len(text) for text in said) < len(FILE)


def test_babi_says_how_much_of_the_recall_is_of_the_supporting_sentences(brain, monkeypatch):
    monkeypatch.setattr(babi, "QUESTIONS", 4)
    record = babi.run(brain, {"qa1": FILE, "qa2": FILE}, seeds=1)
    by_arm = {row["arm"]: row for row in record["rows"] if row["task"] == "qa1"}
    assert 0 < by_arm["real"]["support"] <= 1 and by_arm["off"]["support"] is None
    assert 0 < by_arm["real"]["support_by_length"] < 0.5
    answers = [line.answer for story in babi.parsed(FILE, "qa1") for line in story if line.answer]
    assert by_arm["real"]["majority"] == max(map(answers.count, answers)) / len(answers)
    assert any(line.startswith("recalled from the supporting sentences") for line in babi.table(record))


def test_babi_refuses_what_it_cannot_ask(brain):
    with pytest.raises(UsageError, match="--task: got 'qa9'.*\n?.*Did you mean 'qa1'"):
        babi.run(brain, {"qa1": FILE}, task="qa9")
    with pytest.raises(UsageError, match="qa1, line 1: got 'no number', expected 'ID text'"):
        babi.run(brain, {"qa1": "no number\n"})
    with pytest.raises(UsageError, match=r"babi: got 2 questions of qa1, expected at least 24\."):
        babi.run(brain, {"qa1": STORY.format(a="hall", b="park")})


def test_the_texts_of_a_shift_come_in_their_order_and_with_line_feeds(tmp_path):
    (tmp_path / "b.txt").write_bytes(b"two\r\nlines\r\n")
    (tmp_path / "a.txt").write_bytes(b"one\n")
    assert list(adaptation.read(tmp_path / "b.txt", tmp_path / "a.txt").items()) == [
        ("b", "two\nlines\n"),
        ("a", "one\n"),
    ]
    assert list(adaptation.read(tmp_path)) == ["a", "b"]


def test_adaptation_reads_what_it_says_and_its_pieces_on_forks(brain):
    ids = {"one": list(range(2, 290)) * 20, "two": list(range(289, 1, -1)) * 20}
    places = adaptation.places(ids, 256, 3)
    assert [(len(p.tokens), len(p.piece)) for p in places] == [(256, adaptation.HELD_OUT)] * 2
    found = adaptation._stream(brain, places, "real")
    plain = Stream(brain, ("episodic", "procedural"))
    along = plain.read([brain.tokenizer.bos_id, *places[0].tokens])[1:]
    assert found["read"][0] == pytest.approx(along.reshape(-1, adaptation.BLOCK).mean(1).tolist())
    again = plain.read(places[1].tokens)
    assert found["read"][1] == pytest.approx(again.reshape(-1, adaptation.BLOCK).mean(1).tolist())
    other = adaptation._stream(brain, places, "shuffled")
    assert other["read"] == found["read"] and other["pieces"] != found["pieces"]


def test_slope_drift_gain_and_retention_follow_from_the_blocks():
    """The memory saves 0.1 nats a doubling; of the piece of the first text 0.8 after it, 0.2 at the end."""
    blocks = np.log2(np.arange(1, 9))
    off = [{"read": [[5.0] * 8] * 2, "pieces": [[[4.0] * 4] * 2] * 2}] * 2
    real = [
        {
            "read": [(5.0 - 0.1 * blocks).tolist(), [5.5] * 2 + [4.0] * 6],
            "pieces": [[[3.2] * 4, [4.0] * 4], [[3.8] * 4, [3.0] * 4]],
        }
    ] * 2
    (row,) = adaptation._rows({"real": real, "off": off}, ["one", "two"], 0)
    one, two = row["texts"]
    assert one["slope"] == pytest.approx(0.1) and "drift" not in one
    assert two["drift"] == pytest.approx(-0.5)
    assert (one["gain"], one["at_end"], two["gain"]) == (pytest.approx(0.8), pytest.approx(0.2), pytest.approx(1.0))
    assert row["retention"] == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("raw", "options", "says"),
    [
        ({"one": TEXT}, {}, "adaptation: got 1 text, expected at least two."),
        ({"one": TEXT, "two": TEXT}, {"length": 3}, "--length: got 3, expected at least 256."),
        ({"one": TEXT, "two": "short"}, {"length": 256}, r"tokens of two, expected at least 1280 \(256 and a piece"),
        ({"one": TEXT, "two": TEXT}, {"seeds": 0}, "adaptation: got 0 seeds, expected at least 1."),
    ],
)
def test_adaptation_refuses_what_it_cannot_measure(raw, options, says, brain):
    with pytest.raises(UsageError, match=says):
        adaptation.run(brain, raw, **options)


def test_measures_of_a_text_by_hand():
    ids = [1, 2, 1, 2, 1, 2, 3, 4]
    assert generation.repeated(ids, 2) == pytest.approx(1 - 4 / 7)
    assert generation.loops([7, 8] * 20) and not generation.loops(list(range(40)))
    counts = [1000 // rank for rank in range(1, 200)]
    assert generation.zipf(counts) == pytest.approx(1.0, abs=0.1)
    found = generation.measure(
        np.array([[1, 2, 3, 4, 5]] * 2), np.array([list(range(1, 41)), [9] * 40]), np.ones(80), np.array([0, 1])
    )
    assert found["rep_4"] == pytest.approx((0 + 36 / 37) / 2)
    assert found["loops"] == 0.5 and found["distinct_1"] == pytest.approx(40 / 80)
    assert found["copied_4"] == pytest.approx((2 / 37) / 2)
    assert found["rep_4_interval"][0] == 0.0


def test_a_continuation_costs_what_a_session_says_and_arms_differ(brain):
    """Greedy by a single-token nucleus is not needed: the nats of the people's text are those of plain reading."""
    rows, owners = generation.windows(brain, TEXT, 3, wikitext=False)
    assert rows.shape == (3, generation.PROMPT + generation.WRITTEN) and len(owners) == 3
    found = generation._written(brain, rows, None, 0)
    assert found["ids"] == rows[:, generation.PROMPT :].tolist()
    nats = torch.tensor(found["nats"]).reshape(generation.WRITTEN, 3).T
    for row, cost in zip(rows.tolist(), nats, strict=True):
        stream = Stream(brain, ("episodic", "procedural"))
        stream.read(row[: generation.PROMPT])
        by_hand = stream.read(row[generation.PROMPT :])
        # The first token after the commit is predicted by the logits before it in both.
        assert cost.numpy() == pytest.approx(by_hand, abs=1e-4)
    written = {
        arm: generation._written(brain, rows[:, : generation.PROMPT], arm, 0)["ids"]
        for arm in ("real", "off", "shuffled")
    }
    assert written["real"] == generation._written(brain, rows[:, : generation.PROMPT], "real", 0)["ids"]
    assert len({str(ids) for ids in written.values()}) == 3
    assert not {brain.tokenizer.bos_id, brain.tokenizer.unk_id} & {
        t for ids in written.values() for row in ids for t in row
    }


def test_the_suite_compares_people_and_arms_and_needs_enough_text(brain):
    record = generation.run(brain, TEXT, samples=4)
    assert list(record["found"]) == ["human", "real", "episodic", "procedural", "shuffled", "off"]
    assert len(generation.table(record)) == 2 + 6
    with pytest.raises(UsageError, match=r"places of 191 tokens inside its articles or blocks, expected 1000\."):
        generation.run(brain, TEXT, samples=1000)
    with pytest.raises(UsageError, match="got 1 samples, expected at least 2"):
        generation.run(brain, TEXT, samples=1)


def test_continuations_of_one_article_have_no_interval(brain, tmp_path, monkeypatch):
    monkeypatch.setattr(generation, "WRITTEN", 24)
    record = generation.run(brain, TEXT.replace("\n", " "), samples=2)
    assert record["articles"] == 1 and record["sampler"] == {"temperature": 1.0, "top_p": 0.95}
    assert all(m["rep_4_interval"] is None and m["diversity_interval"] is None for m in record["found"].values())
    assert "[one article]" in generation.table(record)[2]
    assert generation.picture(record, tmp_path / "g.png").exists()
