"""The Hugging Face face: the same model through transformers, token for token, and errors that say what to do."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import sys
import types

import pytest
import torch
import torch.nn.functional as F

import neuro
from neuro import folder
from neuro.errors import FormatError, MissingError, UsageError
from neuro.session import Session
from neuro.state import leaves
from neuro.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

from neuro.hf import NeuroCache, NeuroConfig, NeuroForCausalLM, NeuroTokenizer  # noqa: E402
from neuro.hf.datasets import read_documents  # noqa: E402
from neuro.hf.modeling import CACHE_NAME  # noqa: E402

TEXT = "The city began when the river rose.\nA fox ran over the hill, and people said it was <unk> good.\n\n" * 3
SPAN = 16


@pytest.fixture(scope="module")
def tokenizer():
    trained = Tokenizer.train(TEXT.split("\n"), 300)
    assert trained.vocab_size == 300
    return trained


@pytest.fixture
def brain(tiny_brain, tokenizer):
    """In float64, so that no spike hangs on the order of a sum; tied weights must not make it repeat its last token."""
    made = tiny_brain(dtype=torch.float64).eval()
    with torch.no_grad():
        made.regions["readout"].norm.weight.copy_(3 * torch.randn(32, generator=torch.Generator().manual_seed(3)))
    made.tokenizer = tokenizer
    return made


@pytest.fixture
def model(brain):
    return NeuroForCausalLM.from_brain(brain)


@pytest.fixture
def saved(brain, tmp_path):
    return folder.save(brain, tmp_path / "ours", {"steps": 7})


def batch_of(rows):
    """Rows of ids, padded on the left with <unk>, and their mask."""
    width = max(map(len, rows))
    ids = torch.tensor([[1] * (width - len(row)) + row for row in rows])
    return ids, torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])


def ids_of(*lengths):
    generator = torch.Generator().manual_seed(11)
    return [torch.randint(2, 300, (length,), generator=generator).tolist() for length in lengths]


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_folder_of_ours_loads_as_a_transformers_model(saved, brain):
    model = NeuroForCausalLM.from_pretrained(saved, backend="cpu")
    ours = neuro.load(saved, "cpu")
    assert not model.training and model.brain.tokenizer.fingerprint == brain.tokenizer.fingerprint
    assert model.config.brain_config() == ours.config and model.config.about == {"steps": 7}
    for name, tensor in ours.state_dict().items():
        assert torch.equal(model.state_dict()[f"brain.{name}"], tensor), name
    assert (model.config.vocab_size, model.config.hidden_size, model.config.num_hidden_layers) == (300, 32, 2)


def test_what_save_pretrained_wrote_loads_both_ways(model, tmp_path):
    model.generation_config.temperature = 0.7
    model.generation_config.do_sample = True
    model.save_pretrained(tmp_path / "theirs")
    ours, theirs = neuro.load(tmp_path / "theirs", "cpu"), NeuroForCausalLM.from_pretrained(tmp_path / "theirs")
    assert theirs.generation_config.temperature == 0.7
    assert theirs.generation_config.suppress_tokens == model.generation_config.suppress_tokens
    for name, tensor in model.brain.state_dict().items():
        half = tensor.half().float()
        assert torch.equal(ours.state_dict()[name], half) and torch.equal(theirs.state_dict()[f"brain.{name}"], half)
    record = json.loads((tmp_path / "theirs" / "config.json").read_text())
    assert record["schema"] == folder.SCHEMA and record["architectures"] == ["NeuroForCausalLM"]
    theirs.save_pretrained(tmp_path / "again")
    again = json.loads((tmp_path / "again" / "config.json").read_text())
    assert again == record


def test_the_auto_classes_know_it(saved):
    assert isinstance(transformers.AutoConfig.from_pretrained(saved), NeuroConfig)
    assert isinstance(transformers.AutoModelForCausalLM.from_pretrained(saved), NeuroForCausalLM)
    assert isinstance(transformers.AutoTokenizer.from_pretrained(saved), NeuroTokenizer)
    torch.manual_seed(0)
    fresh = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(saved))
    torch.manual_seed(0)
    untouched = neuro.brain.Brain(fresh.config.brain_config())
    for name, tensor in untouched.state_dict().items():  # transformers must not initialise it a second time
        assert torch.equal(fresh.brain.state_dict()[name], tensor), name


def test_a_trainers_checkpoint_loads_by_its_tensors_names(model, saved):
    from safetensors.torch import load_file

    other = NeuroForCausalLM(model.config)
    result = other.load_state_dict(load_file(saved / "model.safetensors"), strict=False)
    assert not result.missing_keys and not result.unexpected_keys
    assert torch.equal(other.brain.embedding, model.brain.embedding.half().float())
    assert other.brain.regions["readout"].weight is other.brain.embedding


def test_options_of_loading(saved):
    model = NeuroForCausalLM.from_pretrained(saved, dtype="bfloat16", sets=["cortex.tau_mem_ms=3.0"])
    assert model.dtype == torch.bfloat16 and model.config.brain_config().cortex.tau_mem_ms == 3.0
    with pytest.raises(UsageError, match="device_map.*\nChoose where it runs with backend"):
        NeuroForCausalLM.from_pretrained(saved, device_map="auto")
    changed = NeuroConfig({**model.config.brain, "plasticity_span": 20})
    with pytest.raises(UsageError, match="not that of .*\nLeave config out"):
        NeuroForCausalLM.from_pretrained(saved, config=changed)
    with pytest.raises(MissingError, match="neither a shipped model nor a folder"):
        NeuroForCausalLM.from_pretrained("nothing-here")
    (saved / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(FormatError, match="truncated or foreign"):
        NeuroForCausalLM.from_pretrained(saved)


def test_a_hugging_face_id_is_downloaded(saved, monkeypatch):
    import huggingface_hub

    asked = []

    def download(name, allow_patterns, **options):
        asked.append((name, options))
        if name == "someone/else":
            raise ConnectionError("no route\nto the hub")
        return str(saved)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    NeuroForCausalLM.from_pretrained("someone/brain", revision="v1", local_files_only=True)
    NeuroTokenizer.from_pretrained("someone/brain")
    assert asked == [("someone/brain", {"revision": "v1", "local_files_only": True}), ("someone/brain", {})]
    with pytest.raises(MissingError, match=r"'someone/else': .*\(ConnectionError: no route\).*\nCheck the name"):
        NeuroForCausalLM.from_pretrained("someone/else")


def test_saving_needs_a_tokenizer_and_does_not_upload(tiny_brain, model, tmp_path):
    bare = NeuroForCausalLM.from_brain(tiny_brain())
    with pytest.raises(UsageError, match="no tokenizer"):
        bare.save_pretrained(tmp_path / "bare")
    with pytest.raises(UsageError, match="upload_folder"):
        model.save_pretrained(tmp_path / "up", push_to_hub=True)
    model.save_pretrained(tmp_path / "worker", is_main_process=False)
    assert not list(tmp_path.iterdir())


# -- forward ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [[50], [1] * 50, [7, 16, 3, 24]])
def test_logits_are_the_brains_own(model, brain, drive, tokens, pieces):
    ids = tokens(2, 50)
    expected = drive(brain, ids)
    found, cache = [], None
    with torch.no_grad():
        for part in ids.split(pieces, 1):
            out = model(part, past_key_values=cache)
            found.append(out.logits)
            cache = out[CACHE_NAME]
    assert torch.allclose(torch.cat(found, 1), expected.logits, atol=1e-10)
    assert cache.get_seq_length() == 50 and cache.batch_size == 2
    for row in range(2):
        for (name, got), (_, state) in zip(leaves(cache.row_state(row)), leaves(expected.state), strict=True):
            assert torch.allclose(got, state if state.dim() == 0 else state[row : row + 1], atol=1e-10), name


def test_padded_rows_are_as_if_alone(model):
    rows = ids_of(3, 40, 16, 3, 19)
    ids, mask = batch_of(rows)
    with torch.no_grad():
        out = model(ids, attention_mask=mask)
        for i, row in enumerate(rows):
            alone = model(torch.tensor([row]))
            assert torch.allclose(out.logits[i, -len(row) :], alone.logits[0], atol=1e-10)
            assert not out.logits[i, : -len(row)].any()
            ours, single = out[CACHE_NAME].row_state(i), alone[CACHE_NAME].row_state(0)
            for (name, a), (_, b) in zip(leaves(ours), leaves(single), strict=True):
                assert torch.allclose(a, b, atol=1e-10), name


def test_padding_may_come_in_a_piece_of_its_own(model):
    rows = ids_of(3, 30)
    ids, mask = batch_of(rows)
    with torch.no_grad():
        whole = model(ids, attention_mask=mask).logits
        first = model(ids[:, :20], attention_mask=mask[:, :20])
        second = model(ids[:, 20:], attention_mask=mask, past_key_values=first[CACHE_NAME])
    assert torch.allclose(torch.cat([first.logits, second.logits], 1), whole, atol=1e-10)


def test_rows_are_selected_across_lengths(model):
    rows = ids_of(4, 21, 33)
    ids, mask = batch_of(rows)
    order = [2, 0, 0, 1, 2]
    with torch.no_grad():
        cache = model(ids, attention_mask=mask)[CACHE_NAME]
        cache.batch_select_indices(torch.tensor(order))
        following = torch.tensor([[5], [6], [7], [8], [9]])
        out = model(following, past_key_values=cache).logits
        for i, old in enumerate(order):
            alone = model(torch.tensor([rows[old] + following[i].tolist()])).logits[:, -1]
            assert torch.allclose(out[i], alone, atol=1e-10)
        cache.reset()
        assert cache.batch_size == -1 and cache.get_seq_length() == 0


def test_logits_to_keep_and_prosody(model, brain, drive, tokens):
    ids, prosody = tokens(2, 40), torch.randn(2, 40, 3, dtype=torch.float64)
    with torch.no_grad():
        whole = model(ids, prosody=prosody, use_cache=False)
        last = model(ids, prosody=prosody, logits_to_keep=20).logits
        silent = model(ids, return_dict=False)
    assert whole.get(CACHE_NAME) is None and isinstance(silent, tuple)
    assert torch.allclose(whole.logits, drive(brain, ids, prosody=prosody).logits, atol=1e-10)
    assert torch.allclose(last, whole.logits[:, -20:], atol=1e-12)
    assert not torch.allclose(silent[0], whole.logits)


def test_the_loss_is_mean_nats_of_what_can_be_predicted(model, brain):
    rows = ids_of(40, 7)
    nats = []
    for row in rows:
        logits = Session(brain).feed(torch.tensor([row]), keep_logits=True)[0]
        nats.append(F.cross_entropy(logits[:-1], torch.tensor(row[1:]), reduction="none"))
    with torch.no_grad():
        one = model(torch.tensor(rows[:1]), labels=torch.tensor(rows[:1]), logits_to_keep=1)
        assert one.logits.shape == (1, 1, 300)
        assert one.loss.item() == pytest.approx(nats[0].mean().item(), rel=1e-6)
        ids, mask = batch_of(rows)
        both = torch.cat(nats)
        assert model(ids, mask, labels=ids).loss.item() == pytest.approx(both.mean().item(), rel=1e-6)
        summed = model(ids, mask, labels=ids, num_items_in_batch=10).loss.item()
        assert summed == pytest.approx(both.sum().item() / 10, rel=1e-6)
        labels = torch.tensor(rows[:1])
        labels[:, :30] = -100
        ignored = model(torch.tensor(rows[:1]), labels=labels).loss.item()
        assert ignored == pytest.approx(nats[0][29:].mean().item(), rel=1e-6)


def test_the_gradient_crosses_commits_and_can_be_cut(model, tokens):
    ids = tokens(2, 3 * SPAN)
    model.train()
    out = model(ids[:, : 2 * SPAN], labels=ids[:, : 2 * SPAN])
    out.loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    assert model.brain.regions["hippocampus"].value.weight.grad.any()  # only what a commit wrote is ever read
    cache = out[CACHE_NAME]
    cache.detach()
    model(ids[:, 2 * SPAN :], labels=ids[:, 2 * SPAN :], past_key_values=cache).loss.backward()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"input_ids": None}, r"input_ids None.*\nStart from <bos>"),
        ({"input_ids": torch.zeros(1, 0, dtype=torch.int64)}, r"input_ids \[1, 0\]"),
        ({"input_ids": torch.full((1, 3), 300)}, r"expected 0\.\.299"),
        ({"attention_mask": torch.tensor([[1, 1, 0]])}, "only before.*\nPad on the left"),
        ({"attention_mask": torch.ones(1, 5)}, r"shape \[1, 5\], expected \[1, 3\]"),
        ({"past_key_values": (1, 2)}, "got a tuple, expected a NeuroCache"),
        ({"past_key_values": NeuroCache(), "cache": NeuroCache()}, "two names of one thing"),
        ({"output_attentions": True}, "does not have.*\nGive input_ids"),
        ({"inputs_embeds": torch.zeros(1, 3, 32)}, "does not have"),
    ],
)
def test_wrong_inputs_are_refused(model, inputs, message):
    with pytest.raises(UsageError, match=f"(?s){message}"):
        model(**{"input_ids": torch.tensor([[4, 5, 6]])} | inputs)


def test_wrong_uses_of_a_cache_are_refused(model):
    with torch.no_grad():
        cache = model(torch.tensor([[4, 5, 6]]))[CACHE_NAME]
    with pytest.raises(UsageError, match="2 rows of tokens, expected 1"):
        model(torch.tensor([[4], [5]]), past_key_values=cache)
    with pytest.raises(UsageError, match="after a row's first token"):
        model(torch.tensor([[1, 5]]), torch.tensor([[0, 1]]), past_key_values=cache)
    with pytest.raises(UsageError, match="commits are final"):
        cache.crop(1)
    with pytest.raises(UsageError, match=r"row 3, expected 0\.\.0"):
        cache.row_state(3)
    with pytest.raises(UsageError, match="vocabulary is fixed"):
        model.resize_token_embeddings(301)
    assert cache.get_seq_length() == 3 and cache.get_max_length() == -1


# -- generate ---------------------------------------------------------------------------------------------------------


def written_by_hand(brain, ids, most):
    """Greedy, every token from the start again through a fresh session."""
    text = list(ids)
    for _ in range(most):
        logits = Session(brain).feed(torch.tensor([text]))[0]
        logits[[brain.tokenizer.bos_id, brain.tokenizer.unk_id]] = -torch.inf
        text.append(int(logits.argmax()))
    return text


def test_greedy_is_recomputation_from_the_start(model, brain):
    prompt = ids_of(21)[0]
    expected = written_by_hand(brain, prompt, 40)
    assert len(set(expected[21:])) > 5, "a model that repeats itself tests nothing"
    assert model.generate(torch.tensor([prompt]), max_new_tokens=40)[0].tolist() == expected
    slow = model.generate(torch.tensor([prompt]), max_new_tokens=40, use_cache=False)
    assert slow[0].tolist() == expected
    chunks = model.generate(torch.tensor([prompt]), max_new_tokens=40, prefill_chunk_size=5)
    assert chunks[0].tolist() == expected
    assert model.generate(max_new_tokens=4)[0].tolist() == written_by_hand(brain, [0], 4)


def test_a_padded_batch_writes_what_its_rows_write_alone(model):
    rows = ids_of(3, 17, 33, 20, 1, 17)
    ids, mask = batch_of(rows)
    together = model.generate(ids, attention_mask=mask, max_new_tokens=40)
    uncached = model.generate(ids, attention_mask=mask, max_new_tokens=40, use_cache=False)
    assert torch.equal(together, uncached)
    for i, row in enumerate(rows):
        alone = model.generate(torch.tensor([row]), max_new_tokens=40)[0, len(row) :]
        assert together[i, ids.shape[1] :].tolist() == alone.tolist()


def log_probabilities(brain, prompt, continuation):
    logits = Session(brain).feed(torch.tensor([prompt + continuation]), keep_logits=True)[0]
    p = torch.log_softmax(logits, -1)[len(prompt) - 1 : -1]
    return p.gather(1, torch.tensor(continuation).unsqueeze(1)).sum().item()


def beams(model, rows, beams=4, most=24):
    """(row, continuation, reported score) of every returned beam."""
    ids, mask = batch_of(rows)
    out = model.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=most,
        num_beams=beams,
        num_return_sequences=beams,
        length_penalty=0.0,
        return_dict_in_generate=True,
        output_scores=True,
    )
    found = out.sequences[:, ids.shape[1] :].tolist()
    return [(rows[i // beams], found[i], out.sequences_scores[i].item()) for i in range(len(found))]


def test_beam_scores_are_the_models_own(model, brain):
    found = beams(model, ids_of(5, 30, 5, 13))
    assert len(found) == 16
    for prompt, continuation, score in found:
        assert score == pytest.approx(log_probabilities(brain, prompt, continuation), abs=1e-3)


def test_beam_scores_would_be_false_without_reordering(model, brain, monkeypatch):
    monkeypatch.setattr(NeuroCache, "reorder_cache", lambda self, rows: None)
    found = beams(model, ids_of(5, 30, 5, 13))
    false = [abs(score - log_probabilities(brain, *texts)) > 1e-2 for *texts, score in found]
    assert sum(false) > 8, "the test above would not notice a cache that is not reordered"


@pytest.mark.parametrize("options", [{"num_return_sequences": 20}, {"num_beams": 3}])
def test_sampling_never_writes_unk(model, options):
    ids = torch.tensor(ids_of(5))
    options |= {"do_sample": True, "temperature": 5.0, "max_new_tokens": 100}
    written = model.generate(ids, **options)[:, 5:]
    assert written.min() > 1
    if "num_beams" not in options:
        freely = model.generate(ids, suppress_tokens=None, **options)[:, 5:]
        assert (freely == model.brain.tokenizer.unk_id).any(), "nothing here would have been suppressed"


def test_a_cache_goes_on_where_it_stopped(model):
    rows = ids_of(5, 22)
    ids, mask = batch_of(rows)
    whole = model.generate(ids, attention_mask=mask, max_new_tokens=30)
    first = model.generate(ids, attention_mask=mask, max_new_tokens=10, return_dict_in_generate=True)
    so_far = first.sequences
    longer = torch.cat([mask, torch.ones(2, 10, dtype=torch.int64)], 1)
    kept = copy.deepcopy(first[CACHE_NAME])
    full = model.generate(so_far, attention_mask=longer, max_new_tokens=20, **{CACHE_NAME: first[CACHE_NAME]})
    assert torch.equal(full, whole)
    new = model.generate(so_far[:, -1:], attention_mask=longer, max_new_tokens=20, **{CACHE_NAME: kept})
    assert torch.equal(new[:, 1:], whole[:, -20:])


def test_a_cache_goes_on_without_padding_and_into_beams(model):
    ids = torch.tensor(ids_of(20))
    with torch.no_grad():
        cache = model(ids[:, :9])[CACHE_NAME]
    expected = model.generate(ids, max_new_tokens=12, num_beams=3)
    found = model.generate(ids, max_new_tokens=12, num_beams=3, **{CACHE_NAME: copy.deepcopy(cache)})
    assert torch.equal(found, expected)
    # Transformers drops a mask of ones: only its length tells that these are new tokens, more than the cache has seen.
    mask = torch.ones(1, 20, dtype=torch.int64)
    new = model.generate(ids[:, 9:], attention_mask=mask, max_new_tokens=12, **{CACHE_NAME: copy.deepcopy(cache)})
    assert torch.equal(new[:, 11:], model.generate(ids, max_new_tokens=12)[:, 20:])
    with pytest.raises(UsageError, match="has seen 9 tokens; got 9 under an attention mask of 9"):
        model.generate(ids[:, :9], max_new_tokens=2, **{CACHE_NAME: cache})
    with pytest.raises(UsageError, match="got 20 under an attention mask of 22"):
        model.generate(ids, attention_mask=torch.ones(1, 22), max_new_tokens=2, **{CACHE_NAME: cache})
    with pytest.raises(UsageError, match="cache of 1 rows, expected 2"):
        model.generate(ids.repeat(2, 1), max_new_tokens=2, num_beams=2, **{CACHE_NAME: cache})


def test_a_session_and_a_cache_hand_over_to_each_other(model, brain):
    prompt, rest = ids_of(25, 10)
    session = Session(brain)
    session.feed(torch.tensor([prompt]))
    with torch.no_grad():
        out = model(torch.tensor([rest]), past_key_values=NeuroCache(session.state))
        logits = session.feed(torch.tensor([rest]))
        assert torch.allclose(out.logits[:, -1], logits, atol=1e-10)
        back = Session(brain, state=out[CACHE_NAME].row_state(0))
        assert torch.allclose(back.feed(torch.tensor([prompt])), session.feed(torch.tensor([prompt])), atol=1e-10)


def drawn(logits, warmth, temperature, banned):
    """As transformers draws without nucleus: from torch's own generator."""
    logits = logits.clone()
    logits[list(banned)] = -torch.inf
    return int(torch.multinomial(torch.softmax(logits / warmth / temperature, -1), 1))


