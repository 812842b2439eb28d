"""`neuro eval --suite ablation` as a user types it: a brain's parts and an adapter's arms, what is written and refused."""

from __future__ import annotations

import importlib
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from neuro.cli import main
from neuro.evaluate import ablation, perplexity
from neuro.tokenizer import Tokenizer

cli = importlib.import_module("neuro.cli._ablation")


def prose(seed: int, lines: int = 60) -> str:
    random = np.random.default_rng(seed)
    words = [f"{a}{b}" for a in ("ka", "lo", "mi", "ru", "se") for b in ("n", "t", "lam", "", "sh", "d", "pel", "x")]
    return "".join(" ".join(random.choice(words, 12)) + ".\n" for _ in range(lines))


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> dict[str, Path]:
    where = tmp_path_factory.mktemp("text")
    for name, raw in {"train": prose(0, 200), "held": prose(5)}.items():
        (where / f"{name}.txt").write_text(raw, encoding="utf-8")
    return {path.stem: path for path in where.iterdir()}


def said(capsys, *argv: object) -> tuple[int, list[str]]:
    code = main(["eval", *(str(item) for item in argv)])
    return code, capsys.readouterr().err.strip().split("\n")


SMALL = ("train.steps=2", "train.eval_tokens=64", "train.batch=2")


