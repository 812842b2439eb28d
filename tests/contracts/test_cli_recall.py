"""neuro recall of a model with a pointer: which tokens it predicts outright, and after which moments they came."""

from __future__ import annotations

import json

import pytest

from neuro.cli import main


@pytest.mark.parametrize("points", [True, False])
def test_the_command_line_shows_it(points, saved_model, capsys, tmp_path):
    model = saved_model(["the keeper counts the boats by the lamp."] * 30, f"hippocampus.pointer={str(points).lower()}")
    text, memory = "the keeper counts the boats by the lamp. " * 4, str(tmp_path / "m")
    assert main(["run", str(model), text, "--tokens", "0", "--memory", memory, "-q"]) == 0
    capsys.readouterr()
    asked = ["recall", str(model), "the keeper counts", "--memory", memory, "--top", "2"]
    assert main([*asked, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert main(asked) == 0
    said = capsys.readouterr().out
    assert ("pointer" in record) == points == ("chance is copied from what followed before" in said)
    if points:
        first, second = record["pointer"]["copied"]
        assert 0 < second["probability"] <= first["probability"] <= record["pointer"]["share"] < 1
        assert first["stored"] == first["text"] and first["source"] == "prompt"
        assert (
            f"{first['probability']:.2f} for {first['text']!r}, which followed {first['moments']} stored moment" in said
        )
