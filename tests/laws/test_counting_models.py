"""Law: whole models are counted to the last product: the hybrid brain, a block, published networks, one decoded token."""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import backends
from backends import native, portable, reference
from neuro import accounting, presets
from neuro.brain import Brain
from neuro.config import apply_sets
from neuro.session import Session
from neuro.workload import Workload, from_json
from sims.counting import Counting, count


def total(load: Workload, kind: str = "mac", signal: str | None = None) -> int:
    return sum(row.count for row in load.operations if row.kind == kind and signal in (None, row.signal))


def left(load: Workload) -> int | None:
    found = [row.effective for row in load.operations if row.kind == "mac"]
    return None if None in found else sum(found)


def read(load: Workload, store: str) -> int:
    return sum(row.read_bytes for row in load.traffic if row.store == store)


SPIKES = ["cortex.encoding=spikes", "cortex.mixers=recurrence,recurrence", "cortex.feedforwards=spiking,spiking"]


def counted_brain(sets: Sequence[str], ops: backends.Ops) -> tuple[Workload, Workload]:
    """(by operators, by the rules of `neuro.accounting`) of a reading, a step and a commit."""
    torch.manual_seed(3)
    backend = dataclasses.replace(backends.select("cpu"), ops=ops)
    brain = Brain(apply_sets(presets.tiny().brain, list(sets)), backend).eval()
    tally = accounting.Tally(brain)
    session = Session(brain, observers=[tally])
    ids = torch.randint(0, brain.config.vocab_size, (1, 38), generator=torch.Generator().manual_seed(1))
    with Counting(brain) as counting:
        session.feed(ids[:, :37])
        session.feed(ids[:, 37:])
        session.commit()
    return counting.workload(38, "token"), accounting.workload(brain, tally, "tiny", (1.0, 0.0))


@pytest.mark.parametrize(
    "sets",
    [
        [],
        ["cortex.feedforwards=spiking,spiking", "hippocampus.rebind=true"],
        ["cortex.mixers=window,window", "cortex.feedforwards=dense,dense"],
        ["procedural.rule=delta"],
        ["procedural.through_dense=true", "cortex.feedforwards=dense,dense"],
        [*SPIKES, "procedural.enabled=false"],
    ],
)
def test_a_brain_counted_by_operators_is_the_brain_that_accounts_for_itself(sets):
    found, expected = counted_brain(sets, native.OPS)
    assert total(found) == total(expected)
    own = {population.name: population for population in found.populations}
    assert own.keys() == {population.name for population in expected.populations}
    for population in expected.populations:
        one = own[population.name]
        for name in ("neurons", "spikes", "updates", "fan_in", "input_signal"):
            assert getattr(one, name) == getattr(population, name)
        # What senses the eligibility of a synapse reads the spikes too; accounting calls it dense.
        more = one.fan_out - population.fan_out
        assert one.synaptic_ops == population.synaptic_ops + more * one.spikes
        assert more in (0, presets.tiny().brain.procedural.rank)


@pytest.mark.parametrize("sets", [[], ["cortex.mixers=window,recurrence"], [*SPIKES, "procedural.enabled=false"]])
def test_every_backend_has_the_same_integers(sets):
    loads = [counted_brain(sets, ops)[0] for ops in (native.OPS, portable.OPS, reference.OPS)]
    # Activations that underflow to 0 on one backend and not on the other are no other work: effective counts aside.
    plain = [[dataclasses.replace(row, effective=None) for row in load.operations] for load in loads]
    assert plain[0] == plain[1] == plain[2]
    assert loads[0].populations == loads[1].populations == loads[2].populations
    assert loads[0].traffic == loads[1].traffic == loads[2].traffic


class Spikes(nn.Module):
    """A fixed share of ones, the same at every call."""

    def __init__(self, share: float, *shape: int) -> None:
        super().__init__()
        count = round(share * torch.Size(shape).numel())
        order = torch.randperm(torch.Size(shape).numel(), generator=torch.Generator().manual_seed(0))
        self.register_buffer("spikes", (order < count).float().reshape(shape))

    def forward(self, x: Tensor) -> Tensor:
        return self.spikes.to(x.dtype)


