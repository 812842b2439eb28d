"""The Hugging Face face: the same model through transformers, token for token, and errors that say what to do."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from neuro.errors import UsageError
from neuro.session import Session
from neuro.state import leaves

transformers = pytest.importorskip("transformers")

from neuro.hf import NeuroCache, NeuroForCausalLM  # noqa: E402
from neuro.hf.modeling import CACHE_NAME  # noqa: E402

TEXT = "The city began when the river rose.\nA fox ran over the hill, and people said it was <unk> good.\n\n" * 3
SPAN = 16


def batch_of(rows):
    """Rows of ids, padded on the left with <unk>, and their mask."""
    width = max(map(len, rows))
    ids = torch.tensor([[1] * (width - len(row)) + row for row in rows])
    return ids, torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])


def ids_of(*lengths):
    generator = torch.Generator().manual_seed(11)
    return [torch.randint(2, 300, (length,), generator=generator).tolist() for length in lengths]


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
