"""Laws of the two peers, and that they learn and are scored as the brain is.

A memory is the past itself, nothing sees the future, compressed is what the convolution says; same windows, same rows.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import backends
from neuro import config
from neuro.brain import Brain
from neuro.config import TrainConfig
from neuro.errors import CheckError, UsageError
from neuro.evaluate import recall, repeat
from neuro.tasks import Mqar
from neuro.train import examples
from neuro.train.streams import Streams, Window

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def loaded(name: str) -> ModuleType:
    """A module of benchmarks/, under the name that its siblings import it by."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


peers = loaded("_memory_transformer")
training = loaded("_peer_training")
runs, recalls, pages = (loaded(name) for name in ("_peer_runs", "_peer_recall", "_peer_page"))
for name in ("_machine", "prepare_corpus"):
    loaded(name)
runner = loaded("transformer_peers")
SIZE = peers.Size(vocab=50, width=16, layers=2, heads=2, hidden=24, memory=8)
COMPRESSIVE = dataclasses.replace(SIZE, compressed=4, rate=4)


def made(size, seed=0):
    torch.manual_seed(seed)
    model = peers.MemoryTransformer(size).double()
    with torch.no_grad():
        for layer in model.layers:  # so that both biases have a say
            layer.content_bias.normal_()
            layer.distance_bias.normal_()
    return model


def empty(model, batch):
    recent, compressed, *held = model.empty(batch)
    return peers.Memory(recent.double(), compressed.double(), *held)


def read(model, tokens, segments):
    """Logits of all tokens, read in segments of these lengths, and the memory after them."""
    memory, found = empty(model, len(tokens)), []
    for part in tokens.split(segments, 1):
        reading = model(part, memory)
        found.append(model.logits(reading.features))
        memory, _ = model.remember(memory, reading.inputs)
    return torch.cat(found, 1), memory


def tokens_of(length, batch=2, seed=1):
    return torch.randint(0, 50, (batch, length), generator=torch.Generator().manual_seed(seed))


def test_one_score_is_the_formula_of_the_paper():
    """Layer 0, head 1, query 2 of a segment of 3 behind a memory of 2: written out, distance by distance."""
    model = made(dataclasses.replace(SIZE, layers=1, memory=2))
    layer, x, past = model.layers[0], torch.randn(1, 3, 16).double(), torch.randn(1, 2, 16).double()
    r = peers.sinusoids(torch.arange(4, -1, -1), 16).double()
    everything = torch.cat([past, x], 1)
    q = layer.query(layer.norm(x))[0, 2, 8:]
    k, v = layer.key_value(layer.norm(everything))[0].chunk(2, -1)
    scores = []
    for j in range(5):
        at = layer.distance(peers.sinusoids(torch.tensor([4 - j]), 16).double())[0, 8:]
        scores.append(((q + layer.content_bias[1, 0]) @ k[j, 8:] + (q + layer.distance_bias[1, 0]) @ at) / 8**0.5)
    wanted = torch.stack(scores).softmax(0) @ v[:, 8:]
    heads = []
    layer.out.register_forward_hook(lambda module, given, out: heads.append(given[0]))
    mask = torch.cat([torch.zeros(3, 2, dtype=torch.bool), torch.ones(3, 3, dtype=torch.bool).triu(1)], 1)
    layer(x, past, r, mask[None, None])
    assert torch.allclose(heads[0][0, 2, 8:], wanted, atol=1e-9)


@pytest.mark.parametrize("segments", [[8, 8, 8], [1, 7, 13, 3], [24]])
def test_with_a_memory_as_long_as_the_past_segments_do_not_matter(segments):
    model = made(dataclasses.replace(SIZE, memory=24))
    tokens = tokens_of(24)
    apart, _ = read(model, tokens, segments)
    whole = model.logits(model(tokens, empty(model, 2)).features)
    assert torch.allclose(apart, whole, atol=1e-5)