@pytest.mark.parametrize("octaves", [4.0, -4.0])
def test_hormones_warm_sampling_as_a_session_is_warmed(tiny_brain, tokenizer, octaves):
    brain = tiny_brain([f"endocrine.temperature_octaves={octaves}"], dtype=torch.float64).eval()
    brain.tokenizer = tokenizer
    with torch.no_grad():  # noradrenaline rises, and logits are less flat: or no temperature is told from another
        brain.regions["endocrine"].level.bias[1] += 3.0
        brain.regions["readout"].norm.weight.copy_(3 * torch.randn(32, generator=torch.Generator().manual_seed(3)))
    model, prompt = NeuroForCausalLM.from_brain(brain), ids_of(21)[0]
    options = {"do_sample": True, "temperature": 0.8, "top_k": 0, "max_new_tokens": 40}
    session = Session(brain)
    session.feed(torch.tensor([prompt]))
    torch.manual_seed(11)
    banned, warmths = (brain.tokenizer.bos_id, brain.tokenizer.unk_id), []

    def sampler(logits, warmth):
        warmths.append(warmth)
        return drawn(logits, warmth, 0.8, banned)

    expected = list(session.generate(sampler, 40))
    for more in ({}, {"use_cache": False}, {"prefill_chunk_size": 5}):
        torch.manual_seed(11)
        assert model.generate(torch.tensor([prompt]), **options | more)[0, 21:].tolist() == expected
    assert len(set(warmths)) >= 3 and max(abs(math.log2(x)) for x in warmths) > 1.0
    brain.config = dataclasses.replace(
        brain.config, endocrine=dataclasses.replace(brain.config.endocrine, temperature_octaves=0.0)
    )
    torch.manual_seed(11)
    assert model.generate(torch.tensor([prompt]), **options)[0, 21:].tolist() != expected


