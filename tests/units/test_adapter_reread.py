"""Reading again: slots of another base, encoded afresh from the text they came of, and nothing else about them changed."""

import copy

import pytest
import torch

from neuro.errors import UsageError

transformers = pytest.importorskip("transformers")

from neuro.hf import AdapterCache, HippocampalAdapter  # noqa: E402
from neuro.hf.adapter_reread import held_texts, reread  # noqa: E402
from neuro.hf.streaming import CACHE_NAME  # noqa: E402

V, D = 40, 16
IDS = torch.randint(1, V, (1, 70), generator=torch.Generator().manual_seed(2))


def adapter(**settings) -> HippocampalAdapter:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=V, hidden_size=D, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        initializer_range=0.3, bos_token_id=0, eos_token_id=None, tie_word_embeddings=True,
    )  # fmt: skip
    sizes = dict(span=8, slots=96, place_cells=64, key_width=16, top_slots=4, sparsity=0.1, lora_rank=0)
    return HippocampalAdapter.from_pretrained(transformers.LlamaForCausalLM(config).eval(), **sizes | settings)


def trained_on(model: HippocampalAdapter, far: float = 0.3) -> HippocampalAdapter:
    """Another base of no linear relation, whose tokens are embedded otherwise as well."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in other.base.parameters():
            parameter.add_(far * parameter.std() * torch.randn(parameter.shape, generator=generator))
    return other


def by_origin(memory) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    own = memory.hippocampus
    filled = own.strengths[0] > 0
    rows = zip(own.origins[0, filled].tolist(), own.keys[0, filled], own.values[0, filled], strict=True)
    return {int(origin): (key, value) for origin, key, value in rows}


@pytest.mark.parametrize("settings", [{}, {"window": 24}, {"window": 24, "overlap": 7, "key_layer": 0}])
def test_slots_read_again_are_those_that_the_base_of_today_writes(settings):
    model = adapter(**settings)
    other = trained_on(model)
    texts = [IDS[0, :40], IDS[0, 40:]]
    old, wanted = AdapterCache(), AdapterCache()
    for text in texts:
        old, wanted = model.remember(text[None], old), other.remember(text[None], wanted)
    before = by_origin(old.memory_of(0))
    old.reread(other, [texts])
    now, written = by_origin(old.memory_of(0)), by_origin(wanted.memory_of(0))
    assert list(now) == list(before), "which slots are filled, and with which tokens, stays"
    assert now.keys() == written.keys() and len(now) == 68
    for origin, (key, value) in written.items():
        assert (now[origin][0] - key).abs().max() < 1e-4 and (now[origin][1] - value).abs().max() < 1e-4
    assert max((now[origin][0] - before[origin][0]).abs().max() for origin in now) > 0.1, "the drift was one"


def test_a_file_of_another_base_is_read_again(tmp_path):
    model = adapter(window=24)
    other = trained_on(model)
    model.remember(IDS).save_memory(tmp_path / "kept.memory")
    cache = other.load_memory(tmp_path / "kept.memory", batch=2)
    cache.reread(other, [[IDS[0]], [IDS[0]]])
    written = by_origin(other.remember(IDS).memory_of(0))
    for row in (0, 1):
        now = by_origin(cache.memory_of(row))
        assert now.keys() == written.keys()
        assert max((now[origin][0] - key).abs().max() for origin, (key, _) in written.items()) < 1e-4


def test_without_a_drift_nothing_changes_and_what_is_gone_stays_gone():
    model = adapter(slots=32)  # 69 pairs for 32 slots
    kept = model.remember(IDS).memory_of(0)
    own = kept.hippocampus
    strengths = own.strengths.clone()
    strengths[0, 3] = 0.0
    kept = kept._replace(hippocampus=own._replace(strengths=strengths))
    again = reread(model, kept, [IDS[0]]).hippocampus
    assert torch.equal(again.strengths, strengths) and torch.equal(again.origins, own.origins)
    assert (again.keys - own.keys).abs().max() < 1e-4 and (again.values - own.values).abs().max() < 1e-4
    assert torch.equal(again.keys[0, 3], own.keys[0, 3])


def test_texts_that_no_slot_holds_any_more_may_be_left_out():
    model = adapter(slots=16, half_life_tokens=4.0)  # strengths fall fast: only the newest stay
    cache = model.remember(IDS[:, :40])
    kept = model.remember(IDS[:, 40:], cache).memory_of(0)
    assert float(kept.hippocampus.origins.min()) > 40
    whole, tail = (reread(model, kept, texts).hippocampus for texts in ([IDS[0, :40], IDS[0, 40:]], [IDS[0, 40:]]))
    assert torch.equal(whole.keys, tail.keys) and torch.equal(whole.values, tail.values)


@pytest.mark.parametrize(
    ("texts", "what"),
    [
        (
            [IDS[0], IDS[0, :1]],
            "got texts of 71 tokens, expected the 70 that were read, or the last of them from token 1",
        ),
        ([IDS[0, 30:]], "got texts of 40 tokens"),
        ([IDS[0].flip(0)], "got another text than was stored"),
        ([IDS[0, :30], IDS[0, 30:]], "got a text that begins with a token which followed another"),
    ],
)
def test_mistakes(texts, what):
    model = adapter()
    kept = model.remember(IDS).memory_of(0)
    with pytest.raises(UsageError) as error:
        reread(model, kept, texts)
    assert what in error.value.what and error.value.do


def test_what_waits_is_refused_and_rows_are_counted():
    model, cache = adapter(), AdapterCache()
    model(IDS[:, :11], **{CACHE_NAME: cache})
    with pytest.raises(UsageError, match="got 1 rows of which 3 tokens wait"):
        reread(model, cache.memory_of(0), [IDS[0, :11]])
    with pytest.raises(UsageError, match="got texts of 2 rows, expected 1"):
        cache.reread(model, [[IDS[0]], [IDS[0]]])
    fresh = AdapterCache(model.init_memory(1))
    fresh.reread(model, [[]])
    assert not fresh.memory_of(0).hippocampus.strengths.any()


@pytest.mark.parametrize("settings", [{}, {"window": 24}, {"window": 24, "overlap": 7, "key_layer": 0}])
def test_the_text_is_told_from_the_slots_of_another_base(settings):
    model = adapter(**settings)
    other = trained_on(model, 0.1)
    texts = [torch.cat([torch.tensor([0]), part]) for part in (IDS[0, :40], IDS[0, 40:])]  # begun as the base begins
    cache = AdapterCache()
    for text in texts:
        cache = model.remember(text[None], cache)
    kept = cache.memory_of(0)
    starts, told = held_texts(other, kept)
    assert starts == [0, 41] and all(torch.equal(a[1:], b[1:]) for a, b in zip(told, texts, strict=True))
    starts, told = held_texts(model, kept)
    assert all(torch.equal(a, b) for a, b in zip(told, texts, strict=True)), (
        "and the first tokens where nothing drifted"
    )
    again, wanted = reread(other, kept, told).hippocampus, reread(other, kept, texts).hippocampus
    assert torch.equal(again.keys, wanted.keys) and torch.equal(again.values, wanted.values)
    cache.reread(model)
    own, now = kept.hippocampus, cache.memory_of(0).hippocampus
    assert (now.keys - own.keys).abs().max() < 1e-4 and (now.values - own.values).abs().max() < 1e-4
    cache.reread(other)
    drift = (wanted.keys - own.keys).square().sum()
    assert (wanted.keys - cache.memory_of(0).hippocampus.keys).square().sum() < 0.2 * drift, "but for first tokens"


def test_behind_a_hole_a_text_begins_anew():
    model = adapter()
    kept = model.remember(IDS).memory_of(0)
    own = kept.hippocampus
    strengths = own.strengths.clone()
    strengths[0, (own.origins[0] > 20) & (own.origins[0] < 31)] = 0.0
    kept = kept._replace(hippocampus=own._replace(strengths=strengths))
    starts, texts = held_texts(model, kept)
    assert starts == [0, 30] and torch.equal(texts[0], IDS[0, :21]) and torch.equal(texts[1][1:], IDS[0, 31:])
    again = reread(model, kept).hippocampus
    before = (own.origins[0] > 0) & (own.origins[0] <= 20)
    assert (again.keys - own.keys)[0, before].abs().max() < 1e-4, "what lies before the hole is as it was"
    assert torch.equal(again.strengths, strengths) and (again.values - own.values).abs().max() < 1e-4


def test_slots_that_do_not_say_their_text_are_refused():
    part = adapter(writes_per_span=4)
    with pytest.raises(UsageError, match=r"that stores a part of it \(writes_per_span 4, rebind False\)") as error:
        reread(part, part.remember(IDS).memory_of(0))
    assert error.value.do == "Give the texts that were read."
    with pytest.raises(UsageError, match="writes_per_span None, rebind True"):
        reread(adapter(rebind=True), adapter(rebind=True).remember(IDS).memory_of(0))
    model = adapter()
    kept = model.remember(IDS).memory_of(0)
    noise = torch.randn(kept.hippocampus.values.shape, generator=torch.Generator().manual_seed(3))
    with pytest.raises(UsageError, match=r"slots whose values are 0\.\d\d like the closest token's, expected 0.8"):
        reread(model, kept._replace(hippocampus=kept.hippocampus._replace(values=noise)))
    fresh = AdapterCache(model.init_memory(2))
    fresh.reread(model)
    assert not fresh.memory_of(1).hippocampus.strengths.any()