def test_one_layer_with_a_shorter_memory_equals_a_pass_over_that_memory_and_the_segment():
    model = made(dataclasses.replace(SIZE, layers=1))
    tokens = tokens_of(28)
    apart, _ = read(model, tokens, [10, 10, 8])
    window = model.logits(model(tokens[:, 12:], empty(model, 2)).features)
    assert torch.allclose(apart[:, 20:], window[:, 8:], atol=1e-5)
    assert not torch.allclose(apart[:, 20:], model.logits(model(tokens, empty(model, 2)).features)[:, 20:], atol=1e-3)


@pytest.mark.parametrize("size", [SIZE, COMPRESSIVE], ids=["xl", "compressive"])
def test_nothing_sees_the_future(size):
    model, tokens = made(size), tokens_of(32)
    other = tokens.clone()
    other[:, 21:] = (other[:, 21:] + 1) % 50
    one, two = read(model, tokens, 8)[0], read(model, other, 8)[0]
    assert torch.equal(one[:, :21], two[:, :21])
    assert not torch.allclose(one[:, 21:], two[:, 21:], atol=1e-3)


def test_a_memory_of_8_reaches_back_8_tokens_a_layer_and_no_further():
    model, tokens = made(SIZE), tokens_of(40)
    segments = read(model, tokens, 8)[0][:, 32]  # sees tokens 24.. directly, and 16.. through the layer below
    for changed, reaches in ((15, False), (16, True), (24, True)):
        other = tokens.clone()
        other[:, changed] = (other[:, changed] + 1) % 50
        assert torch.equal(segments, read(model, other, 8)[0][:, 32]) is not reaches


def test_memory_keeps_the_last_inputs_of_each_layer_over_segments_of_any_length():
    model, tokens = made(SIZE), tokens_of(13)
    memory, inputs = empty(model, 2), []
    for part in tokens.split([3, 5, 4, 1], 1):
        reading = model(part, memory)
        inputs.append(reading.inputs)
        memory, _ = model.remember(memory, reading.inputs)
    assert torch.equal(memory.recent, torch.cat(inputs, 2)[:, :, -8:])
    assert memory.held.tolist() == [8, 8] and not memory.recent.requires_grad


def test_emptied_rows_read_as_streams_that_begin():
    model, tokens = made(COMPRESSIVE), tokens_of(32)
    _, memory = read(model, tokens[:, :24], 8)
    fresh = peers.emptied(memory, torch.tensor([True, False]))
    found = model(tokens[:, 24:], fresh).features
    assert torch.allclose(found[0], model(tokens[:1, 24:], empty(model, 1)).features[0], atol=1e-5)
    assert torch.equal(found[1], model(tokens[:, 24:], memory).features[1])


def test_compressed_slots_are_the_convolution_of_what_left_the_memory_first_in_first_out():
    model, tokens = made(COMPRESSIVE), tokens_of(40)
    memory, inputs = empty(model, 2), []
    for part in tokens.split(8, 1):
        reading = model(part, memory)
        inputs.append(reading.inputs.detach())
        memory, _ = model.remember(memory, reading.inputs)
        left = max(0, sum(x.shape[2] for x in inputs) - 8)
        assert memory.held_compressed.tolist() == [min(4, left // 4)] * 2
    past = torch.cat(inputs, 2)[:, :, 16:32]  # 32 have left, at rate 4 the last 4 slots are of these
    for layer, states, slots in zip(model.layers, past, memory.compressed, strict=True):
        wanted = F.conv1d(states.transpose(1, 2), layer.compress.weight, layer.compress.bias, stride=4)
        assert torch.allclose(slots, wanted.transpose(1, 2), atol=1e-12)


def test_compression_that_loses_nothing_is_a_longer_memory_and_costs_nothing():
    plain = made(dataclasses.replace(SIZE, memory=16))
    same = made(dataclasses.replace(SIZE, compressed=8, rate=1))
    same.load_state_dict(plain.state_dict(), strict=False)
    with torch.no_grad():
        for layer in same.layers:
            layer.compress.weight.copy_(torch.eye(16).unsqueeze(2))
            layer.compress.bias.zero_()
    tokens = tokens_of(40)
    assert torch.allclose(read(plain, tokens, 8)[0], read(same, tokens, 8)[0], atol=1e-5)
    _, memory = read(same, tokens, 8)
    assert float(same.remember(memory, same(tokens[:, :8], memory).inputs)[1].detach()) < 1e-9


def test_the_segments_loss_reaches_no_memory_and_the_compressions_loss_reaches_the_convolution_alone():
    model, tokens = made(COMPRESSIVE), tokens_of(24)
    _, memory = read(model, tokens[:, :16], 8)
    reading = model(tokens[:, 16:], memory)
    after, loss = model.remember(memory, reading.inputs)
    assert float(loss.detach()) > 1e-6 and not after.compressed.requires_grad
    loss.backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.abs().sum())}
    assert reached == {f"layers.{i}.compress.{what}" for i in range(2) for what in ("weight", "bias")}
    model.zero_grad()
    model.logits(reading.features).logsumexp(-1).sum().backward()
    assert all(layer.compress.weight.grad is None for layer in model.layers)


