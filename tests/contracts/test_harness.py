"""lm-evaluation-harness over the Hugging Face face: the log-likelihoods are the session's, padded, batched and rolling."""

from __future__ import annotations

import importlib.util
import json
import zipfile
from pathlib import Path

import pytest
import torch

from neuro import folder
from neuro.errors import UsageError
from neuro.session import Session
from neuro.tokenizer import Tokenizer

pytest.importorskip("transformers")

from neuro.hf import NeuroForCausalLM

TEXT = "The city began when the river rose.\nA fox ran over the hill, and people said it was good.\n" * 3
EXAMPLE = Path(__file__).parents[2] / "examples" / "harness.py"


@pytest.fixture
def saved(tiny_brain, tmp_path):
    brain = tiny_brain()
    brain.tokenizer = Tokenizer.train(TEXT.split("\n"), 300)
    return folder.save(brain, tmp_path / "model")


def nats(brain, ids):
    """By hand: cost of each token after the first, in one fresh session."""
    logits = Session(brain).feed(torch.tensor([ids]), keep_logits=True)[0].double().log_softmax(-1)
    return [-float(row[token]) for row, token in zip(logits, ids[1:], strict=False)]


def test_rows_padded_on_the_right_without_a_mask_read_as_alone(tiny_brain):
    """What the harness does with a batch: what comes after a row's end cannot change it."""
    brain = tiny_brain(dtype=torch.float64).eval()
    model = NeuroForCausalLM.from_brain(brain)
    rows = [list(range(2, 40)), list(range(50, 65))]
    padded = torch.tensor([rows[0], rows[1] + [0] * (len(rows[0]) - len(rows[1]))])
    with torch.no_grad():
        logits = model(padded).logits.log_softmax(-1)
    for row, found in zip(rows, logits, strict=True):
        by_hand = nats(brain, row)
        assert [-float(found[n, token]) for n, token in enumerate(row[1:])] == pytest.approx(by_hand, abs=1e-9)


def test_one_device_for_the_whole_model_is_a_backend(saved):
    model = NeuroForCausalLM.from_pretrained(saved, device_map={"": "cpu"}, subfolder="", quantization_config=None)
    assert model.brain.backend.name == "cpu"
    for wrong in ({"": "cpu", "brain": "cpu"}, "auto"):
        with pytest.raises(UsageError, match="from_pretrained: got device_map, which this model does not take"):
            NeuroForCausalLM.from_pretrained(saved, device_map=wrong)
    with pytest.raises(UsageError, match="got device_map"):
        NeuroForCausalLM.from_pretrained(saved, device_map={"": "cpu"}, backend="cpu")


@pytest.fixture
def harness(saved):
    pytest.importorskip("lm_eval", reason="lm_eval is not installed: pip install 'neuro-hybrid[harness]'")
    from lm_eval.models.huggingface import HFLM

    def load(**options):
        return HFLM(pretrained=str(saved), backend="causal", device="cpu", **options)

    return load


@pytest.mark.filterwarnings("ignore")
def test_the_harness_loads_the_folder_and_finds_the_sessions_likelihoods(harness, saved):
    from lm_eval.api.instance import Instance

    brain = folder.load(saved, "cpu")
    pairs = [
        ("The city", " began when"),
        ("A fox ran over the hill, and people", " said"),
        ("The", " river rose.\nA fox ran"),
    ]
    requests = [Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(pairs)]
    encode = brain.tokenizer.encode
    for size in (1, 3):
        found = harness(batch_size=size, add_bos_token=True).loglikelihood(requests, disable_tqdm=True)
        for (context, continuation), (value, greedy) in zip(pairs, found, strict=True):
            ids = [brain.tokenizer.bos_id, *encode(context + continuation)]
            told = len(encode(context + continuation)) - len(encode(context))
            assert value == pytest.approx(-sum(nats(brain, ids)[-told:]), rel=1e-4)
            assert isinstance(greedy, bool)


@pytest.mark.filterwarnings("ignore")
def test_rolling_likelihood_begins_at_bos_and_cuts_at_the_window(harness, saved):
    """Without add_bos_token: the harness puts its own <bos> before a rolling text, and with it there would be two."""
    from lm_eval.api.instance import Instance

    brain = folder.load(saved, "cpu")
    request = [Instance("loglikelihood_rolling", {}, (TEXT,), 0)]
    ids = [brain.tokenizer.bos_id, *brain.tokenizer.encode(TEXT)]
    whole = harness(max_length=4096).loglikelihood_rolling(request, disable_tqdm=True)[0]
    assert whole == pytest.approx(-sum(nats(brain, ids)), rel=1e-4)
    cut = harness(max_length=32, batch_size=4).loglikelihood_rolling(request, disable_tqdm=True)[0]
    assert cut != pytest.approx(whole, rel=1e-4), "each window starts afresh: its memory is what it holds"


def test_the_tasks_of_the_example_hold_what_they_say(tmp_path):
    data = tmp_path / "data"
    (data / "wikitext-2").mkdir(parents=True)
    (data / "babi").mkdir()
    wiki = " \n = One = \n \n The well @-@ known cat . \n"
    (data / "wikitext-2" / "test.txt.gz").write_text(wiki, encoding="utf-8")
    with zipfile.ZipFile(data / "babi" / "babi_en.zip", "w") as archive:
        archive.writestr(
            "en/qa1_x_test.txt", "1 Mary is here.\n2 Who is here? \tMary\t1\n3 Bob left.\n4 Who left? \tBob\t3\n"
        )
    spec = importlib.util.spec_from_file_location("harness_example", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.write_tasks(data, tmp_path / "tasks", 2)
    (article,) = map(json.loads, (tmp_path / "tasks" / "neuro_wikitext2.jsonl").read_text().splitlines())
    assert article["text"].endswith("The well-known cat.\n")
    assert (article["words"], article["bytes"]) == (1 + 4 + 1 + 7, len(wiki))
    questions = [json.loads(line) for line in (tmp_path / "tasks" / "neuro_babi.jsonl").read_text().splitlines()]
    assert sorted(q["choices"][q["right"]] for q in questions) == ["Bob", "Mary"]
    longest = max(questions, key=lambda q: len(q["story"]))
    assert longest["story"] == "Mary is here.\nBob left.\nWho left?"
    assert "neuro_babi.jsonl" in (tmp_path / "tasks" / "neuro_babi.yaml").read_text()