def test_a_brains_parts_are_written_as_record_tables_and_picture(texts, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(perplexity, "BLOCK_LINES", 10)
    sets = [word for item in (f"data.train={texts['train']}", *SMALL) for word in ("--set", item)]
    argv = ["eval", "tiny", str(texts["held"]), "--suite", "ablation", "--parts", "cortex.spiking", *sets]
    argv += ["--suites", "perplexity", "--articles", "4", "--seeds", "2", "--out", str(tmp_path)]
    assert main([*argv, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "eval.json").read_text(encoding="utf-8"))
    assert (printed["schema"], printed["suite"], printed["model"]) == ("neuro.eval/1", "ablation", "tiny")
    assert printed["measures"]["perplexity"]["units"] == 4
    energy = printed["energy"]
    assert energy["cortex.spiking"]["loihi1 and cpu"] == pytest.approx(energy["cortex.spiking"]["cpu alone"])
    assert energy["whole"]["loihi1 and cpu"] != energy["whole"]["cpu alone"], (
        "without spikes there is nothing on a chip"
    )
    assert (tmp_path / "ablation.png").read_bytes().startswith(b"\x89PNG")
    assert "| cortex.spiking |" in (tmp_path / "ablation.md").read_text(encoding="utf-8")
    assert main([*argv, "-q"]) == 0
    told = capsys.readouterr()
    assert told.err == "" and "indicative: a claim needs 5 seeds, this has 2" in told.out
    assert json.loads((tmp_path / "eval.json").read_text(encoding="utf-8")) == printed


def test_what_is_missing_or_has_no_effect_is_refused(texts, tmp_path, capsys):
    held = texts["held"]
    start = "neuro eval --suite ablation"
    assert said(capsys, "tiny", "--suite", "ablation") == (
        2,
        [f"{start}: got 0 texts, expected one.", "Give a held-out text file."],
    )
    assert said(capsys, "tiny", held, "--suite", "ablation") == (
        2,
        [f"{start}: no --out.", "Give a folder: the trainings are kept in it, and go on from it."],
    )
    for option, value in (("--against", "lora=x"), ("--tokenizer", "x"), ("--templates", "tuning"), ("--chip", "x")):
        assert said(capsys, "tiny", held, "--suite", "ablation", option, value) == (
            2,
            [f"{start}: {option} has no effect here.", f"Leave out {option}."],
        )
    assert (
        said(capsys, "tiny", held, "--suite", "ablation", "--rows", "0")[1][0] == "--rows: got 0, expected at least 1."
    )
    assert said(capsys, "tiny", held, "--suite", "ablatoin") == (
        2,
        ["--suite: got 'ablatoin'.", "Did you mean 'ablation'?"],
    )
    for option in ("--parts", "--suites", "--against", "--tokenizer"):
        assert said(capsys, "small", held, "--suite", "perplexity", option, "x") == (
            2,
            [f"neuro eval --suite perplexity: {option} has no effect here.", f"Leave out {option}."],
        )


@pytest.fixture(scope="module")
def adapters(tmp_path_factory) -> dict[str, Path]:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("peft")
    from neuro.hf import AdapterConfig, HippocampalAdapter

    where = tmp_path_factory.mktemp("adapters")
    tokenizer = Tokenizer.train([prose(0)], 300)
    sizes = {"span": 8, "window": 32, "slots": 128, "place_cells": 32, "key_width": 8, "top_slots": 4, "sparsity": 0.2}
    arms = {
        "full": {"fusion": "memory", "lora_rank": 1},
        "lora": {"fusion": "none", "lora_rank": 6},
        "block": {"fusion": "feedforward", "hidden": 52, "lora_rank": 1},
        "idle": {"fusion": "none", "lora_rank": 6},
        "narrow": {"fusion": "none", "lora_rank": 6, "window": 16},
    }
    for name, settings in arms.items():
        torch.manual_seed(0)
        shape = transformers.LlamaConfig(
            vocab_size=tokenizer.vocab_size,
            hidden_size=24,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=64,
            bos_token_id=0,
            eos_token_id=None,
            pad_token_id=1,
        )
        model = HippocampalAdapter(AdapterConfig(**{**sizes, **settings}), transformers.LlamaForCausalLM(shape))
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if "lora_B" in key and name != "idle":
                    parameter.normal_(0.0, 0.02)
        model.save_pretrained(where / name, include_base=True)
        tokenizer.save(where / name / "tokenizer.json")
    return {name: where / name for name in arms}


@pytest.fixture
def of_adapters(adapters, monkeypatch):
    from neuro.evaluate import ablation_adapter

    monkeypatch.setattr(perplexity, "BLOCK_LINES", 2)
    monkeypatch.setattr(ablation_adapter, "TOLERANCE", 0.5)
    return adapters


@pytest.fixture
def other(tmp_path) -> Path:
    path = tmp_path / "other.txt"
    path.write_text(prose(7) * 3, encoding="utf-8")
    return path


def test_an_adapters_arms_are_written_as_record_table_and_picture(of_adapters, texts, other, tmp_path, capsys):
    argv = ["eval", str(of_adapters["full"]), str(texts["held"]), "--suite", "ablation", "--out", str(tmp_path)]
    argv += ["--against", f"lora={of_adapters['lora']}", "--against", f"block={of_adapters['block']}"]
    argv += ["--other", str(other)]
    before = {path.name: path.read_bytes() for path in of_adapters["full"].iterdir() if path.is_file()}
    assert main([*argv, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "eval.json").read_text(encoding="utf-8"))
    assert list(printed["whole"]["arms"]) == [
        "base",
        "low-rank updates alone",
        "updates and block",
        "memory empty",
        "memory shuffled",
        "memory full",
    ]
    assert printed["whole"]["documents"] == 30 and printed["whole"]["tied"] == []
    assert sum(kind["tokens"] for kind in printed["by_kind"].values()) == printed["tokens"]
    assert (tmp_path / "ablation.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name: path.read_bytes() for path in of_adapters["full"].iterdir() if path.is_file()} == before
    assert main(argv) == 0
    told = capsys.readouterr()
    assert told.err.count("finished before") == 4, "nothing is scored twice"
    assert "3 tokens in a row read before: " in told.out


@pytest.mark.parametrize("overlap", [0, 4])  # contexts that share no token are read side by side, others span by span
def test_every_arm_reads_the_whole_text_in_one_stream_and_starts_from_the_same_state(overlap, of_adapters, texts):
    from neuro.evaluate import ablation_adapter
    from neuro.hf import HippocampalAdapter
    from neuro.hf.adapter_cache import AdapterCache
    from neuro.hf.streaming import CACHE_NAME

    model = HippocampalAdapter.from_pretrained(of_adapters["full"])
    model.config.overlap = overlap
    tokenizer = Tokenizer.load(of_adapters["full"] / "tokenizer.json")
    found = ablation_adapter.documents(texts["held"].read_text(encoding="utf-8"), tokenizer)
    ids = [token for document in found for token in document.ids][:403]
    others = tokenizer.encode(prose(7) * 3)
    nats = ablation_adapter.scored(model, ids, others)
    again = ablation_adapter.scored(model, ids, others)
    assert list(nats) == ["full", "shuffled", "empty"]
    assert all(np.array_equal(nats[arm], again[arm]) for arm in nats), "no arm leaves anything behind"
    without = ablation_adapter.scored(model, ids)
    assert list(without) == ["full", "empty"]
    assert all(np.allclose(without[arm], nats[arm], atol=1e-4) for arm in without)

    def costs(cache: AdapterCache, before_span) -> np.ndarray:
        """The plain definition, one stream, one span at a time."""
        rows = []
        with torch.no_grad():
            for start in range(0, len(ids), 8):
                before_span(cache, start)
                rows.append(model(torch.tensor([ids[start : start + 8]]), **{CACHE_NAME: cache}).logits[0].double())
        logits = torch.cat(rows)[:-1]
        return torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none").numpy()

    reads = AdapterCache()

    def swap(cache: AdapterCache, start: int) -> None:
        if start:
            model(torch.tensor([others[start - 8 : start]]), **{CACHE_NAME: reads})
            cache.put_memories([reads.memory_of(0)])

    plain = {
        "full": costs(AdapterCache(), lambda cache, start: None),
        "empty": costs(AdapterCache(), lambda cache, start: cache.forget()),
        "shuffled": costs(AdapterCache(), swap),
    }
    for arm, row in plain.items():
        assert nats[arm][0] == 0.0 and np.allclose(nats[arm][1:], row, atol=1e-4), arm
    assert not np.allclose(plain["full"], plain["empty"], atol=1e-3)
    assert not np.allclose(plain["full"], plain["shuffled"], atol=1e-3)
    # The whole text at once is the same stream: no document begins anew.
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, :-1].double()
    whole = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
    assert np.allclose(whole.numpy(), plain["full"], atol=1e-4)
    assert sum(document.size_bytes for document in found) == texts["held"].stat().st_size


@pytest.mark.parametrize("overlap", [0, 4])
@pytest.mark.parametrize("arm", ["lora", "block"])
def test_an_arm_without_a_memory_is_read_in_one_stream(arm, overlap, of_adapters):
    from neuro.evaluate import ablation_adapter
    from neuro.hf import HippocampalAdapter

    model = HippocampalAdapter.from_pretrained(of_adapters[arm])
    model.config.overlap = overlap
    ids = Tokenizer.load(of_adapters[arm] / "tokenizer.json").encode(prose(3))[:301]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, :-1].double()
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
    found = ablation_adapter.scored(model, ids, ids)
    assert list(found) == ["alone"] and np.allclose(found["alone"][1:], expected, atol=1e-4)