def test_what_a_row_without_old_states_cannot_reconstruct_counts_nowhere():
    model, tokens = made(COMPRESSIVE), tokens_of(16)
    _, memory = read(model, tokens[:, :8], 8)
    one = peers.emptied(memory, torch.tensor([True, False]))
    inputs = model(tokens[:, 8:], one).inputs
    _, loss = model.remember(one, inputs)
    alone = peers.Memory(memory.recent[:, 1:], memory.compressed[:, 1:], memory.held[1:], memory.held_compressed[1:])
    assert torch.allclose(loss, model.remember(alone, inputs[:, 1:])[1])
    both = peers.emptied(memory, torch.tensor([True, True]))
    assert float(model.remember(both, inputs)[1].detach()) == 0.0


@pytest.mark.parametrize(
    ("what", "do", "make"),
    [
        ("got width 16 with 3 heads, expected an even", "Set width", lambda: dataclasses.replace(SIZE, heads=3)),
        (
            "got a memory of 6 at rate 4, expected",
            "multiple of rate",
            lambda: dataclasses.replace(COMPRESSIVE, memory=6),
        ),
        (
            "got a segment of 6 tokens to compress at rate 4",
            "last segment",
            lambda: read(made(COMPRESSIVE), tokens_of(6), 6),
        ),
    ],
)
def test_sizes_that_do_not_fit_are_refused(what, do, make):
    with pytest.raises(UsageError) as caught:
        make()
    assert what in caught.value.what and do in caught.value.do


# Learning and scoring

TRAIN = TrainConfig(steps=6, batch=2, spans_per_step=2, learning_rate=1e-2, warmup_steps=2, mixed_precision=False)


def streams(seed=0):
    tokens = np.random.default_rng(5).integers(0, 50, 400).astype(np.int32)
    return Streams(tokens, np.array([0, 150]), 2, 8, 0.1, seed)


def test_the_loss_is_the_mean_surprise_of_what_follows_and_of_the_scored_where_there_are_such():
    model = made(dataclasses.replace(SIZE, memory=16))
    tokens = tokens_of(16)
    chances = model.logits(model(tokens, empty(model, 2)).features).log_softmax(-1)
    nats = -chances[:, :-1].gather(2, tokens[:, 1:, None]).squeeze(2)
    window = Window(tokens.numpy(), np.ones(2, bool))
    for segment in (16, 4):
        found, compression, memory = training.window_loss(model, window, empty(model, 2), segment)
        assert torch.allclose(found, nats.mean(), atol=1e-5) and float(compression) == 0.0
        assert memory.held.tolist() == [16, 16]
    scored = np.zeros((2, 16), bool)
    scored[0, 3] = scored[1, 9] = True
    found = training.window_loss(model, window._replace(scored=scored), empty(model, 2), 8)[0]
    assert torch.allclose(found, (nats[0, 2] + nats[1, 8]) / 2, atol=1e-5)


