"""The hippocampal adapter: around three architectures, causal, and equal however tokens are cut."""

from __future__ import annotations

import copy
import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

from neuro.state import leaves

transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")

from neuro.hf import AdapterCache, AdapterConfig, HippocampalAdapter  # noqa: E402
from neuro.hf.streaming import CACHE_NAME  # noqa: E402

V, SPAN = 61, 8
CLOSE = {"llama": 1e-12, "gpt2": 1e-12, "gemma": 1e-6}  # Gemma's rotations and soft caps are float32 inside


@pytest.fixture(params=CLOSE)
def kind(request):
    return request.param


@pytest.fixture
def model(kind, adapter_of):
    return opened(adapter_of(kind))


def opened(model):
    """With a gate that lets recall through, and updates that are not zero."""
    with torch.no_grad():
        if model.config.fusion == "memory":
            model.fusion.hippocampus.memory.null.bias.fill_(2.0)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(1))
    return model


@torch.no_grad()
def cut(model, ids, sizes, cache=None, **options):
    """Logits of all tokens, fed in pieces."""
    found, start = [], 0
    for size in sizes:
        out = model(ids[:, start : start + size], **options, **{CACHE_NAME: cache})
        cache, start = out[CACHE_NAME], start + size
        found.append(out.logits)
    assert start == ids.shape[1]
    return torch.cat(found, 1), cache


def test_without_memory_and_training_it_is_the_base_bit_for_bit(kind, base_of, adapter_of, ids_of):
    base = base_of(kind).double().eval()
    ids = ids_of(2, 40)
    with torch.no_grad():
        wanted, start = base(ids).logits, base(ids[:, :SPAN]).logits
        model = adapter_of(base)
        cache, pieces = AdapterCache(), []
        whole = model(ids[:, :SPAN], **{CACHE_NAME: cache}).logits
        none = HippocampalAdapter.from_pretrained(base, fusion="none", lora_rank=0)(ids).logits
    assert torch.equal(whole, start), "nothing is stored before the first commit"
    assert torch.equal(none, wanted)
    cache = AdapterCache()
    with torch.no_grad():
        for start in range(0, 40, SPAN):
            cache.forget()
            pieces.append(model(ids[:, start : start + SPAN], **{CACHE_NAME: cache}).logits)
    assert (torch.cat(pieces, 1) - wanted).abs().max() <= CLOSE[kind], "an empty memory adds nothing"


def test_the_memory_changes_what_comes(model, kind, ids_of):
    ids = ids_of(1, 52)
    with torch.no_grad():
        full = model(ids).logits
        plain = model.base(ids).logits
    assert torch.equal(full[:, :SPAN], plain[:, :SPAN])
    assert (full - plain)[:, 26:].abs().max() > 0.05


def test_nothing_sees_the_future(model, ids_of):
    """Whatever comes after t, the logits at t are the same."""
    ids = ids_of(1, 45)
    with torch.no_grad():
        before = model(ids).logits
        for t in (0, 7, 8, 9, 20, 31, 43):
            other = ids.clone()
            other[:, t + 1 :] = (other[:, t + 1 :] + 17) % V
            assert (model(other).logits - before)[:, : t + 1].abs().max() <= 1e-6, t
            assert not torch.equal(model(other).logits[:, -1], before[:, -1])


def test_gradients_do_not_reach_back_from_the_past(adapter_of, ids_of):
    model = opened(adapter_of("llama"))
    embedded = []
    table = model.base.get_input_embeddings()

    def look_up(tokens):
        embedded.append(torch.nn.functional.embedding(tokens, table.weight).requires_grad_())
        return embedded[-1]

    table.forward = look_up
    logits = model(ids_of(1, 30)).logits
    for t in (3, 12, 25):
        grads = torch.autograd.grad(logits[0, t].sum(), embedded, retain_graph=True, allow_unused=True)
        reached = sum(grad.abs().sum(-1)[0] for grad in grads if grad is not None)
        assert reached[: t + 1].min() > 0 and reached[t + 1 :].abs().max() == 0


