"""Generation beyond transformers: penalties equal their formulas for every row and beam, contrastive search its paper."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from neuro.errors import UsageError
from neuro.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

from neuro.hf import (  # noqa: E402
    DryLogitsProcessor,
    FrequencyPenaltyLogitsProcessor,
    NeuroForCausalLM,
    PresencePenaltyLogitsProcessor,
    breaker_ids,
)
from neuro.hf.cache import CACHE_NAME  # noqa: E402

TEXT = 'He said: "The river rose."\nA fox ran * over the hill, and people said it was good.\n\n' * 3


@pytest.fixture(scope="module")
def model(tiny_brain):
    """In float64, so that no spike hangs on the order of a sum; tied weights must not make it repeat its last token."""
    brain = tiny_brain(dtype=torch.float64).eval()
    with torch.no_grad():
        brain.regions["readout"].norm.weight.copy_(3 * torch.randn(32, generator=torch.Generator().manual_seed(3)))
    brain.tokenizer = Tokenizer.train(TEXT.split("\n"), 300)
    return NeuroForCausalLM.from_brain(brain)


def rows_of(*lengths, below=300):
    generator = torch.Generator().manual_seed(11)
    return [torch.randint(2, below, (length,), generator=generator).tolist() for length in lengths]


def padded(rows):
    """Rows of ids, padded on the left with <unk>, and their mask."""
    width = max(map(len, rows))
    ids = torch.tensor([[1] * (width - len(row)) + row for row in rows])
    return ids, torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])


# -- penalties --------------------------------------------------------------------------------------------------------


def test_dry_takes_the_continuation_of_a_repeat_and_nothing_else():
    ids = torch.tensor([[5, 6, 7, 8, 9, 5, 6, 7]])
    scores = torch.randn(1, 20)
    lost = scores - DryLogitsProcessor(0.8, 1.75, 2)(ids, scores)
    expected = torch.zeros(1, 20)
    expected[0, 8] = 0.8 * 1.75  # three tokens repeat, one more than is free
    assert torch.allclose(lost, expected, atol=1e-6)
    assert torch.equal(DryLogitsProcessor(0.8, 1.75, 4)(ids, scores), scores)
    assert torch.equal(DryLogitsProcessor()(ids[:, :1], scores), scores)


def test_dry_stops_at_sequence_breakers():
    ids, scores = torch.tensor([[5, 6, 7, 8, 9, 5, 6, 7]]), torch.zeros(1, 20)

    def taken(*breakers):
        return (-DryLogitsProcessor(1.0, 2.0, 1, breakers)(ids, scores)[0]).tolist()

    assert taken(5)[8] == 2.0 and taken(6)[8] == 1.0
    assert not any(taken(7)) and not any(taken(8)), "neither after a breaker nor a breaker itself"


def dry_by_hand(row, vocabulary, multiplier, base, allowed, breakers):
    """The penalties of one unpadded row, match by match."""
    found = [0.0] * vocabulary
    for end in range(len(row) - 1):
        n = 0
        while n <= end and row[end - n] == row[-1 - n] and row[end - n] not in breakers:
            n += 1
        if n >= allowed and row[end + 1] not in breakers:
            found[row[end + 1]] = max(found[row[end + 1]], multiplier * base ** (n - allowed))
    return found


def test_dry_is_its_formula_for_padded_rows_and_their_copies():
    rows = [[*row, 4, 3, *row] for row in rows_of(30, 3, 25, 1, below=4)]  # ids 2 and 3 repeat; 4 breaks
    ids, mask = padded(rows)
    ids = ids.where(mask.bool(), torch.arange(ids.shape[1]) % 2 + 2)  # padding that would match if it counted
    grown = torch.cat([ids.repeat_interleave(2, 0), torch.tensor([[2], [3]] * 4)], 1)
    scores = torch.zeros(8, 6, dtype=torch.float64)
    lost = -DryLogitsProcessor(0.5, 1.2, 2, [4], mask)(grown, scores)
    for i in range(8):
        expected = dry_by_hand([*rows[i // 2], 2 + i % 2], 6, 0.5, 1.2, 2, {4})
        assert torch.allclose(lost[i], torch.tensor(expected, dtype=torch.float64)), i
    assert lost.max() > 0.5 * 1.2**3, "nothing long was repeated"
    assert not torch.equal(lost, -DryLogitsProcessor(0.5, 1.2, 2, [4])(grown, scores)), "padding was not tested"


def test_dry_leaves_the_prompt_alone_when_told_to():
    ids, scores = torch.tensor([[5, 6, 7, 5, 6, 8, 5, 6]]), torch.zeros(1, 20)
    both, own = (-DryLogitsProcessor(1.0, prompt_length=length)(ids, scores)[0] for length in (0, 3))
    assert both.nonzero().flatten().tolist() == [7, 8] and own.nonzero().flatten().tolist() == [8]


def test_frequency_and_presence_count_what_was_generated():
    ids, scores = torch.tensor([[7, 7, 7, 4, 5, 4, 4], [1, 1, 7, 3, 3, 9, 7]]), torch.randn(2, 10)
    counts = torch.zeros(2, 10)
    counts[0, 4], counts[0, 5], counts[1, 3], counts[1, 9], counts[1, 7] = 3, 1, 2, 1, 1
    assert torch.allclose(FrequencyPenaltyLogitsProcessor(0.3, 3)(ids, scores), scores - 0.3 * counts)
    assert torch.allclose(PresencePenaltyLogitsProcessor(0.3, 3)(ids, scores), scores - 0.3 * (counts > 0))
    assert torch.equal(FrequencyPenaltyLogitsProcessor(0.3, 7)(ids, scores), scores)


def test_breakers_are_all_tokens_that_contain_one(model):
    tokenizer = model.brain.tokenizer
    found = breaker_ids(tokenizer)
    assert {tokenizer.encode(text)[-1] for text in ("\n", ":", '"', "*", ' "')} <= set(found)
    for i in range(300):
        assert (i in found) == any(part in tokenizer.token_bytes(i) for part in (b"\n", b":", b'"', b"*"))


REPEATING = rows_of(6)[0] * 3
PENALTIES = {
    "dry_multiplier": 4.0,
    "dry_base": 1.5,
    "dry_allowed_length": 1,
    "dry_sequence_breakers": ["z"],
    "frequency_penalty": 0.4,
    "presence_penalty": 0.6,
}


def processors_of(model, mask):
    """Those of PENALTIES."""
    breakers = breaker_ids(model.brain.tokenizer, ["z"])
    return [
        DryLogitsProcessor(4.0, 1.5, 1, breakers, mask),
        FrequencyPenaltyLogitsProcessor(0.4, mask.shape[1]),
        PresencePenaltyLogitsProcessor(0.6, mask.shape[1]),
    ]


def test_arguments_of_generate_are_the_processors_and_rows_are_as_if_alone(model):
    rows = [REPEATING, rows_of(5)[0], [9]]
    ids, mask = padded(rows)
    together = model.generate(ids, attention_mask=mask, max_new_tokens=30, **PENALTIES)
    by_hand = model.generate(ids, attention_mask=mask, max_new_tokens=30, logits_processor=processors_of(model, mask))
    assert torch.equal(together, by_hand)
    for i, row in enumerate(rows):
        alone = model.generate(input_ids=torch.tensor([row]), max_new_tokens=30, **PENALTIES)[0, len(row) :]
        assert together[i, ids.shape[1] :].tolist() == alone.tolist()
    plain = model.generate(ids, attention_mask=mask, max_new_tokens=30)
    for name in ("dry_multiplier", "frequency_penalty", "presence_penalty"):
        some = {key: value for key, value in PENALTIES.items() if key.startswith(name[:3])}
        assert not torch.equal(model.generate(ids, attention_mask=mask, max_new_tokens=30, **some), plain), name
    assert model.generate(max_new_tokens=3, **PENALTIES).shape == (1, 4)


@torch.no_grad()
def test_beams_are_penalised_for_their_own_text(model):
    rows = [REPEATING, rows_of(5)[0]]
    ids, mask = padded(rows)
    # Beams avoid what is penalised; what rewards repeats shows in their scores.
    out = model.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=20,
        num_beams=3,
        num_return_sequences=3,
        length_penalty=0.0,
        return_dict_in_generate=True,
        output_scores=True,
        dry_multiplier=0.1,
        dry_base=1.1,
        frequency_penalty=-0.5,
        presence_penalty=-0.3,
    )
    assert out.sequences.unique(dim=0).shape[0] == 6
    parts = torch.zeros(3)
    for i, sequence in enumerate(out.sequences[:, ids.shape[1] :].tolist()):
        row = rows[i // 3]
        own = [
            DryLogitsProcessor(0.1, 1.1, 2, breaker_ids(model.brain.tokenizer)),
            FrequencyPenaltyLogitsProcessor(-0.5, len(row)),
            PresencePenaltyLogitsProcessor(-0.3, len(row)),
        ]
        p = torch.log_softmax(model(torch.tensor([row + sequence])).logits[0].float(), 1)
        score = 0.0
        for t, token in enumerate(sequence):
            now = p[len(row) + t - 1 : len(row) + t]
            score += now[0, token].item()
            for j, processor in enumerate(own):
                change = (processor(torch.tensor([row + sequence[:t]]), now) - now)[0, token].item()
                parts[j] += abs(change)
                score += change
        assert out.sequences_scores[i].item() == pytest.approx(score, abs=1e-3)
    assert (parts > 0.1).all(), "a processor did nothing"


# -- contrastive search -----------------------------------------------------------------------------------------------


@torch.no_grad()
def test_hidden_states_are_what_the_vocabulary_matrix_reads(model):
    ids, mask = padded(rows_of(40, 7))
    out = model(ids, attention_mask=mask, output_hidden_states=True, logits_to_keep=5)
    (hidden,) = out.hidden_states
    whole = model(ids, attention_mask=mask)
    assert hidden.shape == (2, 40, 32) and whole.get("hidden_states") is None
    assert torch.allclose(hidden @ model.brain.embedding.T, whole.logits, atol=1e-10)
    assert torch.equal(out.logits, whole.logits[:, -5:]) and not hidden[1, :33].any()
    written = model.generate(
        ids, attention_mask=mask, max_new_tokens=3, return_dict_in_generate=True, output_hidden_states=True
    )
    assert [tuple(step[0].shape) for step in written.hidden_states] == [(2, 40, 32), (2, 1, 32), (2, 1, 32)]
    assert torch.equal(written.hidden_states[0][0], hidden)


def test_without_a_penalty_contrastive_search_is_greedy(model):
    ids, mask = padded(rows_of(21, 3, 40, 1))
    greedy = model.generate(ids, attention_mask=mask, max_new_tokens=40)
    found = model.generate(ids, attention_mask=mask, max_new_tokens=40, penalty_alpha=0.0, top_k=5)
    assert torch.equal(found, greedy)
    options = PENALTIES | {"max_new_tokens": 40, "attention_mask": mask}
    assert torch.equal(model.generate(ids, penalty_alpha=0.0, **options), model.generate(ids, **options))


@torch.no_grad()
def contrastive_by_hand(model, row, most, alpha, k):
    """Every candidate's text from the start again, without a cache."""
    row, start = list(row), len(row)
    banned = model.generation_config.suppress_tokens
    while len(row) < start + most:
        logits = model(torch.tensor([row])).logits[0, -1].float()
        logits[banned] = -torch.inf
        p, candidates = torch.softmax(logits, 0).topk(k)
        values = []
        for i, token in enumerate(candidates.tolist()):
            hidden = model(torch.tensor([[*row, token]]), output_hidden_states=True).hidden_states[0][0]
            likeness = max(F.cosine_similarity(hidden[-1], before, 0).item() for before in hidden[:-1])
            values.append((1 - alpha) * p[i].item() - alpha * likeness)
        row.append(int(candidates[max(range(k), key=values.__getitem__)]))
    return row[start:]