def test_a_learner_reads_the_windows_of_the_seed_and_begins_a_memory_where_a_stream_does():
    learner, same = training.Learner(SIZE, streams(), TRAIN, 16), streams()
    seen = []
    learner.model.register_forward_pre_hook(lambda module, given: seen.append((given[0], given[1].held)))
    learner.run(6)
    held = torch.zeros(2, dtype=torch.int64)
    for tokens, before in seen:
        window = same.window(2)
        assert torch.equal(tokens, torch.from_numpy(window.tokens))
        assert torch.equal(before, torch.where(torch.from_numpy(window.fresh), 0, held))
        held = torch.full((2,), 8)
    assert len(seen) == 6 and learner.step == 6


def test_the_rate_that_goes_on_is_trained_as_if_it_were_alone():
    def held_out(model):
        return training.held_out_nats(model, streams().tokens, 200, batch=2)

    model, nats = training.halved(COMPRESSIVE, streams(), TRAIN, (1e-2, 1e-5), 16, 3, held_out)
    assert nats["0.01"] < nats["1e-05"]
    alone = training.Learner(COMPRESSIVE, streams(), TRAIN, 16)
    alone.run(6)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), alone.model.parameters(), strict=True))
    assert not torch.equal(model.layers[0].compress.weight, made(COMPRESSIVE).layers[0].compress.weight)


class Periodic:
    """Rows that repeat 12 random tokens; a window is 8 of them, and after 8 windows another 12 begin."""

    def __init__(self):
        self.random, self.count = np.random.default_rng(0), 0

    def window(self, spans):
        fresh = self.count % 8 == 0
        if fresh:
            self.period = self.random.integers(0, 50, (16, 12))
        at = (self.count % 8 * 8 + np.arange(8)) % 12
        self.count += 1
        return Window(self.period[:, at], np.full(16, fresh))


def test_what_lies_in_the_memory_alone_is_learned_from_there():
    """What comes next stood 11 tokens before, outside every segment."""
    train = TrainConfig(steps=240, batch=16, learning_rate=1e-2, warmup_steps=20, mixed_precision=False)
    size = dataclasses.replace(SIZE, width=32, layers=1, hidden=32, memory=16)
    learner = training.Learner(size, Periodic(), train, 8)
    learner.run(240)
    rows = np.tile(np.random.default_rng(9).integers(0, 50, (8, 12)), 4)
    known = training.surprises(learner.model, rows, 8)[:, 12:].mean()
    forgotten = training.surprises(training.grown(learner.model, 1, 0), rows, 8)[:, 12:].mean()
    assert known < 0.5 < 3.0 < forgotten


@pytest.mark.parametrize("size", [SIZE, COMPRESSIVE], ids=["xl", "compressive"])
def test_fitted_is_the_nearest_there_is(size):
    for parameters in (9_000, 9_017, 40_000):
        found = training.fitted(size, parameters)
        apart = [
            abs(
                training.count(peers.MemoryTransformer(dataclasses.replace(found, hidden=found.hidden + by)))
                - parameters
            )
            for by in (-1, 0, 1)
        ]
        assert apart[1] <= min(apart)
    with pytest.raises(UsageError) as caught:
        training.fitted(size, 100)
    assert "got 100 parameters, expected at least" in caught.value.what and "fewer layers" in caught.value.do


@pytest.mark.parametrize("size", ["micro", "small"])
def test_the_brain_without_memories_is_as_large_as_the_one_with_them(size):
    run = config.load(size, list(runner.TEXTS[size].sets))
    parameters = sum(Brain(run.brain, backends.select("cpu")).parameter_counts().values())
    found = runs.without_memories({0.1: run, 0.2: run}, parameters)
    assert list(found) == [0.1, 0.2] and found[0.1] == found[0.2]
    bare = found[0.1].brain
    assert not bare.hippocampus.enabled and not bare.fast_rank
    assert sum(Brain(bare, backends.select("cpu")).parameter_counts().values()) == pytest.approx(parameters, rel=0.01)
    assert found[0.1].train == run.train and bare.cortex.feedforwards == run.brain.cortex.feedforwards


