"""Reading through lists of slots: at full probe the exact read, the same however tokens are cut, never of exchanged slots."""

import pytest
import torch

import backends
from neuro.errors import UsageError
from neuro.memory import slot_lists
from neuro.memory.episodic import EpisodicMemory

transformers = pytest.importorskip("transformers")

from neuro.hf import AdapterCache, AdapterConfig, HippocampalAdapter  # noqa: E402
from neuro.hf.streaming import CACHE_NAME  # noqa: E402
from neuro.memory.slot_lists import SlotLists  # noqa: E402

K, D, M = 8, 6, 700


def unit(*shape: int, seed: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def store(rows: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Keys, values and strengths; of the second row only 300 slots are filled, and some keys are equal."""
    keys, values = unit(rows, M, K, seed=1), unit(rows, M, D, seed=2)
    keys[:, 50:60] = keys[:, :1]
    strengths = torch.rand(rows, M, generator=torch.Generator().manual_seed(3)) + 0.1
    strengths[1, 300:] = 0.0
    return keys, values, strengths


def memory() -> EpisodicMemory:
    return EpisodicMemory(D, top_k=4, writes=8, half_life_tokens=1e4, ops=backends.select("cpu").ops)


def test_at_full_probe_the_read_is_the_exact_one():
    keys, values, strengths = store()
    query = torch.cat([keys[:, :5], unit(2, 20, K, seed=4)], 1)
    exact = memory().read(query, keys, values, strengths)
    lists = slot_lists.fit(keys, strengths)
    assert lists.centroids.shape[1] == 7
    among = slot_lists.candidates(lists, query, strengths=strengths, probes=7)
    found = memory().read(query, keys, values, strengths, among=among)
    assert (found.content - exact.content).abs().max() < 1e-6
    assert (found.evidence - exact.evidence).abs().max() < 1e-5 and torch.equal(found.novelty, exact.novelty)
    one = memory().read(
        query, keys, values, strengths, among=slot_lists.candidates(lists, query, strengths=strengths, probes=1)
    )
    assert (one.content - exact.content).abs().max() > 1e-2, "one list is not all of them"
    assert (one.content - exact.content)[:, :5].abs().max() < 1e-2 or one.novelty[:, :5].max() < 1e-5


@pytest.mark.parametrize("probes", [1, 3])
def test_a_token_looks_at_the_slots_of_its_own_lists_whatever_is_asked_beside_it(probes):
    keys, values, strengths = store()
    query, lists = unit(2, 9, K, seed=5), slot_lists.fit(keys, strengths)
    together = memory().read(
        query, keys, values, strengths, among=slot_lists.candidates(lists, query, strengths=strengths, probes=probes)
    )
    for t in range(9):
        own = query[:, t : t + 1]
        alone = memory().read(
            own, keys, values, strengths, among=slot_lists.candidates(lists, own, strengths=strengths, probes=probes)
        )
        assert (together.content[:, t : t + 1] - alone.content).abs().max() < 1e-6
    seen = slot_lists.candidates(lists, query, strengths=strengths, probes=probes)
    for row in range(2):
        near = query[row] @ lists.centroids[row].T
        wanted = near.topk(probes, dim=1).indices
        for t in range(9):
            looked = seen.slots[row][seen.seen[row, t]].tolist()
            members = torch.isin(lists.assigned[row], wanted[t]) & (strengths[row] > 0)
            assert looked == members.nonzero().squeeze(1).tolist()


def test_what_a_commit_writes_is_in_the_list_of_its_closest_centroid_and_lists_are_fitted_again_in_time():
    keys, _, strengths = store()
    lists, before = slot_lists.fit(keys, strengths), keys.clone()
    after = keys.clone()
    after[:, 10:20] = unit(2, 10, K, seed=6)
    now = slot_lists.written(lists, before, after, strengths)
    closest = (after @ lists.centroids.transpose(1, 2)).argmax(-1)
    assert torch.equal(now.assigned, closest) and torch.equal(now.centroids, lists.centroids)
    assert now.left.tolist() == [690, 290]
    turned = slot_lists.written(now, after, unit(2, M, K, seed=7), strengths)
    assert turned.left.tolist() == [700, 300] and not torch.equal(turned.centroids, now.centroids)


def adapter(**settings) -> HippocampalAdapter:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        initializer_range=0.3, bos_token_id=0, eos_token_id=None, tie_word_embeddings=True,
    )  # fmt: skip
    sizes = dict(span=8, slots=512, place_cells=64, key_width=16, top_slots=4, sparsity=0.1, lora_rank=0, window=64)
    model = HippocampalAdapter.from_pretrained(transformers.LlamaForCausalLM(config).eval(), **sizes | settings)
    with torch.no_grad():
        model.fusion.hippocampus.memory.null.bias.fill_(4.0)
    return model


def logits_of(model: HippocampalAdapter, ids: torch.Tensor, sizes: list[int]) -> tuple[torch.Tensor, AdapterCache]:
    cache, found = AdapterCache(), []
    with torch.no_grad():
        for part in ids.split(sizes, 1):
            found.append(model(part, **{CACHE_NAME: cache}).logits)
    return torch.cat(found, 1), cache


IDS = torch.randint(1, 50, (2, 420), generator=torch.Generator().manual_seed(8))


def test_an_adapter_with_all_lists_says_what_it_says_without_and_with_few_nearly():
    exact, _ = logits_of(adapter(), IDS, [420])
    full, cache = logits_of(adapter(probes=99, probes_from=150), IDS, [420])
    few, _ = logits_of(adapter(probes=1, probes_from=150), IDS, [420])
    assert (full - exact).abs().max() < 1e-4
    assert torch.equal(few[:, :150], exact[:, :150]), "below probes_from every slot is read"
    assert 1e-4 < (few - exact).abs().mean() < exact.std()
    assert isinstance(cache.memory_of(1).lists, SlotLists)


def test_an_adapter_with_lists_is_the_same_however_tokens_are_cut():
    model = adapter(probes=1, probes_from=150)
    whole, _ = logits_of(model, IDS, [420])
    cut, _ = logits_of(model, IDS, [3, 160, 1, 1, 1, 64, 190])
    assert (whole - cut).abs().max() < 1e-4


def test_lists_of_slots_that_were_exchanged_are_not_used():
    model = adapter(probes=1, probes_from=150)
    _, cache = logits_of(model, IDS, [420])
    cache.commit(model)
    memories = [cache.memory_of(1), cache.memory_of(0)]
    cache.put_memories(memories)
    assert cache.memory_of(0).lists == ()
    with torch.no_grad():
        model(IDS[:, :1], **{CACHE_NAME: cache})
    own = cache.memory_of(0)
    fresh = slot_lists.fit(own.hippocampus.keys, own.hippocampus.strengths)
    assert all(torch.equal(a, b) for a, b in zip(own.lists, fresh, strict=True))
    cache.forget()
    assert cache.memory_of(0).lists == ()


def test_training_reads_exactly():
    model = adapter(probes=1, probes_from=8).train()
    cache = AdapterCache()
    model(IDS[:, :40], **{CACHE_NAME: cache})
    assert cache.memory_of(0).lists == ()


@pytest.mark.parametrize(
    ("name", "value", "text"), [("probes", 0, "at least 1 list"), ("probes_from", 0, "at least 1 slot")]
)
def test_mistakes(name, value, text):
    with pytest.raises(UsageError) as error:
        AdapterConfig(**{name: value})
    assert f"adapter {name}: got 0" in error.value.what and text in error.value.what
    assert error.value.do == f"Correct {name}."