@pytest.mark.parametrize("sizes", [[1] * 45, [5, 8, 1, 16, 15], [45]])
def test_a_stream_may_be_cut_anywhere(model, kind, sizes, ids_of):
    ids = ids_of(2, 45)
    whole, first = cut(model, ids, [20, 25])
    pieces, second = cut(model, ids, sizes)
    assert (whole - pieces).abs().max() <= CLOSE[kind]
    for row in range(2):
        for (path, a), (_, b) in zip(leaves(first.memory_of(row)), leaves(second.memory_of(row)), strict=True):
            assert (a - b).abs().max() <= 1e-5 if a.numel() else a.shape == b.shape, path


@pytest.mark.parametrize("overlap", [0, 5])
def test_a_window_may_be_cut_anywhere_and_outlasts_the_positions(overlap, adapter_of, ids_of):
    model = opened(adapter_of("gpt2", window=12, overlap=overlap))
    ids = ids_of(1, 300)  # of 256 positions
    whole, _ = cut(model, ids, [300])
    pieces, _ = cut(model, ids, [1, 12, 11, 50, 226])
    assert (whole - pieces).abs().max() <= 1e-12
    with torch.no_grad():
        part = model.base(ids[:, 12 - overlap : 24 - overlap]).logits
        fresh = cut(adapter_of("gpt2", window=12, overlap=overlap, fusion="none", lora_rank=0), ids[:, :24], [24])[0]
        bare = adapter_of("gpt2", fusion="none", lora_rank=0).base(ids[:, 12 - overlap : 24 - overlap]).logits
    assert part.shape[1] == 12
    assert (fresh[:, 12 : 24 - overlap] - bare[:, overlap:]).abs().max() <= 1e-12, "the window starts with its overlap"


def test_rows_are_independent_and_padding_changes_nothing(model, kind, ids_of):
    rows = [ids_of(1, length, seed=length) for length in (40, 33, 21, 33)]
    width = 40
    ids = torch.cat([torch.cat([torch.full((1, width - row.shape[1]), 1), row], 1) for row in rows])
    mask = torch.cat([(torch.arange(width) >= width - row.shape[1]).long()[None] for row in rows])
    with torch.no_grad():
        out = model(ids, attention_mask=mask)
        more = torch.tensor([[5], [6], [7], [8]])
        later = model(more, attention_mask=torch.cat([mask, torch.ones_like(more)], 1), **{CACHE_NAME: out[CACHE_NAME]})
        for i, row in enumerate(rows):
            alone = model(row)
            next_one = model(more[i : i + 1], **{CACHE_NAME: alone[CACHE_NAME]})
            assert (out.logits[i, width - row.shape[1] :] - alone.logits[0]).abs().max() <= CLOSE[kind]
            assert (later.logits[i] - next_one.logits[0]).abs().max() <= CLOSE[kind]
            assert out.logits[i, : width - row.shape[1]].eq(0).all()


@pytest.mark.parametrize(
    "options",
    [{}, {"num_beams": 3, "num_return_sequences": 2}, {"do_sample": True, "top_k": 5}],
    ids=["greedy", "beams", "sampling"],
)
def test_generate_writes_what_running_everything_again_writes(model, options, ids_of):
    ids = ids_of(2, 21)
    mask = torch.ones_like(ids)
    written = []
    for use_cache in (True, False):
        torch.manual_seed(5)
        written.append(
            model.generate(ids, attention_mask=mask, max_new_tokens=15, pad_token_id=1, use_cache=use_cache, **options)
        )
    assert torch.equal(*written) and written[0].shape[1] == 36