@pytest.mark.parametrize(("alpha", "k"), [(0.6, 4), (0.05, 3)])
def test_contrastive_search_is_its_formula(model, alpha, k):
    rows = rows_of(10, 25, 14)
    ids, mask = padded(rows)
    found = model.generate(ids, attention_mask=mask, max_new_tokens=20, penalty_alpha=alpha, top_k=k)
    uncached = model.generate(
        ids, attention_mask=mask, max_new_tokens=20, penalty_alpha=alpha, top_k=k, use_cache=False
    )
    assert torch.equal(found, uncached)
    for i, row in enumerate(rows):
        assert found[i, 25:].tolist() == contrastive_by_hand(model, row, 20, alpha, k), i
    assert not torch.equal(found, model.generate(ids, attention_mask=mask, max_new_tokens=20))


def test_contrastive_search_gives_what_was_asked_for(model):
    class Streamer:
        def __init__(self):
            self.got, self.ended = [], False

        def put(self, ids):
            self.got += ids.flatten().tolist()

        def end(self):
            self.ended = True

    ids, streamer = torch.tensor(rows_of(20)), Streamer()
    out = model.generate(
        ids,
        max_new_tokens=30,
        penalty_alpha=0.4,
        streamer=streamer,
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
        output_hidden_states=True,
    )
    assert streamer.ended and streamer.got == out.sequences[0].tolist()
    assert len(out.scores) == len(out.logits) == 30 and out.scores[0].shape == (1, 300)
    assert out.scores[0][0, 1].isneginf() and out.logits[0][0, 1].isfinite()
    hidden = torch.cat([step[0] for step in out.hidden_states], 1)
    assert torch.allclose((hidden @ model.brain.embedding.T)[0, 19:], torch.cat(out.logits).double(), atol=1e-5)
    # The cache is where greedy search would leave it: it has seen all but the last token.
    cache = out[CACHE_NAME]
    assert cache.get_seq_length() == 49
    greedy = model.generate(out.sequences, max_new_tokens=10)
    assert torch.equal(model.generate(out.sequences, max_new_tokens=10, **{CACHE_NAME: copy.deepcopy(cache)}), greedy)
    onwards = model.generate(out.sequences, max_new_tokens=10, penalty_alpha=0.0, **{CACHE_NAME: cache})
    assert torch.equal(onwards, greedy) and cache.get_seq_length() == 59, "a given cache is advanced in place"
    stopped = model.generate(ids, max_new_tokens=30, penalty_alpha=0.4, eos_token_id=int(out.sequences[0, 25]))
    assert torch.equal(stopped, out.sequences[:, : stopped.shape[1]]) and stopped.shape[1] <= 26


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dry_multiplier": -1.0}, "DRY: got multiplier -1.0.*\nStart from 0.8"),
        ({"dry_multiplier": 1.0, "dry_base": 0.5}, "base 0.5"),
        ({"dry_multiplier": 1.0, "dry_allowed_length": 0}, "allowed_length 0"),
        ({"dry_multiplier": 1.0, "dry_sequence_breakers": [""]}, "empty sequence breaker.*\nGive strings"),
        ({"penalty_alpha": 1.5}, "penalty_alpha 1.5.*\nStart from penalty_alpha=0.6"),
        ({"penalty_alpha": 0.5, "top_k": 0}, "top_k 0"),
        ({"penalty_alpha": 0.5, "do_sample": True}, "do_sample True"),
        ({"penalty_alpha": 0.5, "num_beams": 2}, "num_beams 2"),
    ],
)
def test_wrong_settings_are_refused(model, options, message):
    with pytest.raises(UsageError, match=f"(?s){message}"):
        model.generate(torch.tensor([[4, 5, 6]]), max_new_tokens=2, **options)
