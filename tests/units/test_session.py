"""Session: boundaries commit, the state is explicit, generation equals recomputation."""

from __future__ import annotations

import gc

import pytest
import torch

from neuro import accounting, presets
from neuro.brain import Brain
from neuro.errors import UsageError
from neuro.sampling import Sampler
from neuro.session import Session
from neuro.state import leaves


@pytest.fixture
def brain() -> Brain:
    torch.manual_seed(0)
    return Brain(presets.tiny().brain).eval()


def ids(count: int) -> torch.Tensor:
    return torch.randint(0, 300, (1, count), generator=torch.Generator().manual_seed(2))


def test_feeding_at_once_equals_feeding_in_pieces(brain):
    whole, pieces = Session(brain), Session(brain)
    tokens = ids(45)
    last = whole.feed(tokens)
    for part in tokens.split(7, 1):
        other = pieces.feed(part)
    assert torch.allclose(last, other, atol=1e-5)
    for (name, x), (_, y) in zip(leaves(whole.state), leaves(pieces.state), strict=True):
        assert torch.allclose(x, y, atol=1e-5), name


def test_generation_equals_recomputation_from_the_start(brain):
    session, prompt = Session(brain), ids(20)
    session.feed(prompt)
    written = list(session.generate(Sampler(temperature=0.0), 30))
    text = prompt
    for token in written:
        assert int(Session(brain).feed(text)[0].argmax()) == token
        text = torch.cat([text, torch.tensor([[token]])], 1)


def test_a_long_prompt_keeps_the_state_the_same_size(brain):
    session = Session(brain)
    before = [tuple(x.shape) for _, x in leaves(session.state)]
    session.feed(ids(2000))
    assert [tuple(x.shape) for _, x in leaves(session.state)] == before
    assert all(torch.isfinite(x).all() for _, x in leaves(session.state) if x.is_floating_point())


def test_nothing_is_kept_per_token_beyond_a_span(brain):
    """However long the text, a session with a counter holds the same tensors, of the same bytes."""
    session = Session(brain, observers=[accounting.Tally(brain)])

    def held() -> tuple[int, int]:
        gc.collect()
        tensors = [x for x in gc.get_objects() if issubclass(type(x), torch.Tensor)]
        return len(tensors), sum(x.untyped_storage().nbytes() for x in tensors)

    sizes, text = [], ids(16 * 600)  # the same text each time: only what is fed differs
    for spans in (2, 8, 600):
        session.feed(text[:, : 16 * spans])
        sizes.append(held())
    assert sizes[0] == sizes[1] == sizes[2]


def test_snapshot_and_restore_continue_the_same(brain):
    session = Session(brain)
    session.feed(ids(21))
    kept = session.snapshot()
    first = session.feed(ids(9))
    session.state = kept
    assert torch.equal(session.feed(ids(9)), first)


def test_events_are_delivered_once_per_span(brain):
    seen = []

    class Observer:
        def span(self, events, commit):
            seen.append((sum(event.valid.shape[1] for event in events), int(commit.tokens)))

    session = Session(brain, observers=[Observer()])
    session.feed(ids(40))
    session.commit()
    assert seen == [(16, 16), (16, 16), (8, 8)]


def test_sampling_never_takes_a_banned_token_and_repeats_with_its_seed():
    logits = torch.tensor([5.0, 1.0, 0.5, 0.2])
    draws = [Sampler(1.0, 1.0, banned=(0,), seed=4)(logits) for _ in range(3)]
    sampler = Sampler(1.0, 1.0, banned=(0,), seed=4)
    assert 0 not in {sampler(logits) for _ in range(200)}
    assert len(set(draws)) == 1
    assert Sampler(0.0, banned=(0,))(logits) == 1


def test_the_nucleus_keeps_the_smallest_sufficient_set():
    logits = torch.log(torch.tensor([0.6, 0.3, 0.1]))
    sampler = Sampler(1.0, 0.7, seed=0)
    assert {sampler(logits) for _ in range(300)} == {0, 1}


@pytest.mark.parametrize("options", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_bad_sampling_options_are_refused(options):
    with pytest.raises(UsageError, match="expected"):
        Sampler(**options)


def test_empty_input_and_batches_are_refused(brain):
    with pytest.raises(UsageError, match="at least 1"):
        Session(brain).feed(torch.zeros(1, 0, dtype=torch.int64))
    with pytest.raises(UsageError, match="one stream"):
        next(Session(brain, batch=2).generate(Sampler(), 1))
