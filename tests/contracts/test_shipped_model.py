"""The model that ships: it loads everywhere, keeps a fact from one process to the next, and beats a trigram."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import neuro
from neuro import accounting, remember, rounding, text
from neuro.brain import Brain
from neuro.evaluate import perplexity, repeat
from neuro.evaluate.stream import Stream, evaluating
from neuro.items import Item
from neuro.session import Session
from neuro.train.quantized import matrices

ROOT = Path(__file__).resolve().parents[2]
TRIGRAM_FLOOR = 235.4  # WikiText-2 test, interpolated Kneser-Ney over the closed vocabulary
FACTS = (
    ("The keeper of the lamp is Oscar.", "The keeper of the lamp is", " Oscar"),
    ("The password of the vault is crimson.", "The password of the vault is", " crimson"),
)


@pytest.fixture(scope="module")
def brain() -> Brain:
    return neuro.load("small")


def neuro_run(*argv: object) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "neuro", "run", "small", *map(str, argv)],
        capture_output=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        check=True,
        timeout=300,
    )
    return done.stdout


def test_a_fact_read_by_one_process_is_retrieved_by_the_next(brain, tmp_path):
    for number, (fact, cue, answer) in enumerate(FACTS):
        assert len(brain.tokenizer.encode(fact)) <= 12
        memory = tmp_path / f"{number}.memory"
        neuro_run(fact, "--tokens", 0, "-q", "--memory", memory)
        tokens = len(brain.tokenizer.encode(answer))
        without = neuro_run(cue, "--tokens", tokens, "--temperature", 0, "-q")
        with_it = neuro_run(cue, "--tokens", tokens, "--temperature", 0, "-q", "--memory", memory)
        assert with_it.strip() == cue + answer != without.strip()


def test_articles_of_the_test_split_cost_less_than_the_trigram_floor(brain, neuro_data):
    raw = text.read_text(neuro_data / "wikitext-2" / "test.txt.gz")
    rows = [perplexity.evaluate(brain, raw, True, arm, most_units=2) for arm in ("real", "off")]
    assert rows[0].word_perplexity < rows[1].word_perplexity < 2 * TRIGRAM_FLOOR
    assert rows[0].word_perplexity < TRIGRAM_FLOOR


def test_a_passage_seen_again_costs_a_fraction_and_only_with_its_own_memory(brain, neuro_data):
    raw = text.read_text(neuro_data / "wikitext-2" / "valid.txt.gz")
    found = repeat.run(brain, raw, wikitext=True, length=300, gap=1500, samples=2, warm_up=500)
    assert found["ratio_both"] < 1 / 10 and found["ratio_episodic"] < 1 / 10
    assert found["ratio_procedural"] < 0.8 < found["ratio_off"] and found["ratio_shuffled"] > 0.7


def test_steps_four_times_too_large_do_not_make_the_procedural_memory_worse_than_none(brain, neuro_data):
    p = brain.config.procedural
    hasty = neuro.load("small", sets=[f"procedural.rate={4 * p.rate}", f"procedural.bias_rate={4 * p.bias_rate}"])
    raw = text.read_text(neuro_data / "wikitext-2" / "valid.txt.gz")
    ids = [brain.tokenizer.bos_id, *(i for unit in perplexity.code(raw, brain, True).ids for i in unit)][:4000]
    nats = []
    for model, memories in ((hasty, ("procedural",)), (brain, ())):
        with evaluating(model):
            nats.append(Stream(model, memories).read(ids).mean())
    assert nats[0] < nats[1]


def test_its_layers_fire_between_2_and_20_percent(brain):
    tally = accounting.Tally(brain)
    session = Session(brain, observers=[tally])
    ids = [brain.tokenizer.bos_id, *brain.tokenizer.encode(FACTS[0][0] * 20)]
    session.feed(torch.tensor([ids]))
    session.commit()
    rates = [count / len(ids) / brain.config.cortex.feedforward_width for count in tally.spikes]
    assert rates and all(0.02 < rate < 0.2 for rate in rates)


def test_samples_hold_no_markup_of_the_corpus(brain):
    for seed in range(3):
        lines = neuro_run("", "--tokens", 40, "--temperature", 1, "--top-p", 1, "--seed", seed, "--json").split("\n")
        written = "".join(json.loads(line).get("text", "") for line in lines if line)
        assert written and not [mark for mark in ("<unk>", "@-@", "@,@", "@.@", "<bos>") if mark in written]


def test_the_hugging_face_face_loads_the_same_weights(brain):
    pytest.importorskip("transformers")
    from neuro.hf import NeuroForCausalLM, NeuroTokenizer

    model = NeuroForCausalLM.from_pretrained("small")
    tokenizer = NeuroTokenizer.from_pretrained("small", add_bos_token=True)
    batch = tokenizer("The city was", return_tensors="pt")
    logits = model(**batch).logits[0, -1]
    assert torch.equal(logits, Session(brain).feed(batch["input_ids"])[0])


def test_it_is_small_and_says_where_it_comes_from():
    folder = ROOT / "neuro" / "models" / "small"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 20_000_000
    licence = (folder / "LICENSE").read_text(encoding="utf-8")
    card = (folder / "README.md").read_text(encoding="utf-8")
    for source in ("WikiText-2", "War and Peace"):
        assert source in licence and source in card
    assert "Attribution-ShareAlike 4.0" in licence


def test_search_names_the_item_that_is_asked_for(brain):
    memory = remember.Memory(brain)
    facts = [
        "The password of the vault is crimson.",
        "The dog of the keeper is called Bosun.",
        "The ferry leaves at nine.",
    ]
    list(remember.read(memory, [Item(fact, "me") for fact in facts]))
    for number, fact in enumerate(facts):
        found = remember.search(memory, fact)
        assert found[0][0] == number and found[0][1] > 3 * found[1][1]


@pytest.mark.parametrize(("model", "recipe"), [("small", "int8"), ("small-int4", "int4")])
def test_a_shipped_model_lies_on_the_grid_of_its_export(model, recipe):
    found = matrices(neuro.load(model, "cpu"))
    assert len(found) == 32
    for name, p in found.items():
        matrix = p.detach().numpy()
        assert np.array_equal(rounding.once(matrix, recipe), matrix), name
