"""The verbs as a user types them, on a tiny model trained here: outputs, exit codes, and two-line errors."""

from __future__ import annotations

import importlib
import io
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from neuro import config, folder, presets
from neuro.brain import Brain
from neuro.cli import main, run
from neuro.config import apply_sets
from neuro.sampling import Sampler
from neuro.session import Session
from neuro.tokenizer import Tokenizer

TEXT = "The keeper of the lamp in the harbour is called Victor.\nNobody knows the colour of the old boat.\n" * 30


@pytest.fixture(scope="module")
def model(saved_model) -> Path:
    return saved_model(TEXT.split("\n"))


def refused(capsys, *argv: str) -> tuple[int, list[str]]:
    code = main([str(item) for item in argv])
    captured = capsys.readouterr()
    return code, captured.err.strip().split("\n")


def test_run_streams_text_and_tells_what_happened(model, capsys):
    assert main(["run", str(model), "The keeper", "--tokens", "20"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("The keeper")
    starts = [line.split()[0] for line in captured.err.split("\n") if line]
    for word in ("backend", "speed", "spikes", "route", "memory", "energy"):
        assert word in starts
    assert "episodic memories in" in captured.err
    assert "loihi1" in captured.err and "not on the chip" in captured.err


def test_run_as_json_lines_has_token_commit_and_done(model, capsys):
    assert main(["run", str(model), "The keeper", "--tokens", "25", "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.split("\n") if line]
    assert {record["event"] for record in records} == {"token", "commit", "done"}
    assert [record["event"] for record in records].count("token") == 25
    assert records[-1]["schema"] == "neuro.run/1"
    commits = [record for record in records if record["event"] == "commit"]
    assert sum(record["writes"] for record in commits) == records[-1]["writes"] > 0


def test_the_same_seed_writes_the_same_text(model, capsys):
    texts = []
    for seed in ("1", "1", "2"):
        main(["run", str(model), "The", "--tokens", "15", "--seed", seed, "-q"])
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]


def test_an_empty_prompt_starts_from_the_beginning_of_text(model, capsys):
    assert main(["run", str(model), "", "--tokens", "5"]) == 0
    assert "read 1 tokens" in capsys.readouterr().err


def test_nothing_written_is_explained(model, capsys):
    assert main(["run", str(model), "", "--tokens", "0"]) == 0
    assert "nothing written: a memory is what followed a token" in capsys.readouterr().err
    assert main(["run", str(model), "", "--tokens", "0", "--json"]) == 0
    done = json.loads(capsys.readouterr().out.strip().split("\n")[-1])
    assert done["writes"] == 0 and done["memory"].startswith("nothing written: a memory is what followed a token")
    assert main(["run", str(model), "a", "--tokens", "2", "--set", "hippocampus.slots=16"]) == 0
    assert "16 slots filled" in capsys.readouterr().err


def test_a_ten_thousand_token_prompt_is_read(model, capsys, monkeypatch):
    brain = folder.load(model)
    word = next(i for i in range(2, brain.config.vocab_size) if brain.tokenizer.decode([i]) == "a")
    text = brain.tokenizer.decode([word]) * 10_000

    class Input:
        buffer = io.BytesIO(text.encode())

    monkeypatch.setattr(sys, "stdin", Input)
    assert main(["run", str(model), "-", "--tokens", "1", "-q"]) == 0
    assert len(capsys.readouterr().out) >= 10_000


def test_a_memory_file_is_loaded_and_saved(model, capsys, tmp_path):
    memory = tmp_path / "memory.safetensors"
    assert main(["run", str(model), "The keeper is Victor.", "--tokens", "0", "--memory", str(memory)]) == 0
    assert "saved" in capsys.readouterr().err
    before = memory.read_bytes()
    texts = []
    for extra in ([], ["--memory", str(memory)]):
        main(["run", str(model), "The keeper is", "--tokens", "0", "--json", *extra])
        texts.append(json.loads(capsys.readouterr().out.strip().split("\n")[-1])["filled"])
    assert texts[1] > texts[0]
    assert memory.read_bytes() != before


def test_what_is_remembered_can_be_traced_to_its_text(model, capsys, tmp_path):
    memory, folder_of_texts = str(tmp_path / "m"), tmp_path / "texts"
    folder_of_texts.mkdir()
    (folder_of_texts / "a.txt").write_text("the keeper counts the boats by the lamp. " * 4)
    (folder_of_texts / "b.txt").write_text("the tide is high tonight. ")
    assert main(["remember", str(model), str(folder_of_texts), "--memory", memory, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["items"] == 2 and 0 < record["filled"] <= record["writes"] <= record["tokens"]
    assert main(["run", str(model), "the lamp", "--tokens", "3", "--memory", memory, "-q"]) == 0
    capsys.readouterr()
    assert main(["recall", str(model), "--memory", memory, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert set(listed["memory"]["sources"]) <= {"a.txt", "b.txt", "prompt", "written"} and "recalled" not in listed
    before = (tmp_path / "m").read_bytes()
    assert main(["recall", str(model), "the keeper counts the", "--memory", memory, "--top", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (tmp_path / "m").read_bytes() == before  # looking changes nothing
    assert 1 <= len(found["recalled"]) <= 3 and 0 <= found["recall_gate"] <= 1
    best = found["recalled"][0]
    assert best["share"] >= found["recalled"][-1]["share"] and best["cosine"] <= 1.0001
    assert 0 < best["age_tokens"] <= listed["memory"]["tokens_read"] + len("the keeper counts the") + 1
    texts = "".join(path.read_text() for path in sorted(folder_of_texts.iterdir())) + "the lamp"
    assert best["stored"] and best["stored"] in texts
    assert main(["recall", str(model), "the keeper", "--memory", memory]) == 0
    assert "cosine" in capsys.readouterr().out


def test_mistakes_get_two_lines_and_the_right_exit_code(model, capsys, tmp_path):
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_bytes(b"not a memory")
    cases = [
        (3, ["run", "smal"]),
        (3, ["run", tmp_path]),
        (1, ["run", model, "x", "--memory", foreign]),
        (3, ["run", model, "x", "--memory", tmp_path / "no" / "folder" / "m"]),
        (1, ["recall", model, "x", "--memory", foreign]),
        (3, ["recall", model, "x", "--memory", tmp_path / "none"]),
        (2, ["recall", model, "x"]),
        (2, ["recall", model, "x", "--memory", foreign, "--top", "0"]),
        (3, ["remember", model, tmp_path / "none.txt", "--memory", tmp_path / "m"]),
        (2, ["run", model, "x", "--tokens", "-1"]),
        (2, ["run", model, "x", "--temperature", "-1"]),
        (2, ["run", model, "x", "--set", "cortex.windw=3"]),
        (2, ["run", model, "x", "--tokns", "3"]),
        (2, ["eval", model]),
        (2, ["eval", model, model, "--suite", "perplexty"]),
        (3, ["eval", model, tmp_path / "none.txt"]),
        (3, ["train", tmp_path / "none.toml"]),
        (2, ["show", model, "--spikes"]),
        (2, ["config", "shwo"]),
        (3, ["energy", tmp_path / "missing.json"]),
    ]
    for code, argv in cases:
        got, lines = refused(capsys, *argv)
        assert (got, len(lines)) == (code, 2), (argv, lines)
    assert foreign.read_bytes() == b"not a memory"


def test_invalid_utf8_and_truncated_models_are_refused(model, capsys, tmp_path, monkeypatch):
    class Input:
        buffer = io.BytesIO(b"caf\xe9")

    monkeypatch.setattr(sys, "stdin", Input)
    code, lines = refused(capsys, "run", model, "-")
    assert code == 2 and "not UTF-8 at byte 3" in lines[0]
    text = tmp_path / "latin.txt"
    text.write_bytes(b"caf\xe9")
    assert refused(capsys, "eval", model, text)[0] == 1
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in model.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-64])
    code, lines = refused(capsys, "run", broken, "x")
    assert code == 1 and "not a whole safetensors file" in lines[0]
    weights.write_bytes((model / "model.safetensors").read_bytes())
    Tokenizer.train(["quite another text"], 280).save(broken / "tokenizer.json")
    code, lines = refused(capsys, "run", broken, "x")
    assert code == 1 and "is not the one this model was trained with" in lines[0]


def test_train_evaluate_run_and_price(tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    path = tmp_path / "train.toml"
    path.write_text(
        f'preset = "tiny"\n[data]\ntrain = {json.dumps(str(text))}\n[train]\nsteps = 8\neval_every = 4\neval_tokens = 128\n',
        encoding="utf-8",
    )
    out = tmp_path / "run"
    assert main(["train", str(path), "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["schema"] == "neuro.train/1"
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().strip().split("\n")]
    assert [r["step"] for r in log if r["event"] == "step"] == list(range(1, 9))
    argv = ["eval", str(out / "model"), str(text), "--json", "-q", "--out", str(tmp_path / "seen")]
    assert refused(capsys, *argv) == (
        4,
        [
            "text.txt: got a text of which 100 % was read in the training of this model, expected one that it has not seen "
            "(below 10 %).",
            "Give another text, or --force to measure on this one all the same.",
        ],
    )
    assert main([*argv, "--force"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "seen" / "eval.json").read_text(encoding="utf-8")) == printed
    assert printed["read_in_training"] == {"text.txt": 1.0}
    arms = printed["arms"]
    assert [arm["arm"] for arm in arms] == ["real", "episodic", "procedural", "off"]
    assert main(["run", str(out / "model"), "The", "--tokens", "5", "--out", str(tmp_path / "seen")]) == 0
    capsys.readouterr()
    seen = tmp_path / "seen"
    assert main(["energy", str(seen / "run.json"), "--json", "--out", str(seen)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["schema"] == "neuro.energy/2"
    assert json.loads((seen / "energy.json").read_text(encoding="utf-8")) == printed


@pytest.mark.parametrize(("given", "expected"), [([], 5), (["--seed", "0"], 0), (["--seed", "3"], 3)])
def test_the_seed_of_the_command_line_overrides_the_configured_one(given, expected, tmp_path, capsys):
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    sets = [f"data.train={tmp_path / 'text.txt'}", "train.seed=5", "train.steps=1", "train.eval_tokens=32"]
    argv = ["train", "tiny", "--out", str(tmp_path / "run"), "-q", *(word for item in sets for word in ("--set", item))]
    assert main([*argv, *given]) == 0
    assert config.load(tmp_path / "run" / "config.toml").train.seed == expected


def test_show_writes_its_picture_and_prints_its_record(model, tmp_path, capsys):
    out = tmp_path / "wiring.svg"
    assert main(["show", str(model), "--json", "--format", "svg", "--out", str(out)]) == 0
    assert json.loads(capsys.readouterr().out)["out"] == str(out)
    assert out.read_text(encoding="utf-8").startswith("<svg")


@pytest.mark.parametrize("form", ["text", "mermaid", "svg"])
def test_show_draws_every_region(model, capsys, form):
    assert main(["show", str(model), "--format", form]) == 0
    out = capsys.readouterr().out
    for name in ("thalamus", "amygdala", "endocrine", "cortex", "hippocampus", "readout", "modulators~"):
        assert name in out


def test_show_spikes_writes_a_picture(model, tmp_path, capsys):
    out = tmp_path / "spikes.png"
    assert main(["show", str(model), "The keeper of the lamp in the harbour", "--spikes", "--out", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")


def test_a_failed_run_leaves_no_tokenizer_to_the_next_one(tmp_path, capsys):
    """The second try, in the same --out, must not inherit the vocabulary of the first."""
    (tmp_path / "wrong.txt").write_text("ab", encoding="utf-8")
    (tmp_path / "right.txt").write_text(TEXT, encoding="utf-8")
    out = tmp_path / "run"
    argv = ["train", "tiny", "--out", out, "-q", "--set", "train.steps=1", "--set", "train.eval_tokens=32"]
    assert refused(capsys, *argv, "--set", f"data.train={tmp_path / 'wrong.txt'}")[0] == 2
    assert not out.exists()
    # What an interrupt before the first checkpoint leaves is not asked for either.
    Tokenizer.train(["ab"], 258).save(out / "tokenizer.json")
    words = [*argv, "--set", f"data.train={tmp_path / 'right.txt'}", "--set", "data.tokenizer=words"]
    assert main([str(word) for word in words]) == 0
    assert Tokenizer.load(out / "model" / "tokenizer.json").kind == "words"
    code, lines = refused(capsys, *argv, "--set", f"data.train={tmp_path / 'right.txt'}", "--set", "data.tokenizer=bpe")
    assert code == 2 and "got a tokenizer of kind 'words', expected 'bpe'" in lines[0]


def damaged(model: Path, target: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(model, target))


def test_a_model_record_without_a_brain_is_foreign(model, tmp_path, capsys):
    broken = damaged(model, tmp_path / "broken")
    for brain in ({}, {"brain": None}):
        (broken / "config.json").write_text(json.dumps({"schema": folder.SCHEMA} | brain), encoding="utf-8")
        code, lines = refused(capsys, "run", broken, "x")
        assert code == 1 and lines == [
            f"{broken / 'config.json'}: has no table 'brain'.",
            "Use another copy of the model.",
        ]


def test_weights_that_are_not_finite_are_refused_by_name(model, tmp_path, capsys):
    broken = damaged(model, tmp_path / "broken")
    for value in (torch.nan, torch.inf):
        brain = folder.load(model)
        with torch.no_grad():
            brain.embedding[3, 1] = value
        folder.save(brain, broken)
        code, lines = refused(capsys, "run", broken, "x")
        assert code == 1 and "'embedding' holds values that are not finite" in lines[0] and len(lines) == 2


@pytest.mark.parametrize(
    "option",
    ["--temperature=nan", "--temperature=inf", "--temperature=1e-45", "--top-p=nan", f"--seed={10**25}", "--seed=-1"],
)
def test_a_number_out_of_range_is_wrong_usage(option, model, capsys):
    code, lines = refused(capsys, "run", model, "x", option)
    assert code == 2 and len(lines) == 2 and lines[0].startswith(option.partition("=")[0])


def test_an_error_after_the_prompt_begins_a_line(model, capsys, monkeypatch):
    """Finite weights, but logits that are not: found when the first token is sampled, behind the printed prompt."""
    feed = Session.feed
    monkeypatch.setattr(Session, "feed", lambda self, tokens: _poisoned(self, feed(self, tokens)))
    assert main(["run", str(model), "The keeper", "--tokens", "2"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "The keeper\n"
    assert captured.err.split("\n")[0] == "sampling: the logits are not finite."
    assert main(["run", str(model), "The keeper", "--tokens", "2", "--json"]) == 1
    assert capsys.readouterr().out == ""


def _poisoned(session: Session, logits: torch.Tensor) -> torch.Tensor:
    session.state = session.state._replace(logits=torch.full_like(logits, torch.nan))
    return session.state.logits


def test_what_cannot_be_told_of_a_text_is_not_printed(tmp_path, capsys):
    """One block has no interval, and a closed vocabulary no bits per byte."""
    tokenizer = Tokenizer.train(TEXT.split("\n"), 40, kind="words")
    brain = Brain(apply_sets(presets.tiny().brain, [f"vocab_size={tokenizer.vocab_size}"]))
    brain.tokenizer = tokenizer
    words = folder.save(brain, tmp_path / "words")
    (tmp_path / "text.txt").write_text("The keeper of the zebra" * 5 + ".\n", encoding="utf-8")
    assert main(["eval", str(words), str(tmp_path / "text.txt"), "-q"]) == 0
    told = capsys.readouterr().out
    assert "too few units for an interval" in told and "bits per byte" not in told and "95 %" not in told
    assert main(["eval", str(words), str(tmp_path / "text.txt"), "-q", "--json"]) == 0
    arm = json.loads(capsys.readouterr().out)["arms"][0]
    assert (arm["bits_per_byte"], arm["word_perplexity_interval"]) == (None, None)


def test_json_holds_the_text_to_its_last_byte(model, capsys, monkeypatch):
    """The last token may end inside a character: what plain output shows of it, JSON shows too."""
    first_of_two = next(i for i in range(300) if folder.load(model).tokenizer.token_bytes(i) == b"\xc3")
    monkeypatch.setattr(Session, "generate", lambda self, sampler, most: iter([first_of_two]))
    assert main(["run", str(model), "", "--tokens", "1", "-q"]) == 0
    shown = capsys.readouterr().out
    assert main(["run", str(model), "", "--tokens", "1", "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.split("\n") if line]
    assert "".join(record.get("text", "") for record in records) + "\n" == shown == "\N{REPLACEMENT CHARACTER}\n"


def test_energy_prices_the_run_that_run_makes(model, tmp_path, capsys, monkeypatch):
    """The same seed, the same tokens; ids that are never written are not sampled for a measurement either."""
    monkeypatch.setattr(Tokenizer, "never_written", property(lambda self: tuple(range(150))))
    assert main(["run", str(model), "The keeper", "--seed", "4", "-q", "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    reports = []
    for target in ([str(tmp_path / "run.json")], [str(model), "The keeper"]):
        assert main(["energy", *target, "--seed", "4", "--json"]) == 0
        reports.append(json.loads(capsys.readouterr().out))
    assert reports[0] == reports[1]


@pytest.mark.parametrize("form", ["svg", "mermaid"])
def test_without_a_thalamus_the_input_still_reaches_the_cortex(form, capsys):
    assert main(["show", "tiny", "--set", "brain.thalamus.enabled=false", "--format", form]) == 0
    out = capsys.readouterr().out
    if form == "svg":
        assert ">relay</text>" in out
    else:
        assert '    input -->|"relay, valid"| cortex' in out.split("\n") and "    embedding -->" not in out


def test_only_what_a_commit_reads_points_to_it(capsys):
    assert main(["show", "tiny", "--format", "mermaid"]) == 0
    pointing = [line.split()[0] for line in capsys.readouterr().out.split("\n") if line.endswith("| commit")]
    assert sorted(pointing) == ["amygdala", "cortex", "hippocampus", "readout"]


def test_a_model_may_be_a_hugging_face_id(model, capsys, monkeypatch, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    asked: list[str] = []
    monkeypatch.setattr(hub, "snapshot_download", lambda name, **options: asked.append(name) or str(model))
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    for argv in (
        ["run", "org/name", "x", "--tokens", "1", "-q"],
        ["eval", "org/name", tmp_path / "text.txt", "-q"],
        ["energy", "org/name", "x"],
        ["show", "org/name"],
    ):
        assert main([str(word) for word in argv]) == 0, argv
    assert asked == ["org/name"] * 4
    package = importlib.import_module("export.package")
    monkeypatch.setattr(package, "export_onnx", lambda folder, *rest: pytest.fail(str(folder)))
    with pytest.raises(pytest.fail.Exception, match=str(model)):
        main(["export", "org/name", "--out", str(tmp_path / "out")])
    code, lines = refused(capsys, "run", "./name", "x")
    assert code == 3 and len(asked) == 5, "a path is never asked of the hub"
    assert "neither a shipped model nor a folder" in lines[0]


@pytest.mark.parametrize(("preset", "text"), [("tiny", "--set data.train=TEXT "), ("mqar", "")])
def test_a_preset_is_no_model_yet(capsys, preset, text):
    code, lines = refused(capsys, "run", preset, "x")
    assert code == 3
    assert lines[0] == f"model '{preset}': got a configuration, which has no weights, expected a trained model."
    assert lines[1] == f"Train it first: neuro train {preset} {text}--out FOLDER; its model is then FOLDER/model."


@pytest.mark.parametrize("verb", [["train"], ["config", "show"]])
@pytest.mark.parametrize(("name", "do"), [("tinny", "Did you mean 'tiny'?"), ("nothing/tinny.toml", "Check the path.")])
def test_a_configuration_that_is_not_there_is_a_misspelt_preset_or_a_wrong_path(capsys, verb, name, do):
    code, lines = refused(capsys, *verb, name)
    assert (code, lines[1]) == (3, do)


def test_without_the_hub_a_missing_model_says_how_to_get_it(capsys, monkeypatch):
    monkeypatch.setattr(importlib.import_module("neuro.cli._model"), "installed", lambda package: False)
    code, lines = refused(capsys, "run", "org/name", "x")
    assert code == 3 and lines[0] == "model 'org/name': neither a shipped model nor a folder."
    assert lines[1].endswith("A model of the Hugging Face hub needs: pip install 'neuro-hybrid[hf]'")


def test_a_run_that_is_there_tells_its_loss_again_and_takes_no_fewer_steps(capsys, tmp_path):
    (tmp_path / "book.txt").write_text(TEXT)
    out = tmp_path / "run"

    def train(steps: int) -> list[str]:
        sets = [f"data.train={tmp_path / 'book.txt'}", f"train.steps={steps}", "train.eval_tokens=64"]
        return ["train", "tiny", "--out", str(out), "--json", "-q", *(f"--set={item}" for item in sets)]

    assert main(train(0)) == 0  # a run of no steps is one to go on from
    assert json.loads(capsys.readouterr().out)["valid_nats"] is None
    assert (out / "checkpoint.safetensors").exists() and (out / "log.jsonl").exists()
    assert main(train(2)) == 0
    first = json.loads(capsys.readouterr().out)["valid_nats"]
    assert first is not None and main(train(2)) == 0
    assert json.loads(capsys.readouterr().out)["valid_nats"] == first
    resolved = (out / "config.toml").read_text()
    code, lines = refused(capsys, *train(1))
    assert (code, lines) == (
        2,
        [
            f"train.steps: got 1, but the run in {out} has 2 steps behind it.",
            "Ask for at least 2, or choose another --out.",
        ],
    )
    assert (out / "config.toml").read_text() == resolved


def test_what_could_not_be_saved_is_refused_before_anything_is_read(model, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    for option, name in (("--memory", "a.memory"), ("--record", "r"), ("--out", "o")):
        code, lines = refused(capsys, "run", model, "x", "--tokens", "1", option, tmp_path / name)
        assert code == 1 and len(lines) == 2 and "cannot be written to" in lines[0]
    assert not list(tmp_path.iterdir())


def test_a_folder_is_no_memory_file(model, capsys, tmp_path):
    code, lines = refused(capsys, "run", model, "x", "--memory", tmp_path)
    assert (code, lines[0]) == (3, f"{tmp_path}: got a folder, expected a file.")


@pytest.mark.parametrize("given", [["--format", "svg", "--out", "w.png"], ["--out", "w.svg"]])
def test_a_wiring_is_not_written_under_the_name_of_another_picture(model, capsys, tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    code, lines = refused(capsys, "show", model, *given)
    assert code == 2 and lines[0].startswith(f"--out: got '{given[-1]}' for the format")
    assert not list(tmp_path.iterdir())


def test_a_verb_writes_by_default_as_the_sampler_does():
    assert (Sampler().temperature, Sampler().top_p) == (run.TEMPERATURE, run.TOP_P)