def test_generate_with_padding_writes_what_each_row_writes_alone(model, ids_of):
    short, long = ids_of(1, 14, seed=1), ids_of(1, 21, seed=2)
    ids = torch.cat([torch.cat([torch.ones(1, 7, dtype=torch.int64), short], 1), long])
    mask = torch.ones_like(ids)
    mask[0, :7] = 0
    both = model.generate(ids, attention_mask=mask, max_new_tokens=9, num_beams=2)
    for row, alone in zip(both, (short, long), strict=True):
        wanted = model.generate(alone, attention_mask=torch.ones_like(alone), max_new_tokens=9, num_beams=2)
        assert torch.equal(row[-9:], wanted[0, -9:])


def test_generation_goes_on_from_what_was_remembered(model, ids_of):
    document, prompt = ids_of(1, 26), ids_of(1, 9)
    cache = model.remember(document)
    held = copy.deepcopy(cache)
    mask = torch.ones(1, 26 + 9, dtype=torch.int64)
    written = model.generate(prompt, attention_mask=mask, max_new_tokens=6, **{CACHE_NAME: cache})
    logits, held = cut(model, prompt, [9], held)
    assert written[0, 9] == logits[0, -1].argmax()
    assert (logits - cut(model, prompt, [9])[0]).abs().max() > 0.05


def test_evaluation_changes_nothing(model, ids_of):
    ids, head = ids_of(1, 30), model.base.get_output_embeddings()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        first, second = model(ids).logits, model(ids).logits
    assert torch.equal(first, second)
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert model.base.get_output_embeddings() is head


@pytest.mark.parametrize("kind", ["gpt2"])
def test_only_what_was_added_is_trained(kind, model, ids_of):
    ids = ids_of(2, 30)
    model.train()
    model(ids, labels=ids).loss.backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    wanted = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == wanted and all("lora_" in name or name.startswith("fusion.") for name in trained)
    assert all(model.get_parameter(name).grad.abs().max() > 0 for name in trained if "log_trust" not in name)