def test_every_row_has_a_warmth_of_its_own_and_greedy_and_beams_stay_cool(tiny_brain, tokenizer):
    cool = tiny_brain(dtype=torch.float64).eval()
    warm = tiny_brain(["endocrine.temperature_octaves=2.0"], dtype=torch.float64).eval()
    cool.tokenizer = warm.tokenizer = tokenizer
    ids, mask = batch_of(ids_of(20, 37))
    found = []
    for brain in (cool, warm):
        model = NeuroForCausalLM.from_brain(brain)
        options = {"attention_mask": mask, "max_new_tokens": 1, "output_scores": True, "output_logits": True}
        out = model.generate(ids, do_sample=True, top_k=0, return_dict_in_generate=True, **options)
        levels = torch.stack([brain.warmth(out[CACHE_NAME].row_state(row))[0] for row in range(2)])
        assert bool((levels != levels[0]).any()) == (brain is warm)
        allowed = out.scores[0].isfinite()
        levels = levels.to(out.logits[0]).unsqueeze(1)
        assert torch.equal((out.logits[0] / levels)[allowed], out.scores[0][allowed])
        greedy = [model.generate(ids, attention_mask=mask, max_new_tokens=9, num_beams=n) for n in (1, 3)]
        found.append(torch.cat(greedy))
    assert torch.equal(*found)


