"""Laws of the two peers: a memory is the past itself, nothing sees the future, compressed is what the convolution says."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F

from neuro.errors import UsageError

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
