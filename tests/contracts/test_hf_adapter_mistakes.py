"""What the hippocampal adapter refuses: wrong bases, settings, ids, stores and files, each told in two parts."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from neuro.errors import FormatError, MissingError, UsageError

transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")

from neuro.hf import AdapterCache, HippocampalAdapter  # noqa: E402
from neuro.hf.streaming import CACHE_NAME  # noqa: E402

V = 61  # of the bases


def test_mistakes_are_answered_in_two_parts(tmp_path, adapter_of, ids_of):
    encoder = transformers.T5ForConditionalGeneration(
        transformers.T5Config(vocab_size=V, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    )
    small = transformers.OPTForCausalLM(
        transformers.OPTConfig(
            vocab_size=V, hidden_size=16, ffn_dim=16, num_hidden_layers=1, num_attention_heads=2, word_embed_proj_dim=8
        )
    )
    del small.lm_head
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "config.json").write_text(json.dumps({"model_type": "brainformer"}))
    model = adapter_of("llama")
    ids = ids_of(1, 20)
    cases = [
        (
            lambda: HippocampalAdapter.from_pretrained(encoder),
            "type 't5' is an encoder and a decoder, expected a causal",
        ),
        (lambda: HippocampalAdapter.from_pretrained(small), "type 'opt' has no embeddings and head as modules"),
        (lambda: HippocampalAdapter.from_pretrained(strange), "is of an architecture that transformers does not know"),
        (lambda: model(ids[:, :0]), "got input_ids [1, 0], expected [batch, at least 1]"),
        (lambda: model.remember(ids[:, :0]), "got input_ids [1, 0], expected [batch, at least 1]"),
        (lambda: adapter_of("llama", top_slots=65), "adapter top_slots: got 65, expected 1 to slots (64)"),
        (lambda: adapter_of("llama", slots=0), "adapter slots: got 0, expected at least 1"),
        (lambda: model.remember([3, 4]), "got input_ids of list, expected a tensor [batch, tokens]"),
        (lambda: HippocampalAdapter.from_pretrained(None), "got a NoneType, expected a causal language model"),
        (lambda: adapter_of("llama", fusion="glue"), "adapter fusion: got 'glue', expected memory, feedforward, none"),
        (lambda: adapter_of("llama", window=4, overlap=4), "overlap: got 4, expected at least 0 and below the window"),
        (
            lambda: adapter_of("llama", controller="surprise"),
            "controller: got 'surprise', expected learned, random, periodic",
        ),
        (
            lambda: adapter_of("llama", controller="tagged"),
            "adapter controller: got 'tagged', expected learned, random, periodic",
        ),
        (lambda: adapter_of("llama", key_layer=2), "key_layer: got 2, expected 0 to 1"),
        (lambda: adapter_of("llama", lora_targets=["nowhere"]), "lora_targets: ['nowhere'] do not fit this base"),
        (lambda: adapter_of("llama", num_slots=3), "got num_slots, which an adapter does not take"),
        (lambda: adapter_of("llama", fusion="none").remember(ids), "remember: this adapter has fusion 'none'"),
        (lambda: model(ids, **{CACHE_NAME: 3}), "got a int, expected a AdapterCache"),
        (lambda: model(ids.repeat(2, 1), **{CACHE_NAME: model(ids)[CACHE_NAME]}), "got 2 rows of tokens, expected 1"),
        (lambda: AdapterCache().memory_of(0), "got row 0, expected a row with a memory"),
        (lambda: AdapterCache().crop(1), "cannot be shortened, because commits are final"),
        (lambda: model.resize_token_embeddings(5), "an adapter's vocabulary is its base's"),
    ]
    for call, text in cases:
        with pytest.raises(UsageError) as error:
            call()
        assert text in error.value.what and error.value.do
    with pytest.raises(MissingError, match="no base model"):
        HippocampalAdapter.from_pretrained(tmp_path / "nowhere")


def test_padding_inside_a_row_is_refused(adapter_of, ids_of):
    model = adapter_of("llama")
    ids, mask = ids_of(1, 12), torch.ones(1, 12, dtype=torch.int64)
    cache = model(ids)[CACHE_NAME]
    mask[0, 0] = 0
    with pytest.raises(UsageError, match="padding after a row's first token"):
        model(ids, attention_mask=mask, **{CACHE_NAME: cache})


def test_a_store_that_does_not_fit_is_refused(tmp_path, adapter_of, ids_of):
    model = adapter_of("llama")
    path = tmp_path / "it.memory"
    model.remember(ids_of(1, 26)).save_memory(path)
    with pytest.raises(UsageError, match="got a store of keys 12 and values 24 wide, expected 10 and 24"):
        adapter_of("llama", key_width=10).load_memory(path)
    with pytest.raises(UsageError, match="filled slots, expected at most 8"):
        adapter_of("llama", slots=8).load_memory(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FormatError):
        model.load_memory(path)
    with pytest.raises(MissingError):
        model.load_memory(tmp_path / "other.memory")


def test_another_base_and_damaged_files_are_refused(tmp_path, adapter_of, base_of):
    adapter_of("llama").save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="got a base of model_type gpt2, expected llama"):
        HippocampalAdapter.from_pretrained(tmp_path, base=base_of("gpt2"))
    with pytest.raises(UsageError, match="sizes of its own"):
        HippocampalAdapter.from_pretrained(tmp_path, slots=3)
    whole = (tmp_path / "adapter_model.safetensors").read_bytes()
    (tmp_path / "adapter_model.safetensors").write_bytes(whole[:50])
    with pytest.raises(FormatError, match="not a whole safetensors file"):
        HippocampalAdapter.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(FormatError, match="not whole JSON"):
        HippocampalAdapter.from_pretrained(tmp_path)


def test_what_is_not_read_from_left_to_right_is_refused():
    config = transformers.BertConfig(vocab_size=V, hidden_size=24, num_hidden_layers=1, num_attention_heads=2)
    for base in (transformers.BertForMaskedLM(config), transformers.BertLMHeadModel(config)):
        with pytest.raises(UsageError, match="'bert' lets a token change what comes before it"):
            HippocampalAdapter.from_pretrained(base)
    with pytest.raises(UsageError, match="got a Linear, expected a causal language model"):
        HippocampalAdapter.from_pretrained(torch.nn.Linear(3, 3))


def test_ids_that_are_none_and_memories_of_other_rows_are_refused(adapter_of):
    model = adapter_of("llama")
    for ids, what in ((torch.tensor([[3, V]]), f"3..{V}"), (torch.tensor([[-1, 3]]), "-1..3")):
        with pytest.raises(UsageError, match=f"got ids {what}, expected 0..{V - 1}"):
            model.remember(ids)
    with pytest.raises(UsageError, match="got input_ids of torch.float32"):
        model.remember(torch.ones(1, 3))
    cache = model.remember(torch.tensor([[3, 4, 5]]))
    with pytest.raises(UsageError, match="got 0 memories, expected 1"):
        cache.put_memories([])


def test_one_row_without_its_batch_is_told_how_to_be_one(adapter_of):
    with pytest.raises(UsageError, match=r"got input_ids \[3\], expected \[batch, at least 1\]") as error:
        adapter_of("llama").remember(torch.tensor([3, 4, 5]))
    assert error.value.do == "Give one row as input_ids[None]."


@pytest.mark.parametrize("window", [None, 300])
def test_a_document_beyond_the_table_of_positions_names_the_window(window, adapter_of, ids_of):
    model = adapter_of("gpt2", window=window)
    cache = model(ids_of(1, 250))[CACHE_NAME]
    with pytest.raises(UsageError, match="got a context of 270 tokens, expected at most the 256 positions") as error:
        model(ids_of(1, 20), **{CACHE_NAME: cache})
    assert "window=256 or less" in error.value.do
    adapter_of("gpt2", window=256).remember(ids_of(1, 300))


def test_updates_that_do_not_fit_an_architecture_may_be_left_out(ids_of):
    base = transformers.MambaForCausalLM(transformers.MambaConfig(vocab_size=V, hidden_size=24, num_hidden_layers=1))
    with pytest.raises(UsageError, match="lora_targets: 'all-linear' do not fit this base") as error:
        HippocampalAdapter.from_pretrained(base)
    assert "lora_rank=0" in error.value.do
    HippocampalAdapter.from_pretrained(base, lora_rank=0).remember(ids_of(1, 20))


def test_without_peft_the_error_names_the_extra(monkeypatch, adapter_of):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingError, match="neuro-hybrid\\[adapter\\]"):
        adapter_of("llama")
    assert adapter_of("llama", lora_rank=0).config.lora_rank == 0