@pytest.mark.parametrize("segment", [4, 7, 64])
def test_surprises_are_those_of_one_pass_where_the_memory_holds_the_stream(segment):
    model = made(dataclasses.replace(SIZE, memory=32))
    tokens = tokens_of(30)
    chances = model.logits(model(tokens, empty(model, 2)).features).log_softmax(-1)[:, :-1]
    wanted = -chances.gather(2, tokens[:, 1:, None]).squeeze(2).detach()
    found = training.surprises(model.float(), tokens.numpy(), segment)
    assert found.shape == (2, 29) and np.allclose(found, wanted.numpy(), atol=1e-4)


def test_answers_are_looked_at_just_before_they_come():
    model = made(dataclasses.replace(SIZE, memory=32)).float()
    task = Mqar(T=32, pairs=4)
    rows = task.rows(np.random.default_rng(0), 3, 50)
    tokens = torch.from_numpy(rows.tokens)
    logits = model.logits(model(tokens, model.empty(3)).features)
    with torch.no_grad():  # the head says what the first answer of row 1 is
        at = int(rows.scored[1].nonzero()[0][0])
        model.embedding[tokens[1, at]] += 40.0 * model(tokens, model.empty(3)).features[1, at - 1]
    before = logits.argmax(-1)
    found = training.answers(model, rows, 8)
    assert found.right.shape == (3, 4) and bool(found.right[1, 0]) and int(before[1, at - 1]) != int(tokens[1, at])


def test_held_out_examples_and_test_rows_are_those_of_the_brain(monkeypatch):
    source, size, seen = "task:mqar:T=32,pairs=4+mqar:T=16,pairs=2", dataclasses.replace(SIZE, vocab=64), []

    def looked(model, rows, *rest):
        seen.append(rows.tokens)
        count = len(rows.tokens)
        return recall.Answers(torch.ones(count, 2, dtype=torch.bool), torch.zeros(count, 2))

    monkeypatch.setattr(recall, "answer", looked)
    monkeypatch.setattr(training, "answers", looked)
    monkeypatch.setattr(recall, "MQAR_BASED", ("task:mqar:T=32,pairs=4", "task:mqar:T=16,pairs=2"))
    brain = recall.Brain(dataclasses.replace(config.load("tiny").brain, vocab_size=64))
    model = peers.MemoryTransformer(size)
    examples.held_out_answers(brain, source, 96, 3)
    training.held_out_answers(model, source, 96, 3, 8)
    recall.evaluate(brain, recall.MQAR_BASED, 130, 0, ("real",))
    assert recalls.mqar_points(model, 8, 130) == [1.0, 1.0]
    ours, theirs = [*seen[:2], *seen[4:8]], [*seen[2:4], *seen[8:]]
    assert len(ours) == len(theirs) == 6
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_grown_memory_keeps_the_weights_and_reaches_further():
    model = made(SIZE).float().eval()
    longer, tokens = training.grown(model, 32, 0), tokens_of(24).numpy()
    short, whole = (training.surprises(m, tokens, 8) for m in (model, longer))
    assert np.array_equal(short[:, :16], whole[:, :16])
    assert not np.allclose(short[:, 16:], whole[:, 16:], atol=1e-4)
    assert (training.elements(SIZE), training.elements(longer.size)) == (2 * 16 * 8, 2 * 16 * 32)


def test_a_saved_peer_says_the_same(tmp_path):
    model = made(COMPRESSIVE).float()
    training.save(tmp_path / "peer.safetensors", model)
    back, tokens = training.load(tmp_path / "peer.safetensors"), tokens_of(20).numpy()
    assert np.array_equal(training.surprises(model, tokens, 8), training.surprises(back, tokens, 8))