def test_prosody_belongs_to_the_prompt(model):
    ids, prosody = torch.tensor(ids_of(20)), 3 * torch.randn(1, 20, 3, dtype=torch.float64)

    def logits(**options):
        out = model.generate(ids, max_new_tokens=20, return_dict_in_generate=True, output_logits=True, **options)
        return torch.stack(out.logits)

    spoken = logits(prosody=prosody)
    assert torch.allclose(spoken, logits(prosody=prosody, use_cache=False), atol=1e-5)
    assert not torch.allclose(spoken, logits(), atol=1e-3)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"prompt_lookup_num_tokens": 3}, ValueError, "not supported with stateful models"),
        ({"cache_implementation": "static"}, UsageError, "cache_implementation 'static', expected none"),
        ({"cache_implementation": "paged"}, UsageError, "no attention cache to page"),
        ({"return_dict_in_generate": True, "output_attentions": True}, UsageError, "does not have"),
        ({CACHE_NAME: 3}, UsageError, "got a int, expected a NeuroCache"),
        ({"inputs_embeds": torch.zeros(1, 3, 32)}, ValueError, "doesn't have its forwarding implemented"),
        ({"prosodie": 1}, ValueError, "prosodie"),
    ],
)
def test_what_generate_cannot_do_is_refused(model, options, error, message):
    with pytest.raises(error, match=message):
        model.generate(torch.tensor([[4, 5, 6]]), max_new_tokens=2, **options)