class Block(nn.Module):
    """16 tokens of width 64: attention of 4 heads, a feed-forward of 256 spiking neurons, a memory of 1,000 slots."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(64, 4, batch_first=True)
        self.up, self.neurons, self.down = nn.Linear(64, 256), Spikes(0.1, 1, 16, 256), nn.Linear(256, 64)
        self.query = nn.Linear(64, 64)
        self.register_buffer("keys", torch.randn(1000, 64))
        self.register_buffer("values", torch.randn(1000, 64))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x, x, x, need_weights=False)[0]
        x = x + self.down(self.neurons(self.up(x)))
        scores = torch.einsum("btd,md->btm", self.query(x), self.keys)
        return x + torch.einsum("btm,md->btd", scores.softmax(-1), self.values)


@pytest.mark.parametrize("train", [True, False])
def test_all_of_the_hybrid_block(train):
    """2,932,736: attention 262,144 and 32,768, three linear layers 589,824 (all that module hooks see), memory 2,048,000."""
    block = Block().train(train)
    load = count(block, torch.randn(1, 16, 64), signals={"neurons": "binary"})
    by_region: dict[str, int] = {}
    for row in load.operations:
        if row.kind == "mac":
            by_region[row.region] = by_region.get(row.region, 0) + row.count
    assert by_region == {
        "attention": 16 * 4 * 64 * 64 + 2 * 16 * 16 * 64,
        "up": 262_144,
        "down": 262_144,
        "query": 65_536,
        "model": 2 * 16 * 1000 * 64,
    }
    assert total(load) == 2_932_736
    assert by_region["up"] + by_region["down"] + by_region["query"] == 589_824
    assert total(load, signal="binary") == 262_144
    (neurons,) = load.populations
    assert (neurons.spikes, neurons.synaptic_ops, neurons.fan_out) == (410, 410 * 64, 64)
    assert (neurons.neurons, neurons.updates, neurons.input_signal, neurons.fan_in) == (4096, 4096, "dense", 64)
    assert from_json(load.to_json()) == load


class Decoder(nn.Module):
    """One token of width d through blocks without biases, with keys and values of what came before."""

    def __init__(self, layers: int, width: int, vocabulary: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "project": nn.Linear(width, 3 * width, bias=False),
                    "out": nn.Linear(width, width, bias=False),
                    "up": nn.Linear(width, 4 * width, bias=False),
                    "down": nn.Linear(4 * width, width, bias=False),
                }
            )
            for _ in range(layers)
        )
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        for block in self.blocks:
            q, k, v = block["project"](x).unflatten(-1, (3, -1, 64)).permute(2, 0, 3, 1, 4)
            k, v = torch.cat([keys, k], 2), torch.cat([values, v], 2)
            y = F.scaled_dot_product_attention(q, k, v)
            x = x + block["out"](y.transpose(1, 2).flatten(2))
            x = x + block["down"](F.relu(block["up"](x)))
        return self.head(x)


def test_one_decoded_token_from_shapes_alone():
    """Width 768, 12 layers, vocabulary 32,128, the 512th token, half precision."""
    with torch.device("meta"):
        model = Decoder(12, 768, 32_128).half()
        x, before = torch.empty(1, 1, 768).half(), torch.empty(1, 12, 511, 64).half()
    load = count(model, (x, before, before), unit="token")
    of = {
        region: sum(r.count for r in load.operations if (r.kind, r.region) == ("mac", region)) for region in ("head",)
    }
    attention = sum(r.count for r in load.operations if r.kind == "mac" and r.name == "self" and r.region == "model")
    assert of["head"] == 24_674_304
    assert attention == 9_437_184
    assert total(load) - of["head"] - attention == 84_934_656
    assert total(load) == 119_046_144
    assert read(load, "weights") == 219_217_920  # 219.2 MB
    assert read(load, "kv") == 18_874_368  # 18.9 MB
    assert (load.tokens, left(load), load.layers) == (1, None, 49)


class Store(nn.Module):
    """All vectors against a query, or those of the nearest lists alone."""

    def __init__(self, vectors: int, width: int, lists: int = 0, probes: int = 0) -> None:
        super().__init__()
        self.probes = probes
        if lists:
            self.register_buffer("centroids", torch.zeros(lists, width))
            self.register_buffer("vectors", torch.zeros(lists, vectors // lists, width))
        else:
            self.register_buffer("vectors", torch.zeros(vectors, width))

    def forward(self, query: Tensor) -> Tensor:
        if not self.probes:
            return (query @ self.vectors.T).topk(8).indices
        near = (query @ self.centroids.T).topk(self.probes).indices
        return torch.einsum("bd,blnd->bln", query, self.vectors[near]).flatten(1).topk(8).indices


def test_a_flat_store_and_an_inverted_file():
    with torch.device("meta"):
        query = torch.empty(1, 768)
        flat, inverted = Store(1_000_000, 768), Store(1_000_000, 768, 1000, 8)
    load = count(flat, query)
    assert (total(load), read(load, "memory")) == (768_000_000, 3_072_000_000)
    assert total(load, "compare") == 3 * 1_000_000
    load = count(inverted, query)
    assert (total(load), read(load, "memory")) == (9000 * 768, 9000 * 768 * 4)  # 27.6 MB


class Event(nn.Module):
    """One feed-forward behind spikes, T steps."""

    def __init__(self) -> None:
        super().__init__()
        self.inward, self.up = Spikes(0.05, 4, 768), nn.Linear(768, 3072, bias=False)
        self.hidden, self.down = Spikes(0.05, 4, 3072), nn.Linear(3072, 768, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.hidden(self.up(self.inward(x))))


def test_a_feedforward_behind_spikes():
    """12 layers, 4 steps at 5 %: 11.3 million synaptic operations, 184,320 updates; dense once 56.6 million."""
    load = count(Event(), torch.ones(4, 768), signals={"inward": "binary", "hidden": "binary"})
    synaptic = sum(population.synaptic_ops for population in load.populations)
    assert synaptic == left(load) == 154 * 3072 + 614 * 768
    assert round(12 * synaptic / 1e6, 1) == 11.3
    assert 12 * sum(population.updates for population in load.populations) == 184_320
    assert 12 * total(load) // 4 == 56_623_104


def steps(net: nn.Module, frames: Tensor) -> None:
    for frame in frames:
        net(frame)


def published_speech_spikes() -> tuple[nn.Module, Tensor]:
    widths = (20, 256, 256, 256, 35)
    return nn.Sequential(*(nn.Linear(a, b) for a, b in itertools.pairwise(widths))), torch.zeros(200, 1, 20)


def published_speech() -> nn.Module:
    def block(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
        conv = nn.Conv1d(inputs, outputs, kernel, stride)
        return [conv, nn.BatchNorm1d(outputs), nn.ReLU(), nn.MaxPool1d(4)]

    blocks = [*block(1, 32, 80, 16), *block(32, 32, 3), *block(32, 64, 3), *block(64, 64, 3)]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(64, 35)).eval()


def published_gestures() -> nn.Module:
    blocks: list[nn.Module] = []
    for inputs, outputs in ((2, 16), (16, 32), (32, 64)):
        blocks += [nn.Conv2d(inputs, outputs, 5, padding="same"), nn.MaxPool2d(2)]
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(1024, 11))


def test_published_dense_counts_from_architecture_alone():
    """NeuroBench e521c28: speech commands spiking (200 steps) and dense (8,000 samples), gestures (150 bins)."""
    net, frames = published_speech_spikes()
    assert total(count(net, frames, call=steps)) == 145_152 * 200 == 29_030_400
    with torch.device("meta"):
        assert total(count(published_speech(), torch.empty(1, 1, 8000))) == 1_880_256
        gestures, frames = published_gestures(), torch.empty(150, 1, 2, 32, 32)
    assert total(count(gestures, frames, call=steps)) == 891_206_400


def test_published_counts_of_chaotic_series():
    """Their LSTM counts 14,560, three gate products of each of 40 units among them; reservoirs 565,148.57 on average."""

    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.out = nn.LSTMCell(50, 40), nn.Linear(40, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.cell(x)[0].relu())

    class Reservoir(nn.Module):
        def __init__(self, units: int) -> None:
            super().__init__()
            self.inward, self.around = nn.Linear(2, units, bias=False), nn.Linear(units, units, bias=False)
            self.out = nn.Linear(units + 2, 1, bias=False)

        def forward(self, x: Tensor, state: Tensor) -> Tensor:
            state = torch.tanh(self.inward(x) + self.around(state))
            return self.out(torch.cat([x, state], -1))

    assert total(count(Cell(), torch.zeros(1, 50))) == 14_560 - 3 * 40
    sizes = [966, 913, 836, 656, 547, 661, 577, 694, 831, 522, 952, 838, 728, 577]
    with torch.device("meta"):
        found = [total(count(Reservoir(n), (torch.empty(1, 2), torch.empty(1, n)))) for n in sizes]
    assert sum(found) / len(sizes) == pytest.approx(565_148.5714285715, abs=1e-9)


class Mixed(nn.Module):
    """A convolution, normalisation, attention, a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(4, 8, 3, padding=1), nn.LayerNorm(8)
        self.attention, self.recurrent = nn.MultiheadAttention(8, 2, batch_first=True), nn.LSTM(8, 6, batch_first=True)
        self.out = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x).transpose(1, 2))
        y = y + self.attention(y, y, y, need_weights=False)[0]
        return self.out(self.recurrent(y)[0]).softmax(-1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_every_type_has_the_same_integers(dtype):
    torch.manual_seed(0)
    model, x = Mixed(), torch.randn(2, 4, 7)
    first, again = count(model, x), count(model.to(dtype), x.to(dtype))
    assert first.operations == again.operations
    width = torch.finfo(dtype).bits // 8
    assert [row.read_bytes * width for row in first.traffic] == [4 * row.read_bytes for row in again.traffic]


def test_shapes_alone_have_the_same_integers():
    model, x = Mixed(), torch.randn(2, 4, 7)
    first = count(model, x)
    again = count(model.to("meta"), x.to("meta"))
    assert [dataclasses.replace(row, effective=None) for row in first.operations] == list(again.operations)
    assert first.traffic == again.traffic


def test_eight_bit_weights_have_the_same_integers():
    model, x = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 5)), torch.randn(4, 12)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.where(torch.rand_like(weight) < 0.3, 0.0, torch.randint(1, 100, weight.shape).float()))
    first = count(model, x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    again = count(small, x)
    assert [row for row in first.operations if row.kind == "mac"] == [
        row for row in again.operations if row.kind == "mac"
    ]
    assert (again.parameters, again.layers) == (first.parameters, first.layers)
    assert read(again, "weights") == 12 * 20 + 20 * 5  # a byte each; the biases are packed with them


def test_eight_bit_recurrent_layers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kind = {nn.LSTM}
        small = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.LSTM(10, 20, 2)), kind, dtype=torch.qint8)
    assert total(count(small, torch.randn(4, 3, 10))) == 12 * 80 * (10 + 20 + 20 + 20)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_transformers(attention):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    llama = transformers.LlamaConfig(vocab_size=64, num_key_value_heads=2, attn_implementation=attention, **sizes)
    gpt = transformers.GPT2Config(
        vocab_size=64, n_embd=32, n_layer=2, n_head=4, attn_implementation=attention, bos_token_id=0, eos_token_id=0
    )
    ids, tokens = torch.randint(0, 64, (2, 6)), 12
    pairs = 2 * 2 * 4 * (21 if attention == "sdpa" else 36) * 8 * 2  # layers, rows, heads; both products
    weights = 2 * (32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 48) + 32 * 64
    assert total(count(transformers.LlamaForCausalLM(llama).eval(), ids, unit="token")) == tokens * weights + pairs
    found = total(count(transformers.GPT2LMHeadModel(gpt).eval(), ids, unit="token"))
    assert found == tokens * (2 * 12 * 32 * 32 + 32 * 64) + pairs
