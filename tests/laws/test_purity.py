"""Law: looking changes nothing. Evaluation, scan, commit and observers leave weights, states and each other alone."""

from __future__ import annotations

import copy
import logging
import struct

import numpy as np
import pytest
import torch

from neuro import events
from neuro.brain import Brain
from neuro.session import Session
from neuro.state import clone, leaves
from neuro.train.loop import held_out_nats


def bits(x: float) -> bytes:
    return struct.pack("<d", x)


def snapshot(brain: Brain) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in brain.state_dict().items()} | {
        f"grad.{name}": p.grad.clone() for name, p in brain.named_parameters() if p.grad is not None
    }


def assert_same(before, after) -> None:
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_evaluation_twice_gives_the_same_bits_and_changes_nothing(toggles, training, tiny_brain, drive, tokens):
    brain = tiny_brain(toggles).train(training)
    out = brain.scan(tokens(2, 16), brain.init_state(2))
    out.aux.surprise.sum().backward()
    state, text = clone(out.state), np.random.default_rng(0).integers(0, 300, 700).astype(np.int32)
    kept, before, random = clone(state), snapshot(brain), torch.get_rng_state()
    first, text_before = held_out_nats(brain, text, 640), text.copy()
    second = held_out_nats(brain, text, 640)
    assert bits(first) == bits(second)
    assert_same(before, snapshot(brain))
    assert_same(dict(leaves(kept)), dict(leaves(state)))
    assert np.array_equal(text, text_before)
    assert torch.equal(random, torch.get_rng_state())
    assert brain.training is training
    # and it measures the brain, not a constant
    with torch.no_grad():
        brain.regions["readout"].norm.weight.mul_(1.5)
    assert held_out_nats(brain, text, 640) != first


def test_evaluation_restores_the_mode_when_it_fails(tiny_brain):
    brain = tiny_brain().train()
    with pytest.raises(Exception, match="expected 0..299"):
        held_out_nats(brain, np.full(64, 5000), 64)
    assert brain.training


def test_evaluation_agrees_with_a_plain_loop(tiny_brain, drive):
    brain = tiny_brain()
    text = np.random.default_rng(1).integers(0, 300, 700).astype(np.int32)
    rows = torch.from_numpy(text[:640].astype(np.int64)).reshape(8, 80)
    trace = drive(brain, rows)
    nats = torch.nn.functional.cross_entropy(trace.logits[:, :-1].flatten(0, 1), rows[:, 1:].flatten())
    assert held_out_nats(brain, text, 640) == pytest.approx(float(nats), abs=1e-5)


def test_few_evaluation_tokens_are_used_as_far_as_they_go(tiny_brain):
    """``eval_tokens`` below 16 is not 'a validation text with fewer than two tokens'."""
    text = np.random.default_rng(1).integers(0, 300, 700)
    assert 4 < held_out_nats(tiny_brain(), text, 6) < 9


@pytest.mark.parametrize("grad", [True, False], ids=["train", "no_grad"])
def test_scan_step_and_commit_do_not_touch_their_inputs(toggles, grad, tiny_brain, drive, tokens):
    brain = tiny_brain(toggles)
    state = drive(brain, tokens(2, 39, seed=4)).state
    kept, before = clone(state), snapshot(brain)
    ids, prosody, valid = tokens(2, 9), torch.randn(2, 9, 3), torch.ones(2, 9)
    copies = ids.clone(), prosody.clone(), valid.clone()
    with torch.set_grad_enabled(grad):
        first = brain.scan(ids, state, prosody, valid)
        second = brain.scan(ids, state, prosody, valid)
        stepped = brain.step(ids[:, 0], state, prosody[:, 0])
        after = clone(first.state)
        one, _ = brain.commit(first.state)
        two, _ = brain.commit(first.state)
    assert torch.equal(first.logits, second.logits)
    assert_same(dict(leaves(kept)), dict(leaves(state)))
    assert_same(dict(leaves(after)), dict(leaves(first.state)))
    assert_same(dict(leaves(one)), dict(leaves(two)))
    assert all(torch.equal(a, b) for a, b in zip((ids, prosody, valid), copies, strict=True))
    assert_same(before, snapshot(brain))
    assert not torch.equal(stepped.logits, first.logits[:, -1])