def test_training_lowers_the_loss_of_what_is_repeated(adapter_of, ids_of):
    model = adapter_of("llama", lora_rank=0, slots=64).train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for step in range(12):
        ids = ids_of(4, 39, seed=step)
        loss = model(ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3


def test_the_loss_is_that_of_the_logits_and_leaves_out_padding(adapter_of, ids_of):
    model = adapter_of("llama")
    ids = ids_of(2, 20)
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    out = model(ids, attention_mask=mask, labels=ids)
    logp = torch.log_softmax(out.logits[:, :-1].float(), -1).gather(2, ids[:, 1:, None]).squeeze(2)
    logp = torch.cat([logp[0], logp[1, 4:]])
    assert out.loss.item() == pytest.approx(-logp.mean().item(), abs=1e-6)
    assert model(ids, use_cache=False, return_dict=False)[0].shape == (2, 20, V)


@pytest.mark.parametrize("by", ["object", "own folder"])
def test_what_is_saved_comes_back(model, kind, tmp_path, by, ids_of, base_of):
    ids = ids_of(1, 40)
    model.save_pretrained(tmp_path / "it")
    names = {path.name for path in (tmp_path / "it").rglob("*") if path.is_file()}
    assert all(name.endswith((".json", ".safetensors")) for name in names)
    base = base_of(kind)
    if by == "object":
        base.load_state_dict(
            {k.replace(".base_layer.", "."): v for k, v in model.base.state_dict().items() if ".lora_" not in k}
        )
        back = HippocampalAdapter.from_pretrained(tmp_path / "it", base=base)
    else:
        back = HippocampalAdapter.from_pretrained(tmp_path / "it")
    with torch.no_grad():
        assert (back.double()(ids).logits - model(ids).logits).abs().max() < 1e-4
    assert not back.training and back.config.span == SPAN


def test_a_base_is_found_again_by_its_name(tmp_path, base_of, ids_of):
    base_of("llama").save_pretrained(tmp_path / "base")
    model = HippocampalAdapter.from_pretrained(tmp_path / "base", slots=64, base_options={"dtype": torch.float32})
    model.save_pretrained(tmp_path / "it")
    assert not (tmp_path / "it" / "base").exists() and model.config.base["name"] == str(tmp_path / "base")
    ids = ids_of(1, 30)
    with torch.no_grad():
        assert torch.equal(HippocampalAdapter.from_pretrained(tmp_path / "it")(ids).logits, model(ids).logits)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft asks for it
def test_the_updates_are_in_the_format_of_peft(tmp_path, adapter_of, ids_of):
    import peft

    model = opened(adapter_of("llama", fusion="none"))
    model.save_pretrained(tmp_path)
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base").double()
    theirs = peft.PeftModel.from_pretrained(base, tmp_path).double().eval()
    ids = ids_of(1, 12)
    with torch.no_grad():
        assert (theirs(input_ids=ids).logits - model(ids).logits).abs().max() < 1e-5


def test_a_memory_is_saved_swapped_and_forgotten(model, tmp_path, ids_of):
    document, ids = ids_of(1, 26), ids_of(1, 13)
    cache = model.remember(document)
    cache.save_memory(tmp_path / "it.memory")
    alone = cut(model, ids, [13])[0]
    with_it = cut(model, ids, [13], copy.deepcopy(cache))[0]
    loaded = cut(model, ids, [13], model.load_memory(tmp_path / "it.memory"))[0]
    assert (with_it - alone).abs().max() > 0.05
    assert (loaded - with_it).abs().max() < 1e-9
    swapped = AdapterCache()
    cut(model, ids_of(1, 26, seed=9), [26], swapped)
    swapped.put_memories([cache.memory_of(0)])
    for name in ("keys", "values", "strengths"):
        assert torch.equal(
            getattr(swapped.memory_of(0).hippocampus, name), getattr(cache.memory_of(0).hippocampus, name)
        )
    cache.forget()
    emptied = cache.memory_of(0).hippocampus
    assert not emptied.strengths.any() and not emptied.keys.any() and not emptied.values.any()


def test_keys_may_come_from_another_layer(kind, adapter_of, ids_of):
    ids = ids_of(1, 40)
    a, b = opened(adapter_of(kind)), opened(adapter_of(kind, key_layer=0))
    parts = list(b.base.modules())
    first, second = cut(a, ids, [40])[0], cut(b, ids, [40])[0]
    assert not torch.allclose(first, second)
    assert (cut(b, ids, [7, 33])[0] - second).abs().max() <= CLOSE[kind]
    assert all(part is before for part, before in zip(b.base.modules(), parts, strict=True))


def test_the_block_without_a_memory_begins_at_no_effect(adapter_of, ids_of):
    plain, block = adapter_of("llama", fusion="none"), adapter_of("llama", fusion="feedforward", hidden=5)
    ids = ids_of(1, 20)
    assert torch.equal(cut(plain, ids, [20])[0], cut(block, ids, [20])[0])
    with torch.no_grad():
        block.fusion.leave.weight.fill_(0.1)
    assert not torch.allclose(cut(plain, ids, [20])[0], cut(block, ids, [20])[0])


def test_the_example_runs(capsys, monkeypatch):
    path = Path(__file__).resolve().parents[2] / "examples" / "adapter.py"
    monkeypatch.setattr(sys, "argv", ["adapter.py", "--base-steps", "2", "--steps", "1"])
    runpy.run_path(str(path), run_name="__main__")
    shown = capsys.readouterr().out
    assert shown.count("nats a token") == 2 and "with it: " in shown


def test_a_configuration_survives_json():
    base = {"name": "x", "model_type": "llama", "width": 8, "vocab_size": 9}
    config = AdapterConfig(span=16, window=32, overlap=4, base=base)
    again = AdapterConfig(**json.loads(json.dumps(config.to_dict())))
    assert again.to_dict() == config.to_dict()
    assert (again.vocab_size, again.hidden_size) == (9, 8)