@pytest.mark.parametrize("overlap", [0, 4])
def test_a_memory_that_changes_nothing_ties_in_all_its_arms(overlap, of_adapters):
    from neuro.evaluate import ablation_adapter
    from neuro.hf import HippocampalAdapter

    model = HippocampalAdapter.from_pretrained(of_adapters["full"])
    model.config.overlap = overlap
    with torch.no_grad():
        model.fusion.hippocampus.out.weight.zero_()
    ids = Tokenizer.load(of_adapters["full"] / "tokenizer.json").encode(prose(3))[:100]
    nats = ablation_adapter.scored(model, ids, ids[::-1])
    assert np.array_equal(nats["full"], nats["empty"]) and np.array_equal(nats["full"], nats["shuffled"])


def test_tokens_are_told_apart_by_where_they_were_last_read(of_adapters):
    from neuro.evaluate.ablation_adapter import KINDS, repetition

    def kinds(ids: list[int], window: int | None, overlap: int = 0) -> list[str]:
        return [KINDS[kind] for kind in repetition(ids, window, overlap)]

    said = [1, 2, 3, 9, 8, 7, 1, 2, 3]
    assert kinds(said, None) == ["new"] * 8 + ["in the context"]
    assert kinds(said, 9)[-1] == "in the context" and kinds(said, 8)[-1] == "read before"
    # Windows of 8 of which 2 are read again: the context of token 8 begins at 6, and that of token 14 at 12.
    assert kinds(said, 8, 2)[-1] == "read before"
    twice = [*range(20, 26), 1, 2, 3, 1, 2, 3, 30, 1, 2, 3]
    assert kinds(twice, 8, 2) == [*["new"] * 11, "in the context", *["new"] * 3, "read before"]