def test_assisted_decoding_is_refused(model):
    with pytest.raises(ValueError, match="not supported with stateful models"):
        model.generate(torch.tensor([[4, 5, 6]]), max_new_tokens=2, assistant_model=model)


# -- tokenizer --------------------------------------------------------------------------------------------------------

TEXTS = [
    TEXT,
    "",
    " two  spaces\n\n\nlines \t",
    "an <unk> and <unk><unk>",
    "<bos>",
    "forged <bos><bos> here, <bos",
    "été 漢字 😀\u2028 \x00",
    "café\r\n",
]


def test_ids_and_texts_are_those_of_our_tokenizer(saved, tokenizer):
    theirs = NeuroTokenizer.from_pretrained(saved)
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert theirs(text)["input_ids"] == theirs.encode(text) == ids, text
        assert theirs.convert_tokens_to_ids(theirs.tokenize(text)) == ids
        assert theirs.decode(ids) == text
    assert theirs(TEXTS)["input_ids"] == [tokenizer.encode(text) for text in TEXTS]
    assert (theirs.bos_token_id, theirs.unk_token_id, theirs.eos_token_id) == (0, 1, None)


def test_bos_and_padding_are_on_the_left(saved, tokenizer, model):
    theirs = NeuroTokenizer.from_pretrained(saved, add_bos_token=True)
    texts = ["The city", "A <bos> fox ran over the hill, and"]
    batch = theirs(texts, padding=True, return_tensors="pt")
    assert sorted(batch) == ["attention_mask", "input_ids"]
    for row, mask, text in zip(batch["input_ids"], batch["attention_mask"], texts, strict=True):
        assert row[mask.bool()].tolist() == [0, *tokenizer.encode(text)]
        assert mask.tolist() == sorted(mask.tolist())
    assert theirs("a fox", add_special_tokens=False)["input_ids"] == tokenizer.encode("a fox")
    out = model.generate(**batch, max_new_tokens=5)
    written = theirs.batch_decode(out, skip_special_tokens=True)
    assert [text.startswith(prompt) for text, prompt in zip(written, texts, strict=True)] == [True, True]


