"""Recordings: what is added is read back, in constant memory, whatever interrupts it; a brain does not notice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from neuro import atomic, recorder
from neuro.errors import FormatError, MissingError, NeuroError, UsageError
from neuro.recorder import Recorder, Recording
from neuro.session import Session
from neuro.state import leaves

KINDS = {"spikes": "spikes", "u": "values", "counts": "counts", "rate": "values"}


def blocks(steps: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A signal of each kind; 3 x 7 neurons are no whole number of bytes."""
    draw = np.random.default_rng(seed)
    return {
        "spikes": (draw.random((steps, 3, 7)) < 0.2).astype(np.float32),
        "u": draw.standard_normal((steps, 3, 7)).astype(np.float32),
        "counts": draw.integers(0, 256, (steps, 3, 2)),
        "rate": draw.standard_normal(steps).astype(np.float32),
    }


def part(block: dict[str, np.ndarray], start: int, stop: int) -> dict[str, np.ndarray]:
    return {name: array[start:stop] for name, array in block.items()}


def recorded(folder: Path, steps: int = 50, **options) -> dict[str, np.ndarray]:
    truth = blocks(steps)
    with Recorder(folder, KINDS, chunk_steps=16, **options) as writer:
        writer.add(truth)
    return truth


def said(error: NeuroError) -> tuple[str, str]:
    return error.what, error.do


@pytest.mark.parametrize("pieces", [[50], [1] * 50, [16, 16, 16, 2], [7, 30, 13], [0, 33, 17]])
def test_what_was_added_is_read_back_however_it_was_cut(pieces, tmp_path):
    truth, start = blocks(50), 0
    with Recorder(tmp_path / "run", KINDS, chunk_steps=16) as writer:
        for length in pieces:
            writer.add(part(truth, start, start + length))
            start += length
            assert writer.steps == start
    reader = Recording(tmp_path / "run")
    assert reader.steps == 50
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "chunk-000000.npz", "chunk-000001.npz", "chunk-000002.npz", "chunk-000003.npz", "index.json",
    ]  # fmt: skip
    for name, array in truth.items():
        assert np.array_equal(reader.read(name), array)
        for begin, end in ((0, 1), (15, 17), (16, 32), (3, 49), (20, 20), (49, 50)):
            assert np.array_equal(reader.read(name, begin, end), array[begin:end])
    assert reader.read("spikes").dtype == reader.read("counts").dtype == np.uint8
    assert reader.read("u").dtype == np.float32


def test_tensors_of_any_type_are_taken_and_nothing_of_them_is_kept(tmp_path):
    spikes = torch.ones(4, 2, 5, dtype=torch.bool)
    u = torch.full((4, 2, 5), 0.5, dtype=torch.bfloat16, requires_grad=True)
    writer = Recorder(tmp_path / "run", {"spikes": "spikes", "u": "values"})
    writer.add({"spikes": spikes, "u": u})
    spikes.zero_()
    with torch.no_grad():
        u.zero_()
    writer.flush()
    reader = Recording(tmp_path / "run")
    assert reader.read("spikes").sum() == 40 and np.all(reader.read("u") == 0.5)


def test_values_keep_what_is_not_finite(tmp_path):
    values = np.array([0.5, np.nan, np.inf, -np.inf], np.float32)
    with Recorder(tmp_path / "run", {"u": "values"}) as writer:
        writer.add({"u": values})
    assert np.array_equal(Recording(tmp_path / "run").read("u"), values, equal_nan=True)


def test_a_range_of_milliseconds_holds_the_steps_that_begin_in_it(tmp_path):
    truth = recorded(tmp_path / "run", dt_ms=0.1)
    reader = Recording(tmp_path / "run")
    assert reader.dt_ms == 0.1
    for start_ms, stop_ms, start, stop in ((0, 5, 0, 50), (3 * 0.1, 0.7, 3, 7), (0.25, 0.31, 3, 4), (1.0, 1.0, 10, 10)):
        assert np.array_equal(reader.read_ms("u", start_ms, stop_ms), truth["u"][start:stop])
    recorded(tmp_path / "tokens")
    with pytest.raises(UsageError) as caught:
        Recording(tmp_path / "tokens").read_ms("u", 0, 1)
    assert said(caught.value) == (
        f"read_ms: {tmp_path / 'tokens'} has steps without a length, expected a dt_ms.",
        "Read it by steps, with read.",
    )