def test_rows_are_the_ratios_of_sums_and_paired():
    words, nats = [10, 30, 20], [40.0, 90.0, 90.0]
    row = runner.test_row(nats, words, nats)
    assert row["word_perplexity"] == pytest.approx(np.exp(220 / 60))
    assert row["change"] == 0.0 and row["change_interval"] == (0.0, 0.0)
    cheaper = runner.test_row([n - 0.1 * w for n, w in zip(nats, words, strict=True)], words, nats)
    assert cheaper["change"] == pytest.approx(np.expm1(-0.1))
    assert cheaper["change_interval"] == pytest.approx((np.expm1(-0.1),) * 2)
    places = [repeat.Sample(0, [], [1] * 200, [], np.full(200, 0.5))] * 3
    shown = [[[2.0] * 200, [1.5] * 200]] * 3
    again = runner.repeat_row(places, shown)
    assert (again["first"], again["again"]) == pytest.approx((np.exp(4), np.exp(3)))
    assert again["ratio"] == pytest.approx(np.exp(-1)) and again["interval"] == pytest.approx((np.exp(-1),) * 2)


def test_the_page_keeps_what_stands_around_its_tables(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("before\n<!-- tables -->\nold\n<!-- end of tables -->\nafter\n", encoding="utf-8")
    model = {"parameters": 1000, "rate": 0.01, "elements": 5}
    found = {"models": {"brain": model, "xl": model}, "points": ["task:mqar:T=64,pairs=4"], "rows": 8}
    found["accuracy"] = {"brain": [0.5], "xl": [0.25]}
    tables = pages.tables({"mqar": found, "mqar_steps": 3, "seed": 0})
    pages.write(path, tables)
    pages.write(path, tables)
    said = path.read_text(encoding="utf-8")
    assert said.startswith("before\n<!-- tables -->\n") and said.endswith("<!-- end of tables -->\nafter\n")
    assert "old" not in said and said.count("| Transformer-XL | 1,000 | 0.01 | 5 | 0.250 | 0.250 |") == 1


def test_the_table_of_texts_sets_the_brain_without_memories_beside_each_peer():
    model = {"parameters": 1000, "rate": 0.01, "nats": 2.5, "elements": 5, "memory": (8, 0)}
    words, nats = [10, 30], {"real": [30.0, 80.0], "off": [40.0, 90.0], "static": [36.0, 90.0], "xl": [40.0, 94.0]}
    again = {"ratio": 0.5, "interval": (0.4, 0.6)}
    found = {"articles": 2, "tokens": 50, "words": 40, "step_tokens": 8}
    found |= {"models": dict.fromkeys(("brain", "static", "xl"), model), "repeat": dict.fromkeys(nats, again)}
    found["test"] = {name: runner.test_row(cost, words, nats["real"]) for name, cost in nats.items()}
    found["static"] = {"xl": runner.test_row(nats["static"], words, nats["xl"])}
    said = pages.tables({"text": found, "size": "micro", "steps": 3, "seed": 0})
    rows = [line.split(" | ")[0] for line in said.splitlines() if line.startswith("| ")][1:]
    ours = ["| ours, memories on", "| ours, memories emptied", "| ours, trained without memories"]
    assert rows == [*ours, "| Transformer-XL, memory 8"]
    assert f"against the Transformer-XL: {100 * np.expm1(-8 / 40):+.1f} %" in said


def test_a_finished_piece_is_not_made_again_and_never_used_for_other_settings(tmp_path):
    for _ in range(2):
        kept = runs.Kept(tmp_path, "text", {"steps": 4})
        assert kept.once("piece", lambda: [1, 2] if not (tmp_path / "piece.json").exists() else pytest.fail()) == [1, 2]
    runs.Kept(tmp_path, "mqar", {"steps": 5})
    with pytest.raises(UsageError) as caught:
        runs.Kept(tmp_path, "text", {"steps": 5})
    assert "settings-text.json: got steps 4, expected 5 as asked for." in caught.value.what
    assert "another --out" in caught.value.do


def test_a_finished_run_of_other_steps_is_refused(tmp_path):
    run = config.load("mqar")
    (tmp_path / "config.toml").write_text(config.to_toml(run), encoding="utf-8")
    assert recalls.rate_of(tmp_path, run) == 1e-2
    with pytest.raises(CheckError) as caught:
        recalls.rate_of(tmp_path, config.load("mqar", ["train.steps=7"]))
    assert "got train.steps 320, expected 7 as the peers have." in caught.value.what
    assert "leave --mqar-brain out" in caught.value.do