def test_saving_the_tokenizer_leaves_the_model_loadable(saved, tokenizer):
    theirs = transformers.AutoTokenizer.from_pretrained(saved, add_bos_token=True)
    theirs(["a", "bcd"], padding=True, truncation=True, max_length=2)
    theirs.save_pretrained(saved)
    assert neuro.load(saved, "cpu").tokenizer.fingerprint == tokenizer.fingerprint
    again = transformers.AutoTokenizer.from_pretrained(saved)
    assert again("a fox")["input_ids"] == tokenizer.encode("a fox")
    assert again.padding_side == "left"


def test_a_vocabulary_of_words_is_refused(tmp_path):
    words = Tokenizer.train(["a fox ran"], 5, kind="words")
    (tmp_path / "config.json").write_text("{}")
    words.save(tmp_path / "tokenizer.json")
    with pytest.raises(UsageError, match="vocabulary of words.*\nUse neuro.load"):
        NeuroTokenizer.from_pretrained(tmp_path)


# -- extras and datasets ----------------------------------------------------------------------------------------------


def test_without_the_extra_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingError, match=r"package transformers.*\npip install 'neuro-hybrid\[hf\]'"):
        neuro.hf.NeuroForCausalLM  # noqa: B018
    with pytest.raises(MissingError, match=r"package datasets.*\npip install 'neuro-hybrid\[hf\]'"):
        read_documents("owner/name")
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        neuro.hf.Nothing  # noqa: B018