def test_memory_does_not_grow_with_the_run(tmp_path):
    """A hundred times the steps, 75 MB more, and less than another chunk's peak: writing, and reading piece by piece.

    The interpreter's own garbage counts too, and was once a tenth of a peak of 0.74 MB.
    """

    def peak(folder: Path, steps: int) -> int:
        block = {"spikes": np.ones((64, 2048), np.uint8), "u": np.ones((64, 256), np.float32)}
        tracemalloc.start()
        with Recorder(folder, {"spikes": "spikes", "u": "values"}, chunk_steps=128) as writer:
            for _ in range(steps // 64):
                writer.add(block)
        total = sum(int(piece.sum()) for _, piece in Recording(folder).pieces("spikes"))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert total == steps * 2048
        return most

    peak(tmp_path / "warm", 256)
    short, long = peak(tmp_path / "short", 256), peak(tmp_path / "long", 25600)
    assert long < 2 * short
    sizes = [(tmp_path / name / "index.json").stat().st_size for name in ("short", "long")]
    assert sizes[1] - sizes[0] == 2, "the index grows by the digits of its step count alone"


def test_spikes_lie_eight_to_a_byte(tmp_path):
    recorded(tmp_path / "run")
    with np.load(tmp_path / "run" / "chunk-000001.npz", allow_pickle=False) as chunk:
        assert chunk["spikes"].dtype == np.uint8 and chunk["spikes"].shape == (16, 3)  # 21 neurons
        assert int(chunk["start"]) == 16


@pytest.mark.parametrize("first", [16, 20, 48])
def test_a_run_resumes_after_its_last_step_on_disk(first, tmp_path):
    truth = blocks(50)
    writer = Recorder(tmp_path / "run", KINDS, chunk_steps=16, about={"model": "a"})
    writer.add(part(truth, 0, first))
    writer.flush()
    writer.add(part(truth, first, min(50, first + 10)))  # and then it was killed: what was not flushed is lost
    again = Recorder(tmp_path / "run", KINDS, chunk_steps=16, resume=True)
    assert first <= again.saved == again.steps <= first + 10
    again.add(part(truth, again.saved, 50))
    again.flush()
    reader = Recording(tmp_path / "run")
    assert reader.steps == 50 and reader.about == {"model": "a"}
    assert all(np.array_equal(reader.read(name), array) for name, array in truth.items())


def test_killed_between_chunk_and_index_the_index_decides(tmp_path, monkeypatch):
    truth, write = blocks(50), atomic.write_text
    writer = Recorder(tmp_path / "run", KINDS, chunk_steps=16)
    writer.add(part(truth, 0, 20))
    writer.flush()

    def killed(path, text) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic, "write_text", killed)
    writer.add(part(truth, 20, 27))
    with pytest.raises(KeyboardInterrupt):
        writer.flush()
    monkeypatch.setattr(atomic, "write_text", write)
    reader = Recording(tmp_path / "run")
    assert reader.steps == 20 and np.array_equal(reader.read("u"), truth["u"][:20])
    with Recorder(tmp_path / "run", KINDS, chunk_steps=16, resume=True) as again:
        assert again.saved == 20
        again.add(part(truth, 20, 50))
    assert np.array_equal(Recording(tmp_path / "run").read("u"), truth["u"])