def test_the_module_holds_no_state(tiny_brain, drive, tokens):
    """Two streams in turn through one brain, and a copied brain, give what each gives alone."""
    brain = tiny_brain()
    twin = copy.deepcopy(brain)
    mine, other = tokens(1, 60, seed=1), tokens(1, 60, seed=2)
    alone = drive(twin, mine).logits
    a = b = brain.init_state(1)
    found = []
    with torch.no_grad():
        for t in range(60):
            out = brain.step(mine[:, t], a)
            found.append(out.logits)
            a = brain.commit(out.state)[0] if brain.remaining(out.state) == 0 else out.state
            b = brain.step(other[:, t], b).state
            b = brain.commit(b)[0] if brain.remaining(b) == 0 else b
    assert (torch.stack(found, 1) - alone).abs().max() < 1e-4
    assert set(dict(brain.named_buffers())) == set(dict(twin.named_buffers()))


class Listener:
    def __init__(self) -> None:
        self.heard: list[tuple[list[events.Events], events.CommitEvents]] = []

    def span(self, span, commit) -> None:
        self.heard.append((list(span), commit))


class Vandal:
    """Writes over everything it is shown."""

    def span(self, span, commit) -> None:
        for record in (*span, commit):
            for tensor in record:
                if tensor is not None:
                    tensor.fill_(7)


def feed(brain: Brain, ids: torch.Tensor, observers: list) -> tuple[torch.Tensor, Session]:
    session = Session(brain, batch=ids.shape[0], observers=observers)
    logits = [session.feed(part, keep_logits=True) for part in ids.split(7, 1)]
    session.commit()
    return torch.cat(logits, 1), session


def test_observers_change_nothing(toggles, tiny_brain, tokens):
    spiking = not {"cortex.feedforwards=dense,dense", "cortex.enabled=false"} & set(toggles)
    brain, ids, listener = tiny_brain(toggles, record_raster=spiking), tokens(2, 60), Listener()
    logits, session = feed(brain, ids, [])
    for observers in ([listener], [Vandal()], [Vandal(), Listener()]):
        other, watched = feed(brain, ids, observers)
        assert torch.equal(logits, other)
        assert_same(dict(leaves(session.state)), dict(leaves(watched.state)))
    assert len(listener.heard) == 4


def test_an_observer_does_not_spoil_what_the_next_one_sees(tiny_brain, tokens):
    brain, ids, first, last = tiny_brain(), tokens(2, 40), Listener(), Listener()
    feed(brain, ids, [first, Vandal(), last])
    for (early, early_commit), (late, late_commit) in zip(first.heard, last.heard, strict=True):
        for a, b in zip((*early, early_commit), (*late, late_commit), strict=True):
            assert all(x is y is None or torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_events_are_detached_and_of_the_declared_shapes(tiny_brain, tokens):
    brain = tiny_brain(record_raster=True, record_membrane=True)
    out = brain.scan(tokens(2, 5), brain.init_state(2))
    shapes = {name: list(x.shape) for name, x in out.events._asdict().items()}
    assert shapes == {
        "spikes": [2, 5, 1], "route": [2, 5, 2], "affect": [2, 5, 2], "salience": [2, 5], "novelty": [2, 5],
        "recall_gate": [2, 5], "surprise": [2, 5], "valid": [2, 5], "raster": [2, 5, 1, 48],
        "membrane": [2, 5, 1, 48],
    }  # fmt: skip
    assert out.logits.requires_grad
    assert not any(x.requires_grad for x in out.events)
    assert not any(x.requires_grad for x in brain.commit(out.state)[1])
    assert torch.equal(out.events.raster.sum(-1).long(), out.events.spikes)


def test_an_observers_error_is_logged_and_raised(tiny_brain, tokens, caplog):
    class Broken:
        def span(self, span, commit) -> None:
            raise RuntimeError("no disk left")

    session = Session(tiny_brain(), observers=[Broken()])
    with caplog.at_level(logging.ERROR, "neuro.events"), pytest.raises(RuntimeError, match="no disk left"):
        session.feed(tokens(1, 16))
    assert "observer Broken failed" in caplog.text
    assert "no disk left" in caplog.text


def test_an_observer_hears_every_token_once(tiny_brain, tokens):
    brain, ids, listener = tiny_brain(), tokens(2, 45), Listener()
    feed(brain, ids, [listener])
    assert sum(e.valid.shape[1] for span, _ in listener.heard for e in span) == 45
    assert [int(commit.tokens) for _, commit in listener.heard] == [16, 16, 13]
