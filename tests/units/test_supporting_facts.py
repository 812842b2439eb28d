"""benchmarks/supporting_facts.py: a hand-made story is scored as a hand would score it, and codes are what the memory holds."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import neuro
from neuro.evaluate import babi

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
STORY = """1 Mary went to the garden.
2 John took the red ball.
3 Where is Mary?\tgarden\t1
4 Mary went to the kitchen.
5 Where is the ball?\tkitchen\t2 4
"""


def loaded(name: str) -> ModuleType:
    """A module of benchmarks/, under the name that its siblings import it by."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


loaded("_machine")
facts = loaded("supporting_facts")
(QUESTIONS,) = facts.questions_of(babi.parsed(STORY, "story"), 9)


def code(*rows: int) -> object:
    """A text whose tokens have keys and values along axes of a space of 8."""
    axes = torch.eye(8)[list(rows)]
    return facts.Code(axes, axes, axes, torch.ones(len(rows)), torch.ones(len(rows)))


CODES = {
    "Mary went to the garden.": code(0, 1, 2),
    "John took the red ball.": code(3, 4, 5),
    "Mary went to the kitchen.": code(0, 1, 6),
    "Where is Mary?": code(7, 0),
    "Where is the ball?": code(7, 5),
}


def test_a_question_knows_what_was_said_before_it():
    first, second = QUESTIONS
    assert [line.number for line in first.sentences] == [1, 2] and first.support == (1,)
    assert [line.number for line in second.sentences] == [1, 2, 4] and second.support == (2, 4)
    stories = babi.parsed(STORY * 3, "story")
    assert len(stories) == 3 and [len(found) for found in facts.questions_of(stories, 3)] == [2, 2]


def test_recall_by_hand():
    first, second = QUESTIONS
    found = facts.judged(second, facts.scores_of(second, {"m: ": CODES}, {}, np.random.default_rng(0)))
    assert found["chance"] == (2 / 3, 1.0)
    assert found["recency"] == (1.0, 1.0), "the two newest are the two that support"
    assert found["BM25"] == found["m: keys"] == found["m: values"] == (1.0, 1.0), "the ball, then the newest of equals"
    found = facts.judged(first, facts.scores_of(first, {"m: ": CODES}, {}, np.random.default_rng(0)))
    assert found["chance"] == (0.5, 1.0)
    assert found["recency"] == (0.0, 1.0), "John came after Mary"
    assert found["BM25"] == found["m: keys"] == found["m: both aged"] == (1.0, 1.0)
    assert facts.recall([2, 0, 1], {0, 1}, 2) == 0.5 and facts.recall([2, 0, 1], {0, 1}, 3) == 1.0


def test_of_equals_the_newest_is_first():
    assert facts.ranked(np.array([0.5, 1.0, 1.0 + 1e-9, 0.5])) == [2, 1, 3, 0]


def test_word_overlap_by_hand():
    said = ["the cat sat.", "The dog sat!", "a bird flew far away"]
    found = facts.bm25("Where is the cat?", said)
    rare, usual, length = np.log(1 + 2.5 / 1.5), np.log(1 + 1.5 / 2.5), 11 / 3
    scale = 2.2 / (1 + 1.2 * (0.25 + 0.75 * 3 / length))
    assert np.allclose(found, [scale * (rare + usual), scale * usual, 0.0])


def test_a_sentence_scores_by_its_own_slots_and_what_surprises_weighs_more():
    cosines = torch.tensor([[0.1, 0.9, 0.2, 0.3], [0.5, 0.0, 0.8, 0.7]])
    assert np.allclose(facts.nearest(cosines, torch.tensor([1.0, 1.0]), [0, 2]), [0.7, 0.55])
    assert np.allclose(facts.nearest(cosines, torch.tensor([1.0, 3.0]), [0, 2]), [0.6, 0.675])


def test_shuffled_slots_find_no_better_than_chance_in_the_mean():
    random, hits = np.random.default_rng(0), []
    for _ in range(300):
        hits.append(
            facts.judged(QUESTIONS[0], facts.scores_of(QUESTIONS[0], {"": CODES}, {}, random))["keys shuffled"][0]
        )
    assert 0.4 < np.mean(hits) < 0.6


def test_means_over_questions_then_over_tasks_with_paired_differences():
    tasks = [
        {"recency": np.array([[1.0, 2.0], [0.0, 1.0]]), "m: keys": np.array([[2.0, 2.0], [1.0, 1.0]])},
        {"recency": np.array([[0.0, 0.0]]), "m: keys": np.array([[1.0, 1.0]])},
    ]
    tasks[0]["asked"], tasks[1]["asked"] = np.array([2, 2]), np.array([1])
    tasks = [{**task, "BM25": task["recency"], "m: keys shuffled": task["recency"]} for task in tasks]
    found = facts.summary(tasks, ["recency", "BM25", "m: keys", "m: keys shuffled"])
    assert found["recency"]["recall@n"][0] == 12.5 and found["recency"]["recall@5"][0] == 37.5
    assert found["m: keys"]["recall@n"][0] == 87.5
    assert found["m: keys less m: keys shuffled"]["recall@n"] == [75.0, 75.0, 75.0], "every story gains as much"


@pytest.fixture(scope="module")
def brain():
    return neuro.load("micro", sets=["hippocampus.slots=64"]).eval()


def test_codes_are_what_the_memory_holds(brain):
    texts = ["Mary went to the garden.", "John went to the garden.", "Where is Mary?"]
    codes = facts.read_by(brain, texts)
    for text, own in codes.items():
        count = len(brain.tokenizer.encode(f" {text}"))
        assert own.queries.shape == own.keys.shape and len(own.keys) == len(own.values) == len(own.surprise) == count
        assert torch.allclose(own.queries[:-1], own.keys[1:], atol=1e-6), "what a token is stored under"
        assert torch.allclose(own.keys.norm(dim=1), torch.ones(count), atol=1e-5) and (own.strengths > 0).all()
        alone = facts.read_by(brain, [text])[text]
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(own, alone, strict=True))
    first, second = (codes[text] for text in texts[:2])
    assert torch.allclose(first.values[-1], second.values[-1], atol=1e-5), "a value is of its token alone"
    assert torch.allclose(first.values, F.normalize(first.values, dim=-1), atol=1e-6)


def test_what_the_memory_recalls_of_itself_sums_to_one(brain):
    own = facts.read_by(brain, ["Mary went to the garden."])["Mary went to the garden."]
    shares = facts.own_read(brain)(own.queries, own.keys, own.strengths)
    assert shares.shape == (len(own.queries), len(own.keys))
    assert torch.allclose(shares.sum(1), torch.ones(len(shares)), atol=1e-5)
    assert (shares[:-1].argmax(1) == torch.arange(1, len(own.keys))).all(), "each moment finds itself"