FOREVER = """
import sys
import numpy as np
from neuro.recorder import Recorder
recorder = Recorder(sys.argv[1], {"step": "values", "spikes": "spikes"}, chunk_steps=16)
while True:
    steps = np.arange(recorder.steps, recorder.steps + 7)[:, None]
    recorder.add({"step": steps, "spikes": steps % 2})
    print(recorder.saved, flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is of POSIX")
@pytest.mark.parametrize("reached", [16, 200, 1000])
def test_a_process_that_is_killed_leaves_every_chunk_it_wrote(reached, tmp_path):
    """By SIGKILL, which no handler sees, while it writes as fast as it can."""
    run = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", FOREVER, str(run)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = next(int(line) for line in process.stdout if int(line) >= reached)
        process.kill()
    reader = Recording(run)
    assert reader.steps >= said
    assert np.array_equal(reader.read("step")[:, 0], np.arange(reader.steps))
    assert np.array_equal(reader.read("spikes")[:, 0], np.arange(reader.steps) % 2)
    with Recorder(run, {"step": "values", "spikes": "spikes"}, chunk_steps=16, resume=True) as again:
        assert again.saved == reader.steps
        again.add({"step": np.full((3, 1), reader.steps), "spikes": np.zeros((3, 1))})
    assert Recording(run).steps == reader.steps + 3


def test_an_error_in_the_run_leaves_what_was_added(tmp_path):
    truth = blocks(20)
    with pytest.raises(ZeroDivisionError), Recorder(tmp_path / "run", KINDS, chunk_steps=16) as writer:
        writer.add(truth)
        raise ZeroDivisionError
    assert np.array_equal(Recording(tmp_path / "run").read("counts"), truth["counts"])


def test_resuming_in_an_empty_folder_begins(tmp_path):
    truth = recorded(tmp_path, resume=True)
    assert np.array_equal(Recording(tmp_path).read("u"), truth["u"])


@pytest.mark.parametrize("damage", ["truncated", "flipped", "text", "swapped", "shorter", "missing"])
def test_a_damaged_chunk_is_named_and_the_others_are_read(damage, tmp_path):
    truth = recorded(tmp_path)
    path = tmp_path / "chunk-000001.npz"
    raw = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "swapped":
        path.write_bytes((tmp_path / "chunk-000002.npz").read_bytes())
    elif damage == "shorter":
        path.write_bytes((tmp_path / "chunk-000003.npz").read_bytes())
    elif damage == "flipped":
        at = raw.index(b"u.npy") + 60
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 255]) + raw[at + 1 :])
    else:
        path.write_bytes(raw[: len(raw) // 2] if damage == "truncated" else b"not a chunk")
    reader = Recording(tmp_path)
    assert np.array_equal(reader.read("u", 0, 16), truth["u"][:16])
    assert np.array_equal(reader.read("u", 32, 50), truth["u"][32:])
    with pytest.raises(FormatError) as caught:
        reader.read("u", 10, 20)
    what, do = said(caught.value)
    reasons = {"missing": "missing", "swapped": "from step 32, expected [16, 3, 7] from 16", "shorter": "from step 48"}
    assert what.startswith(f"{path}: ") and reasons.get(damage, "not a whole chunk (") in what
    assert do == "Steps 16 to 32 are lost: put the file back, or read other ranges; they are whole."


def test_resuming_with_a_chunk_missing_names_it(tmp_path):
    recorded(tmp_path)
    (tmp_path / "chunk-000000.npz").unlink()
    with pytest.raises(FormatError, match=r"chunk-000000\.npz: missing\.\nSteps 0 to 16 are lost"):
        Recorder(tmp_path, KINDS, chunk_steps=16, resume=True)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (None, MissingError, ": no such file.\nGive the folder of a recording"),
        ("{", FormatError, ": not an index (.*\nUse another copy"),
        ("[]", FormatError, r": got schema \[\], expected 'neuro.recording/1'"),
        ({"schema": "other/2"}, FormatError, ": got schema 'other/2', expected 'neuro.recording/1'"),
        ({"steps": -1}, FormatError, ": holds a number or kind that cannot be"),
        ({"signals": {"u": {"kind": "sound", "shape": []}}}, FormatError, ": holds a number or kind that cannot be"),
        ({"signals": {"u": {}}}, FormatError, ": lacks or garbles 'kind'"),
        ({"chunk_steps": "many"}, FormatError, ": lacks or garbles "),
    ],
)
def test_an_index_that_is_none_is_refused(change, error, says, tmp_path):
    recorded(tmp_path)
    path = tmp_path / "index.json"
    if change is None:
        path.unlink()
    else:
        record = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(record | change) if isinstance(change, dict) else change, encoding="utf-8")
    with pytest.raises(error, match=says.replace("(.*", r"\(.*")):
        Recording(tmp_path)


def _spikes(*values: float) -> dict[str, np.ndarray]:
    return {"spikes": np.array(values, np.float32)}


@pytest.mark.parametrize(
    ("make", "what", "do"),
    [
        (lambda f: Recorder(f, {}), "recorder: got no signal, expected at least one.", "Declare name -> kind."),
        (
            lambda f: Recorder(f, {"a/b": "spikes"}),
            "recorder: got a signal named 'a/b', expected letters, digits and '_'.",
            "Rename it; 'start' and 'file' are taken.",
        ),
        (lambda f: Recorder(f, {"u": "spike"}), "recorder: got kind 'spike' of u.", "Did you mean 'spikes'?"),
        (
            lambda f: Recorder(f, {"u": "values"}, dt_ms=0.0),
            "recorder: got dt_ms 0.0, expected a time above 0.",
            "Give the milliseconds of a step.",
        ),
        (
            lambda f: Recorder(f, {"u": "values"}, chunk_steps=0),
            "recorder: got chunk_steps 0, expected at least 1.",
            "Leave it at 1024.",
        ),
        (
            lambda f: Recorder(f, {"spikes": "spikes"}).add({"u": np.ones(3)}),
            "recorder: got the signals ['u'], expected ['spikes'].",
            "Give every declared signal in every block, and no other.",
        ),
        (
            lambda f: Recorder(f, {"spikes": "spikes"}).add(_spikes(0, 2)),
            "recorder: got spikes with 2, expected 0 or 1.",
            "Declare it as 'values', which holds any number, or as 'counts', which holds several spikes a step.",
        ),
        (
            lambda f: Recorder(f, {"spikes": "spikes"}).add(_spikes(0, np.nan)),
            "recorder: got spikes with nan, expected 0 or 1.",
            "Declare it as 'values', which holds any number, or as 'counts', which holds several spikes a step.",
        ),
        (
            lambda f: Recorder(f, {"spikes": "counts"}).add(_spikes(3, -1)),
            "recorder: got spikes with -1, expected whole numbers 0 to 255.",
            "Declare it as 'values', which holds any number, or as 'counts', which holds several spikes a step.",
        ),
        (
            lambda f: Recorder(f, {"a": "values", "b": "values"}).add({"a": np.ones(3), "b": np.ones(4)}),
            "recorder: got blocks of {'a': 3, 'b': 4} steps, expected one number.",
            "Put time first, [T, ...], and give the same steps of every signal.",
        ),
    ],
)
def test_mistakes_are_named(make, what, do, tmp_path):
    with pytest.raises(UsageError) as caught:
        make(tmp_path / "run")
    assert said(caught.value) == (what, do)
    assert not (tmp_path / "run").exists()


def test_a_block_that_is_refused_leaves_nothing(tmp_path):
    truth = blocks(10)
    writer = Recorder(tmp_path / "run", KINDS)
    writer.add(truth)
    with pytest.raises(UsageError) as caught:
        writer.add(truth | {"u": truth["u"].transpose(0, 2, 1)})
    assert said(caught.value) == (
        "recorder: got u of shape [7, 3] a step, expected [3, 7] as before.",
        "Put time first, [T, ...]; record another network or batch in a folder of its own.",
    )
    with pytest.raises(UsageError):
        writer.add(truth | {"spikes": truth["spikes"] + 0.5})
    writer.flush()
    assert writer.steps == 10 == Recording(tmp_path / "run").steps


def test_a_folder_with_something_in_it_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x", encoding="utf-8")
    for folder in (tmp_path, tmp_path / "thesis.tex"):
        for resume in (False, True):
            with pytest.raises(UsageError) as caught:
                Recorder(folder, KINDS, resume=resume)
            assert said(caught.value) == (
                f"recorder: got {folder}, which is not empty, expected an empty or a new folder.",
                "Give another folder; from Python, Recorder(..., resume=True) goes on with a recording of the same signals.",
            )


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"signals": {"u": "values"}}, "signals {'u': 'values'}, expected {'spikes': 'spikes', 'u': 'values',"),
        ({"dt_ms": 2.0}, "dt_ms 2.0, expected 1.0"),
        ({"chunk_steps": 8}, "chunk_steps 8, expected 16"),
    ],
)
def test_another_recording_is_not_resumed(arguments, what, tmp_path):
    recorded(tmp_path, dt_ms=1.0)
    with pytest.raises(UsageError) as caught:
        Recorder(tmp_path, **{"signals": KINDS, "dt_ms": 1.0, "chunk_steps": 16, "resume": True} | arguments)
    assert caught.value.what.startswith(f"recorder: got {what}") and caught.value.what.endswith(f" as in {tmp_path}.")
    assert caught.value.do == "Resume with what the recording began with, or record in another folder."


def test_ranges_and_names_outside_are_refused(tmp_path):
    recorded(tmp_path)
    reader = Recording(tmp_path)
    with pytest.raises(UsageError, match=r"got signal 'spike'\.\nDid you mean 'spikes'\?"):
        reader.read("spike")
    for start, stop in ((-1, 5), (0, 51), (7, 6)):
        with pytest.raises(UsageError) as caught:
            reader.read("u", start, stop)
        assert said(caught.value) == (
            f"recording: got steps {start} to {stop}, expected a range within 0 to 50.",
            "Give a start that is not after its stop, and a stop that is not after the end.",
        )


SPIKING = ["cortex.feedforwards=spiking,spiking"]


def fed(brain, ids, observers) -> tuple[torch.Tensor, Session]:
    session = Session(brain, batch=ids.shape[0], observers=observers)
    logits = [session.feed(piece, keep_logits=True) for piece in ids.split(7, 1)]
    session.commit()
    return torch.cat(logits, 1), session


@pytest.mark.parametrize("sets", [SPIKING, [], ["thalamus.enabled=false", "hippocampus.enabled=false"]])
def test_a_recorded_brain_does_and_says_the_same(sets, tiny_brain, tokens, tmp_path):
    ids = tokens(2, 40)
    plain, alone = fed(tiny_brain(sets), ids, [])
    brain = tiny_brain(sets, record_raster=True, record_membrane=True)
    with recorder.for_brain(tmp_path / "run", brain) as writer:
        logits, watched = fed(brain, ids, [writer])
    assert torch.equal(plain, logits)
    for (path, before), (_, after) in zip(leaves(alone.state), leaves(watched.state), strict=True):
        assert torch.equal(before, after), path


def test_every_event_of_a_brain_is_kept(tiny_brain, tokens, tmp_path):
    heard = []

    class Listener:
        def span(self, events, commit) -> None:
            heard.append(events)

    brain, ids = tiny_brain(SPIKING, record_raster=True, record_membrane=True), tokens(2, 40)
    with recorder.for_brain(tmp_path / "run", brain, about={"model": "tiny"}) as writer:
        fed(brain, ids, [writer, Listener()])
    reader = Recording(tmp_path / "run")
    assert reader.steps == 40 and set(reader.signals) == set(recorder.EVENTS)
    for name in reader.signals:
        if name != "commit":
            truth = torch.cat([getattr(event, name) for span in heard for event in span], 1).transpose(0, 1)
            assert np.array_equal(reader.read(name), truth.numpy()), name
    assert reader.read("raster").sum() > 0
    span = brain.config.plasticity_span
    ends = [*range(span - 1, 40, span), 39]
    assert np.flatnonzero(reader.read("commit")).tolist() == ends
    assert reader.about == {
        "step": "token",
        "populations": ["cortex.layers.0.feedforward", "cortex.layers.1.feedforward"],
        "channels": [48, 48],
        "threshold": brain.config.cortex.v_threshold,
        "decay": brain.config.cortex.decay,
        "model": "tiny",
    }


def test_a_recorded_membrane_is_the_neuron_s_own(tiny_brain, tokens):
    """It fires where, and only where, the spikes are, and what the reset leaves is the carried state; cut anywhere."""
    brain = tiny_brain(SPIKING, record_raster=True, record_membrane=True)
    c, ids = brain.config.cortex, tokens(2, 12)
    state = brain.init_state(2)
    for piece in ids.split([1, 5, 6], 1):
        with torch.no_grad():
            out = brain.scan(piece, state)
        u, raster, state = out.events.membrane, out.events.raster, out.state
        assert torch.equal((u >= c.v_threshold).float(), raster)
        left = u[:, -1] - c.v_threshold * raster[:, -1]
        for layer, after in zip(state.regions.cortex.layers, left.unbind(1), strict=True):
            torch.testing.assert_close(after, layer.feedforward.v, rtol=0, atol=1e-6)


def test_a_brain_says_what_it_cannot_give(tiny_brain, tokens, tmp_path):
    brain = tiny_brain()
    assert set(recorder.for_brain(tmp_path, brain).kinds) == set(recorder.EVENTS) - {"raster", "membrane"}
    for signals, what, do in (
        (["membrane"], "which this brain's events lack.", "Load the brain with record_membrane=True."),
        (["rastre"], "recorder: got signal 'rastre'.", "Did you mean 'raster'?"),
    ):
        with pytest.raises(UsageError) as caught:
            recorder.for_brain(tmp_path, brain, signals)
        assert caught.value.what.endswith(what) and caught.value.do == do
    by_hand = Recorder(tmp_path, {"raster": "spikes"})
    with pytest.raises(UsageError, match=r"got events without 'raster'\.\nMake the recorder of a brain with for_brain"):
        fed(brain, tokens(1, 16), [by_hand])
    for option in ("record_raster", "record_membrane"):
        with pytest.raises(UsageError, match=f"brain: {option} without a spiking layer"):
            tiny_brain(["cortex.feedforwards=dense,dense"], **{option: True})