class Rows:
    """Of a dataset as `datasets` gives it: typed columns by name."""

    def __init__(self, **columns):
        self.columns = columns
        kinds = {key: "string" if isinstance(column[0], str) else "int64" for key, column in columns.items()}
        self.features = {key: types.SimpleNamespace(dtype=kind) for key, kind in kinds.items()} | {"tags": ["string"]}

    def __getitem__(self, name):
        return self.columns[name]


@pytest.fixture
def library(monkeypatch):
    """A `datasets` whose hub holds what ``known`` says; it keeps the calls."""
    calls, known = [], {}

    def load_dataset(*args, split, **options):
        assert split == "train"
        calls.append((*args, *options.values()))
        found = known.get(args)
        if found is None:
            raise ConnectionError(f"Couldn't reach '{args[0]}' on the Hub\n(offline)")
        if isinstance(found, Exception):
            raise found
        return found

    module = types.ModuleType("datasets")
    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    return types.SimpleNamespace(calls=calls, known=known)


def test_datasets_by_name(library):
    library.known |= {
        ("plain",): Rows(text=["one", "", "two", None], title=["a", "b", "c", "d"]),
        ("owner/name",): Rows(body=["x"], n=[1]),
        ("owner/name", "sub"): Rows(text=["y"]),
        ("wikitext", "wikitext-2-raw-v1"): Rows(text=["z"]),
    }
    assert read_documents("plain") == ["one", "two"]
    assert read_documents("owner/name") == ["x"]
    assert read_documents("owner/name/sub") == ["y"]
    assert read_documents("wikitext/wikitext-2-raw-v1") == ["z"]
    assert library.calls[-2:] == [("wikitext/wikitext-2-raw-v1",), ("wikitext", "wikitext-2-raw-v1")]