def test_an_adapter_that_adds_nothing_ties_with_its_base_and_that_is_said(of_adapters, texts, tmp_path, capsys):
    argv = ["eval", str(of_adapters["full"]), str(texts["held"]), "--suite", "ablation", "--out", str(tmp_path)]
    argv += ["--against", f"lora={of_adapters['idle']}"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(argv) == 0
    told = capsys.readouterr()
    assert "warning: ablation: arms 'base' and 'low-rank updates alone' tie exactly" in told.err
    assert "exact tie: base and low-rank updates alone" in told.out


def test_arms_that_cannot_be_compared_are_refused(of_adapters, texts, tmp_path, capsys, monkeypatch):
    full, held = of_adapters["full"], texts["held"]

    def refused(*options: object) -> list[str]:
        code, lines = said(capsys, full, held, "--suite", "ablation", *options)
        assert code in (2, 3)
        return lines

    assert refused("--against", "lore=x") == [
        "--against: got 'lore=x', expected NAME=FOLDER with a name of lora, block, full.",
        "Write for example --against lora=FOLDER.",
    ]
    assert refused("--against", f"block={of_adapters['lora']}") == [
        f"{of_adapters['lora']}: got an adapter of fusion 'none', expected 'feedforward' for the arm 'block'.",
        "Give the folder of that arm.",
    ]
    assert refused("--against", f"lora={tmp_path}")[0].startswith(f"{tmp_path}: got no adapter, expected a folder")
    assert refused("--against", f"lora={of_adapters['narrow']}")[1] == "Compare arms that see as much of the text."
    assert refused("--against", f"full={full}", "--against", f"full={full}", *["--against", f"lora={full}"] * 2)[0] == (
        "--against lora: got 2 folders, expected 1 or 3, as many as of the full adapter."
    )
    assert refused("--other", tmp_path / "none.txt")[0].startswith(f"{tmp_path / 'none.txt'}: got no such file")
    (tmp_path / "short.txt").write_text("Too short.", encoding="utf-8")
    assert refused("--other", tmp_path / "short.txt")[1] == (
        "Give a longer one: its memory is to be as old as the text's own."
    )
    assert refused("--articles", "9")[0] == "ablation: got 9 documents, expected at least 10."
    assert refused("--seeds", "2")[0] == "neuro eval --suite ablation: --seeds has no effect here."
    assert refused("--force")[0] == "neuro eval --suite ablation: --force has no effect here."
    assert refused("--set", "a=b")[0] == "neuro eval --suite ablation of an adapter: --set has no effect here."
    Tokenizer.train([prose(0)], 400).save(tmp_path / "tokenizer.json")
    assert refused("--tokenizer", tmp_path / "tokenizer.json")[1] == (
        "Give the tokenizer that the base was trained with."
    )
    from neuro.evaluate import ablation_adapter

    monkeypatch.setattr(ablation_adapter, "TOLERANCE", 0.01)
    assert refused("--against", f"lora={of_adapters['idle']}")[1] == (
        "Train an arm of equal size: a larger one may win by its size."
    )


def test_a_folder_is_known_as_an_adapters_without_transformers(adapters, tmp_path):
    assert ablation.is_adapter(adapters["full"]) and not ablation.is_adapter(adapters["full"] / "base")
    assert not ablation.is_adapter(tmp_path) and not ablation.is_adapter(Path("tiny"))
