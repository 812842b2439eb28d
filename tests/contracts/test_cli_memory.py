"""neuro remember and neuro memory as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from neuro import folder, memory_file, recall, remember
from neuro.cli import main
from neuro.items import Item
from neuro.state import leaves

FACTS = "question,answer\nThe keeper is called,Victor.\nThe vault's word is,crimson.\nThe keeper is called,Victor.\n"


@pytest.fixture(scope="module")
def model(saved_model) -> str:
    return str(saved_model([FACTS] * 20))


@pytest.fixture
def facts(tmp_path) -> Path:
    path = tmp_path / "facts.csv"
    path.write_text(FACTS)
    return path


def said(capsys, *argv: object) -> dict:
    assert main([*map(str, argv), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_facts_are_read_once_listed_searched_and_forgotten(model, facts, capsys, tmp_path):
    memory = ["--memory", tmp_path / "m"]
    read = said(capsys, "remember", model, facts, *memory)
    assert (read["schema"], read["items"], read["known"], read["interrupted"]) == ("neuro.remember/2", 2, 1, False)
    written = (tmp_path / "m").read_bytes()
    assert said(capsys, "remember", model, facts, *memory)["known"] == 3
    assert (tmp_path / "m").read_bytes() == written
    listed = said(capsys, "memory", "ls", model, *memory)
    assert listed["schema"] == "neuro.memory.ls/1"
    assert [row["source"] for row in listed["items"]] == ["facts.csv:2", "facts.csv:3"]
    assert [row["text"] for row in listed["items"]] == ["The keeper is called Victor.", "The vault's word is crimson."]
    found = said(capsys, "memory", "search", model, "The vault's word is", *memory, "--top", "1")["items"]
    assert [row["item"] for row in found] == [1] and found[0]["recall"] > 0
    assert main(["memory", "search", model, "The vault's word is", "--memory", str(tmp_path / "m")]) == 0
    assert capsys.readouterr().out.startswith("     1  recall")
    assert said(capsys, "memory", "save", model, tmp_path / "copy", *memory)["items"] == 2
    gone = said(capsys, "memory", "forget", model, 0, *memory)
    assert (gone["forgotten"], gone["read_again"]) == ([0], 1)
    assert [row["text"] for row in said(capsys, "memory", "ls", model, *memory)["items"]] == [
        "The vault's word is crimson."
    ]
    assert said(capsys, "memory", "forget", model, "--source", "facts.csv:3", *memory)["forgotten"] == [0]
    assert said(capsys, "memory", "ls", model, *memory)["items"] == []
    assert main(["memory", "ls", model, "--memory", str(tmp_path / "m")]) == 0
    assert capsys.readouterr().out == "nothing has been read\n"
    assert said(capsys, "memory", "load", model, tmp_path / "copy", *memory)["items"] == 2
    assert (tmp_path / "m").read_bytes() == written
    assert said(capsys, "memory", "forget", model, "--source", "facts.csv", *memory)["forgotten"] == [0, 1]


def test_what_was_read_before_a_broken_line_or_an_interruption_is_kept(model, capsys, tmp_path, monkeypatch):
    lines, memory = tmp_path / "a.jsonl", str(tmp_path / "m")
    lines.write_text('{"text": "The keeper is called Victor."}\nbroken\n')
    assert main(["remember", model, str(lines), "--memory", memory]) == 1
    assert "a.jsonl:2: got no JSON" in capsys.readouterr().err
    kept = said(capsys, "memory", "ls", model, "--memory", memory)["items"]
    assert [row["text"] for row in kept] == ["The keeper is called Victor."]
    lines.write_text('{"text": "The keeper is called Victor."}\n{"text": "The word is crimson."}\n')
    read = remember._read

    def stopped(*args) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(remember, "_read", stopped)
    assert main(["remember", model, str(lines), "--memory", memory]) == 130
    assert "stopped after the last whole item; the same command goes on from there" in capsys.readouterr().err
    monkeypatch.setattr(remember, "_read", read)
    assert said(capsys, "remember", model, lines, "--memory", memory)["items"] == 1


def test_mistakes_get_two_lines_and_change_nothing(model, facts, capsys, tmp_path):
    memory = tmp_path / "m"
    assert main(["remember", model, str(facts), "--memory", str(memory), "-q"]) == 0
    capsys.readouterr()
    before = memory.read_bytes()
    cases = [
        (2, "got 'lss'", ["lss", model]),
        (2, "got 'x', expected nothing more", ["ls", model, "x"]),
        (2, "--source has no effect here", ["ls", model, "--source", "x"]),
        (2, "--top: got 0", ["search", model, "x", "--top", "0"]),
        (2, "got 2 words, expected one text", ["search", model, "x", "y"]),
        (2, "got 0 words, expected one file", ["save", model]),
        (2, "nothing to forget was named", ["forget", model]),
        (2, "got 'Victor', expected an item's number", ["forget", model, "Victor"]),
        (2, "there is no item 7, expected 0 to 1", ["forget", model, "7"]),
        (2, "nothing came from 'facts.csv:9'", ["forget", model, "--source", "facts.csv:9"]),
        (2, "is there already", ["save", model, facts]),
        (1, "not a whole safetensors file", ["load", model, facts]),
        (3, "no such file", ["load", model, tmp_path / "none"]),
    ]
    for code, words, argv in cases:
        got = main(["memory", *map(str, argv), "--memory", str(memory)])
        lines = capsys.readouterr().err.strip().split("\n")
        assert (got, len(lines)) == (code, 2) and words in lines[0], (argv, lines)
    assert memory.read_bytes() == before and facts.read_text() == FACTS


def test_a_reading_says_what_is_stored_and_what_is_recalled_where(model):
    brain = folder.load(model, "cpu")
    memory = remember.Memory(brain)
    list(remember.read(memory, [Item("The keeper is called Victor.", "a"), Item("The vault's word is crimson.", "b")]))
    before = [leaf.clone() for _, leaf in leaves(memory.state)]
    ids = [brain.tokenizer.bos_id, *brain.tokenizer.encode("The vault's word is crimson. The keeper is")]
    found = recall.read(brain, memory.state, ids)
    assert all(torch.equal(a, b) for a, (_, b) in zip(before, leaves(memory.state), strict=True)), (
        "it is only looked at"
    )
    length, span = len(ids), brain.config.plasticity_span
    assert [len(x) for x in (found.surprise, found.salience, found.gate, found.stored, found.recalled)] == [length] * 5
    assert found.commits == list(range(span - 1, length, span))
    assert not found.stored[0] and found.stored[1:].any(), "nothing leads to the first token"
    item = memory.transcript.items()[1]
    words = len(brain.tokenizer.encode("The vault's word is crimson."))
    inside = [slots[0].origin in item for slots in found.recalled[2:words]]
    assert np.mean(inside) > 0.8, "the text it has read before is what it recalls"
    alone = [sum(slot.share for slot in slots) for slots in found.recalled]
    assert np.allclose(alone, 1.0, atol=1e-5)


def test_the_picture_of_a_recall(model, facts, capsys, tmp_path):
    pytest.importorskip("matplotlib", reason="pictures need the extra 'plots'")
    memory, out = ["--memory", tmp_path / "m"], tmp_path / "recall.svg"
    said(capsys, "remember", model, facts, *memory)
    before = (tmp_path / "m").read_bytes()
    record = said(capsys, "recall", model, "The vault's word is crimson.", *memory, "--out", out)
    picture = out.read_text()
    assert record["picture"] == str(out) and 'id="recalled"' in picture and 'id="stored"' in picture
    assert (tmp_path / "m").read_bytes() == before
    brain = folder.load(model, "cpu")
    memory_file.save(tmp_path / "new", brain, brain.init_state(1))
    assert said(capsys, "recall", model, "The", "--memory", tmp_path / "new", "--out", out)["picture"] == str(out)
    for argv, words in (
        (["--out", out], "--out has no effect without a text"),
        (["x", "--out", tmp_path / "a.pdf"], ".png or .svg"),
    ):
        assert main(["recall", model, *map(str, argv), "--memory", str(tmp_path / "m")]) == 2
        assert words in capsys.readouterr().err


def test_a_memory_sleeps_and_can_still_forget(model, facts, capsys, tmp_path):
    memory = ["--memory", tmp_path / "m"]
    said(capsys, "remember", model, facts, *memory)
    night = said(capsys, "sleep", model, *memory, "--rounds", "2")
    assert (night["schema"], night["rounds"]) == ("neuro.sleep/1", 2)
    assert len(said(capsys, "memory", "ls", model, *memory)["items"]) == 2
    assert main(["sleep", model, "--memory", str(tmp_path / "m")]) == 0
    assert " memories merged, " in capsys.readouterr().out
    brain = folder.load(model, "cpu")
    assert [rounds for _, rounds in memory_file.load(tmp_path / "m", brain, brain.init_state(1))[1].sleeps] == [2, 1]
    for code, words, argv in (
        (2, "got 0 rounds, expected at least 1", [tmp_path / "m", "--rounds", "0"]),
        (3, "no such file", [tmp_path / "none"]),
    ):
        assert main(["sleep", model, "--memory", *map(str, argv)]) == code
        assert words in capsys.readouterr().err
    said(capsys, "memory", "forget", model, 0, 1, *memory)
    assert main(["sleep", model, "--memory", str(tmp_path / "m")]) == 2
    assert "nothing has been read, so there is nothing to replay" in capsys.readouterr().err