def test_datasets_on_this_disk(library, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for loader in ("json", "csv", "parquet"):
        library.known[loader,] = Rows(text=[loader])
    library.known["table",] = Rows(text=["folder"])
    for name in ("a.jsonl", "a.csv", "a.parquet", "b.json.gz", "c.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "table").mkdir()
    assert read_documents("a.jsonl") == ["json"] and library.calls[-1] == ("json", "a.jsonl")
    assert [read_documents(name)[0] for name in ("a.csv", "a.parquet", "b.json.gz")] == ["csv", "parquet", "json"]
    assert read_documents("table") == ["folder"]
    with pytest.raises(UsageError, match=r"ending in '.txt', expected one of .json.*\nName a text file without 'hf:'"):
        read_documents("c.txt")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("nowhere", MissingError, r"'nowhere': .*\(ConnectionError: .*\(offline\)\).\nCheck the name"),
        ("two/parts", MissingError, "Couldn't reach 'two/parts'"),
        ("a/b/c/d", UsageError, "expected NAME, OWNER/NAME or OWNER/NAME/SUBSET"),
        ("a//b", UsageError, "expected NAME"),
        ("needs", UsageError, "pick one among.*\nWrite hf:OWNER/NAME/SUBSET"),
        ("columns", UsageError, r"text columns \['a', 'b'\], expected 'text' or only one"),
        ("numbers", UsageError, r"text columns \[\], expected"),
        ("empty", UsageError, "holds no text"),
    ],
)
def test_datasets_that_cannot_be_read(library, name, error, message):
    library.known |= {
        ("needs",): ValueError("Config name is missing.\nPlease pick one among: ['x', 'y']"),
        ("columns",): Rows(a=["x"], b=["y"]),
        ("numbers",): Rows(n=[1]),
        ("empty",): Rows(text=["", None]),
    }
    with pytest.raises(error, match=message):
        read_documents(name)


def test_training_reads_a_dataset(library):
    from neuro.corpus import read_documents as read

    library.known["plain",] = Rows(text=["one"])
    assert read("hf:plain") == ["one"]
