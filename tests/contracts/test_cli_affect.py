"""neuro show --affect: what is printed, drawn and refused, with the shipped model."""

from __future__ import annotations

import json
import re

import pytest

from neuro import cli
from neuro.affect import prominence, reader

TEXT = "That film was a wonderful surprise! How do I transfer money to my savings account?"
pytestmark = pytest.mark.skipif(not reader.SHIPPED.is_file(), reason="the affect model is not in this checkout")


def test_it_says_what_a_text_expresses(capsys):
    assert cli.main(["show", "--affect", TEXT]) == 0
    out = capsys.readouterr().out
    first, second = out.split("HOW")
    assert "WONDERFUL" in first and "surprise" in first and "admiration" in first
    assert "intent   none of those it knows" in first and "intent   transfer" in second


def test_json_and_a_picture(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    out = tmp_path / "a.png"
    assert cli.main(["show", "--affect", TEXT + " 今日は", "--json", "--out", str(out)]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["schema"] == "neuro.show.affect/1" and out.read_bytes()[:4] == b"\x89PNG"
    good, asked, foreign = record["sentences"]
    assert good["positive"] > 0.8 > asked["positive"] and asked["intent"] == "transfer"
    assert foreign["known"] == 0.0 and foreign["intent"] is None
    said = {row["word"]: row["prominent"] for row in good["words"]}
    assert said["wonderful"] > 0.5 > said["was"]


def test_signs_alone_are_said_to_be_a_guess(capsys):
    assert cli.main(["show", "--affect", "!!! 🙂"]) == 0
    out = capsys.readouterr().out
    assert out.count("intent   none of those it knows") == 2
    assert out.count("it knows 0% of these words: the lines above are a guess") == 2
    assert not re.search(r" 0\.00\b", out)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--affect", " "], "affect: got no text, expected at least one.\nGive a text."),
        (["--affect", "a", "--spikes"], "neuro show: --spikes has no effect with --affect.\nLeave it out."),
        (
            ["--affect", "a", "--backend", "cpu"],
            "neuro show --affect: --backend has no effect here.\nLeave out --backend.",
        ),
    ],
)
def test_what_has_no_effect_is_refused(capsys, argv, message):
    assert cli.main(["show", *argv]) == 2
    assert capsys.readouterr().err.strip() == message


def test_the_shipped_files_are_whole_and_credit_their_sources():
    made, speaker = reader.load(), prominence.load()
    assert len(made.emotions) == 28 and len(made.intents) == 151 and made.vad is None
    assert speaker.lexicon.stress == {}
    credits = (reader.SHIPPED.parent / "LICENSE").read_text(encoding="utf-8")
    assert all(
        name in credits for name in ("GoEmotions", "CLINC150", "Pang and Lee", "Helsinki", "VADER", "4.0 International")
    )
