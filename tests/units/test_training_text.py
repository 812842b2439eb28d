"""What a model has read: found again whatever the spelling, refused, named, and nothing said about what is too short."""

from __future__ import annotations

import numpy as np
import pytest

from neuro import corpus, folder, text, training_text
from neuro.config import DataConfig
from neuro.errors import CheckError, FormatError, UsageError
from neuro.tokenizer import Tokenizer
from neuro.training_text import of_documents, record, windows

WORDS = [f"word{n}" for n in range(400)]


def prose(seed: int, count: int = 600) -> str:
    random = np.random.default_rng(seed)
    return " ".join(random.choice(WORDS, count)) + ".\n"


def test_a_window_is_eight_words_whatever_stands_between_them():
    spelled = "The Cat 's well @-@ known hat cost 1 @,@ 000 crowns ."
    natural = "the cat's\nWELL-known hat, cost 1,000   crowns"
    assert (windows(spelled) == windows(natural)).all()
    assert len(windows(" ".join(WORDS[:20]))) == 13
    assert len(windows("only three words")) == 1 and len(windows(" .\n")) == 0


def test_what_was_read_is_found_and_what_was_not_is_not():
    made = record(of_documents([prose(0), prose(1)]))
    assert made.every == 1 and made.share(prose(1)) == 1.0
    assert made.share(prose(2)) == 0.0
    half = made.share(prose(0) + prose(2))
    assert 0.45 < half < 0.55
    assert made.share("too short to tell") is None


def test_a_large_text_is_sampled_and_any_part_of_it_is_found_all_the_same(monkeypatch):
    monkeypatch.setattr(training_text, "MOST", 200)
    documents = [prose(seed) for seed in range(10)]
    made = record(of_documents(documents))
    assert made.every > 8 and 100 < len(made.hashes) <= 200
    assert made.share(documents[3]) == made.share(documents[7]) == 1.0
    assert made.share("".join(prose(seed) for seed in range(20, 24))) == 0.0


def test_two_trainings_make_one_record(monkeypatch):
    monkeypatch.setattr(training_text, "MOST", 200)
    first, second = [prose(0)], [prose(seed) for seed in range(1, 9)]
    both = training_text.joined(record(of_documents(first)), record(of_documents(second)))
    whole = record(of_documents(first + second))
    assert both.every == whole.every and (both.hashes == whole.hashes).all()


def test_the_record_survives_its_file_and_holds_no_word_of_the_text(tmp_path):
    made = record(of_documents([prose(0)]))
    training_text.write(tmp_path, made)
    again = training_text.read(tmp_path)
    assert again.every == made.every and (again.hashes == made.hashes).all()
    assert b"word1" not in (tmp_path / training_text.NAME).read_bytes()
    assert training_text.read(tmp_path / "elsewhere") is None
    (tmp_path / training_text.NAME).write_bytes(b"x")
    with pytest.raises(FormatError, match="not a whole safetensors file"):
        training_text.read(tmp_path)


def test_reading_it_again_is_refused_unless_forced(tmp_path):
    assert training_text.refuse_read(tmp_path, {"a.txt": prose(0)}, False) is None, "a model without a record"
    training_text.write(tmp_path, record(of_documents([prose(0)])))
    with pytest.raises(CheckError) as refused:
        training_text.refuse_read(tmp_path, {"new": prose(1), "a.txt": prose(0)}, False)
    assert refused.value.what == (
        "a.txt: got a text of which 100 % was read in the training of this model, expected one that it has not seen "
        "(below 10 %)."
    )
    assert refused.value.do == "Give another text, or --force to measure on this one all the same."
    assert training_text.refuse_read(tmp_path, {"new": prose(1), "a.txt": prose(0)}, True) == {"new": 0.0, "a.txt": 1.0}


def wiki(*titles: str) -> str:
    return "".join(f" \n = {title} = \n \n {prose(len(title), 60)} \n" for title in titles)


def test_articles_that_both_splits_hold_are_named(tmp_path):
    train, valid = tmp_path / "train.txt", tmp_path / "valid.txt"
    train.write_text(wiki("One", "Three", "Fifteen"), encoding="utf-8")
    valid.write_text(wiki("Elevens", "Three", "Eightyfive"), encoding="utf-8")
    # "Elevens" has the words of "Fifteen": the seed is the title's length.
    with pytest.raises(UsageError) as refused:
        corpus.prepare(DataConfig(train=str(train), valid=str(valid)), 300)
    assert refused.value.what == (
        f"train: {valid}: got 2 of 3 articles that the training text holds too: 1 ('= Elevens ='), 2 ('= Three ='); "
        "expected none."
    )
    assert refused.value.do.startswith("Take them out of data.train or data.valid;")
    valid.write_text(wiki("Eightyfive"), encoding="utf-8")
    made = corpus.prepare(DataConfig(train=str(train), valid=str(valid)), 300)
    assert made.seen.share(train.read_text(encoding="utf-8")) == 1.0


def test_more_than_five_duplicates_are_counted():
    titles = [f"Title {'x' * n}" for n in range(7)]
    shown = wiki(*titles)
    with pytest.raises(UsageError, match=r"got 7 of 7 articles .* and 2 more; expected none"):
        training_text.refuse_duplicates(windows(shown), [shown], "train: valid")


def test_the_splits_of_wikitext_share_no_article_and_the_shipped_model_knows_what_it_read(neuro_data):
    from neuro import folder

    known = training_text.read(folder.locate("small"))
    shares = {
        name: known.share(text.read_text(neuro_data / name))
        for name in ("wikitext-2/test.txt.gz", "books/alice_11.txt.gz", "tinyshakespeare/input.txt.gz")
    }
    assert max(shares.values()) < 0.02
    assert known.share(text.read_text(neuro_data / "books" / "warpeace_input.txt.gz")) > 0.95


def test_a_model_that_is_loaded_and_saved_again_keeps_its_record(tiny_brain, tmp_path):
    brain = tiny_brain(["vocab_size=270"])
    brain.tokenizer = Tokenizer.train([prose(0)], 270)
    first = folder.save(brain, tmp_path / "first")
    assert folder.load(first, "cpu").seen is None and not (first / training_text.NAME).exists()
    made = record(of_documents([prose(0)]))
    training_text.write(first, made)
    again = training_text.read(folder.save(folder.load(first, "cpu"), tmp_path / "again"))
    assert again is not None and again.every == made.every and (again.hashes == made.hashes).all()
