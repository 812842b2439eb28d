"""Law: what was committed is used, and only that. Episodic writes, decay, eviction, hormones and the span buffer."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from backends import native, portable, reference
from neuro import presets
from neuro.config import HORMONES
from neuro.evaluate.arms import with_memories_of, without_memory
from neuro.memory import contents
from neuro.memory.episodic import EpisodicMemory, Pairs
from neuro.memory.place_cells import PlaceCells, kth_largest
from neuro.state import HippocampusState, SpanBuffer, clone, leaves, tree_map
from neuro.train import objective

TABLES = {"native": native.OPS, "portable": portable.OPS, "reference": reference.OPS}


@pytest.fixture(params=list(TABLES))
def ops(request):
    return TABLES[request.param]


def hippocampus(state):
    return state.regions.hippocampus


def with_memory(state, **fields: Tensor):
    return state._replace(regions=state.regions._replace(hippocampus=hippocampus(state)._replace(**fields)))


def same_leaves(a, b, skip: tuple[str, ...] = ()) -> None:
    for (name, x), (_, y) in zip(leaves(a), leaves(b), strict=True):
        assert name in skip or torch.equal(x, y), name


# Whole brain: a fact, a commit, a cue.


@pytest.fixture
def after_fact(tiny_brain, tokens):
    """A brain, the state after a committed fact of 12 tokens and 20 spans of other text, and the fact."""
    brain, fact = tiny_brain(["hippocampus.slots=400"]), tokens(2, 12, seed=42)
    state = brain.init_state(2)
    with torch.no_grad():
        state = brain.commit(brain.scan(fact, state).state)[0]
        for seed in range(20):
            state = brain.commit(brain.scan(tokens(2, 16, seed), state).state)[0]
    return brain, state, fact


def cue(brain, state, fact) -> Tensor:
    with torch.no_grad():
        return brain.scan(fact[:, :6], state).logits


def test_real_memory_changes_logits_and_off_does_not(after_fact, measured):
    brain, state, fact = after_fact
    real, off = cue(brain, state, fact), cue(brain, without_memory(state), fact)
    measured("logit_difference", float((real - off).abs().max()))
    assert float((real - off).abs().max()) > 0.05
    # OFF is the same whatever the emptied slots hold, and whatever was in them: nothing leaks past strength 0.
    other = with_memory(state, keys=torch.randn_like(hippocampus(state).keys), values=torch.full((2, 400, 32), 9.0))
    assert torch.equal(off, cue(brain, without_memory(other), fact))
    assert not torch.equal(real, cue(brain, other, fact))


def test_off_equals_a_brain_that_never_stored(tiny_brain, drive, tokens):
    """Emptied after every commit, a brain is the one without memories: plasticity off is the core model."""
    brain, ids = tiny_brain(["endocrine.enabled=false"]), tokens(2, 64)
    core = tiny_brain(["endocrine.enabled=false", "hippocampus.enabled=false", "procedural.enabled=false"])
    core.load_state_dict({name: x for name, x in brain.state_dict().items() if name in core.state_dict()})
    expected, state = drive(core, ids).logits, brain.init_state(2)
    with torch.no_grad():
        for at in range(0, 64, 16):
            out = brain.scan(ids[:, at : at + 16], state)
            assert torch.equal(out.logits, expected[:, at : at + 16])
            state = without_memory(brain.commit(out.state)[0])
    assert not torch.equal(drive(brain, ids).logits, expected)


def test_a_committed_pair_is_recalled_by_its_own_context(after_fact):
    """The best match of a key that was stored is the slot that holds it, and what it holds is the token that followed."""
    brain, state, fact = after_fact
    memory, region = hippocampus(state), brain.regions["hippocampus"]
    with torch.no_grad():
        buffer = brain.scan(fact, brain.init_state(2)).state.buffer
        for t in range(1, 12):
            cosine = memory.keys @ buffer.keys[:, t].unsqueeze(-1)
            best = cosine.squeeze(-1).argmax(1)
            assert torch.allclose(cosine.squeeze(-1).amax(1), torch.ones(2), atol=1e-4)
            relay = brain.embedding[fact[:, t]] * 32**0.5
            gate = brain.regions["thalamus"].scan(
                {"embedding": relay.unsqueeze(1), "modulators~": torch.full((2, 5), 0.5)}, ()
            )[0]["relay"]
            expected = region.value(gate[:, 0])
            assert torch.allclose(memory.values[torch.arange(2), best], expected, atol=1e-4)


def test_nothing_is_recalled_before_the_commit(tiny_brain, tokens):
    """The span buffer is not memory: slots, strengths and held channels move at the commit alone."""
    brain, state = tiny_brain(), tiny_brain().init_state(2)
    out = brain.scan(tokens(2, 16), state)
    for name in ("keys", "values", "strengths"):
        assert torch.equal(getattr(hippocampus(out.state), name), getattr(hippocampus(state), name))
    same_leaves(out.state.held, state.held)
    same_leaves(out.state.regions.endocrine, state.regions.endocrine)
    after, events = brain.commit(out.state)
    assert (events.writes > 0).all() and torch.equal(events.writes, events.filled)
    assert torch.equal((hippocampus(after).strengths > 0).sum(1), events.filled)


def test_the_first_token_of_a_stream_makes_no_pair_and_the_first_of_a_later_span_does(tiny_brain, tokens):
    brain = tiny_brain()
    first = brain.scan(tokens(1, 16), brain.init_state(1))
    assert first.state.buffer.candidate[0].tolist() == [0.0] + [1.0] * 15
    second = brain.scan(tokens(1, 16, 1), brain.commit(first.state)[0])
    assert second.state.buffer.candidate[0].tolist() == [1.0] * 16
    with torch.no_grad():  # its key is that of the last token of the span before
        assert torch.equal(second.state.buffer.keys[:, 0], hippocampus(first.state).last_key)


def test_a_pair_is_the_context_before_and_the_token_that_followed(tiny_brain, tokens):
    """The key at t is made from the tokens up to t-1: what a cue of those tokens asks with."""
    brain, ids = tiny_brain(), tokens(2, 12)
    with torch.no_grad():
        whole = brain.scan(ids, brain.init_state(2)).state.buffer
        for t in (1, 5, 11):
            asked = hippocampus(brain.scan(ids[:, :t], brain.init_state(2)).state).last_key
            assert torch.allclose(whole.keys[:, t], asked, atol=1e-6)
            other = ids.clone()
            other[:, t] = (ids[:, t] + 1) % 300
            found = brain.scan(other, brain.init_state(2)).state.buffer
            assert torch.allclose(whole.keys[:, t], found.keys[:, t], atol=1e-6)
            assert not torch.allclose(whole.values[:, t], found.values[:, t], atol=1e-2)


def test_an_empty_commit_is_the_identity(toggles, tiny_brain, drive, tokens):
    """Fresh, and with filled memory; bit for bit, also in training mode."""
    brain = tiny_brain(toggles)
    filled = drive(brain, tokens(2, 48)).state
    odd = tree_map(
        lambda x: x if x.dim() != 2 or x.shape[1] != 5 else 0.01 * torch.rand_like(x), filled
    )  # hormones too
    for state in (brain.init_state(2), filled, odd):
        assert int(state.clock) == 0
        after, events = brain.commit(state)
        same_leaves(after, state)
        assert int(events.tokens) == 0 and not events.writes.any() and not events.evictions.any()


def test_a_commit_empties_the_buffer_and_the_clock_and_nothing_else_of_the_activity(toggles, tiny_brain, tokens):
    brain = tiny_brain(toggles)
    out = brain.scan(tokens(2, 11), brain.init_state(2))
    assert int(out.state.clock) == 11 and brain.remaining(out.state) == 5
    after, events = brain.commit(out.state)
    assert int(after.clock) == 0 and int(events.tokens) == 11
    assert not any(x.any() for _, x in leaves(after.buffer))
    same_leaves(after.regions.cortex, out.state.regions.cortex, skip=("procedural.fast", "procedural.last_step"))
    same_leaves(after.regions.amygdala, out.state.regions.amygdala)
    assert torch.equal(after.logits, out.state.logits)


def test_the_buffer_holds_what_happened_and_zero_beyond_the_clock(tiny_brain, drive, tokens):
    brain, ids = tiny_brain(), tokens(2, 11)
    trace = drive(brain, ids, pieces=[4, 1, 3])
    buffer = trace.state.buffer
    for name in ("salience", "novelty", "affect", "surprise", "valid"):
        assert torch.equal(getattr(buffer, name)[:, :11], trace.events[name])
        assert not getattr(buffer, name)[:, 11:].any()
    assert all(not x[:, 11:].any() for _, x in leaves(buffer))
    assert torch.allclose(buffer.spike_rate[:, :11], trace.spikes.float().mean(-1) / 48)


def test_held_channels_are_the_means_over_the_tokens_of_the_span(tiny_brain, drive, tokens):
    brain = tiny_brain()
    trace = drive(brain, tokens(2, 27), commits=[5, 16, 27])  # spans of 5, 11 and 11 tokens
    last = slice(16, 27)
    for name in ("affect", "surprise", "novelty"):
        assert torch.allclose(getattr(trace.state.held, name), trace.events[name][:, last].mean(1), atol=1e-6), name
    assert torch.allclose(trace.state.held.spike_rate, trace.spikes[:, last].float().mean((1, 2)) / 48)


def test_surprise_is_the_loss_of_each_token_under_the_logits_before_it(tiny_brain, drive, tokens):
    """Across scans and commits; the very first token is predicted by nothing and costs nothing."""
    brain, ids = tiny_brain(), tokens(2, 40)
    trace = drive(brain, ids, pieces=[3, 7])
    nats = -trace.logits.log_softmax(-1)[:, :-1].gather(2, ids[:, 1:, None]).squeeze(-1)
    assert torch.allclose(trace.surprise[:, 1:], nats, atol=1e-5)
    assert not trace.surprise[:, 0].any()


def test_the_most_salient_and_novel_pairs_are_written_as_strong_as_dopamine_makes_them(tiny_brain, drive, tokens):
    """Three of a span: the first by salience (0.05 + novelty), with strength salience (0.5 + dopamine)."""
    brain = tiny_brain(["hippocampus.writes_per_span=3", "hippocampus.controller=learned"], dtype=torch.float64)
    orders = set()
    for seed in range(6):
        state, ids = drive(brain, tokens(1, 48, seed)).state, tokens(1, 48, seed)
        with torch.no_grad():
            before = brain.scan(torch.cat([ids[:, 40:], tokens(1, 8, seed + 50)], 1), state).state  # half is not new
            after, events = brain.commit(before)
        b, memory = before.buffer, hippocampus(after)
        best = sorted(range(16), key=lambda t: -float(b.salience[0, t] * (0.05 + b.novelty[0, t])))[:3]
        orders.add(tuple(best) == tuple(sorted(range(16), key=lambda t: -float(b.salience[0, t]))[:3]))
        places = [int((memory.keys[0] == b.keys[0, t]).all(1).nonzero()) for t in best]
        dopamine = float(events.modulators[0, HORMONES.index("dopamine")])
        expected = [float(b.salience[0, t]) * (0.5 + dopamine) for t in best]
        assert memory.strengths[0, places].tolist() == pytest.approx(expected, abs=1e-12)
        assert torch.equal(memory.values[0, places], b.values[0, best]) and int(events.writes) == 3
    assert False in orders  # somewhere novelty decided


# Hormones.


def test_hormones_equal_the_formula(tiny_brain, drive, tokens):
    """x <- b + (x - b) 2^(-n / half_life), by hand, in plain numbers, for spans of 16, 3 and 10 tokens."""
    brain = tiny_brain(dtype=torch.float64)
    level, lives = brain.regions["endocrine"].level.requires_grad_(False), brain.config.endocrine.half_lives_tokens
    trace = drive(brain, tokens(1, 29), commits=[16, 19, 29])
    x, at = [0.5] * 5, 0
    for commit, n in zip(trace.commits, (16, 3, 10), strict=True):
        part = slice(at, at + n)
        at += n
        valence, arousal = trace.events["affect"][0, part].mean(0).tolist()
        surprise, novelty = (float(trace.events[name][0, part].mean()) for name in ("surprise", "novelty"))
        rate = float(trace.spikes[0, part].double().mean()) / 48
        f = [valence, arousal, math.tanh(surprise / 5), novelty, rate]
        for h in range(5):
            z = sum(w * v for w, v in zip(level.weight[h].tolist(), f, strict=True)) + float(level.bias[h])
            b = 1 / (1 + math.exp(-z))
            x[h] = b + (x[h] - b) * 2 ** (-n / lives[h])
        assert commit.modulators[0].tolist() == pytest.approx(x, abs=1e-12)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_hormones_stay_inside_zero_and_one(scale, tiny_brain, drive, tokens):
    brain = tiny_brain(["endocrine.half_lives_tokens=0.5,32,128,1024,1e9"])
    with torch.no_grad():
        brain.regions["endocrine"].level.weight.mul_(scale)
        brain.regions["endocrine"].level.bias.mul_(scale)
    trace = drive(brain, tokens(2, 320))
    levels = torch.stack([commit.modulators for commit in trace.commits])
    assert ((levels >= 0) & (levels <= 1)).all()
    assert scale > 1 or ((levels > 0) & (levels < 1)).all()  # a steep sigmoid rounds to 1
    assert scale != 1 or levels.std(0).amax() > 1e-3  # they do move
    assert levels.shape == (20, 2, len(HORMONES))


def test_decay_uses_the_tokens_of_the_span_not_the_configured_length(tiny_brain, tokens):
    """5 tokens age a slot by 5 tokens; two spans of 5 age as one of 10."""
    brain = tiny_brain(["hippocampus.half_life_tokens=10", "endocrine.enabled=false"], dtype=torch.float64)
    start = with_memory(brain.init_state(1), strengths=torch.full((1, 32), 0.8, dtype=torch.float64))
    with torch.no_grad():
        once = brain.commit(brain.scan(tokens(1, 10), start).state)[0]
        half = brain.commit(brain.scan(tokens(1, 5), start).state)[0]
        twice = brain.commit(brain.scan(tokens(1, 5, 1), half).state)[0]
    untouched = hippocampus(once).strengths[0].topk(32 - 9).values  # 9 pairs were written over others
    assert 0.8 * 2 ** (-10 / 10) in [pytest.approx(float(s), abs=1e-12) for s in untouched]
    assert float((hippocampus(half).strengths - 0.8 * 2**-0.5).abs().min()) < 1e-12
    assert float((hippocampus(twice).strengths - 0.8 * 2**-1.0).abs().min()) < 1e-12


# The memory alone, against a plain loop.


def make_memory(ops, writes: int = 3, half_life: float = 4.0) -> EpisodicMemory:
    memory = EpisodicMemory(width=5, top_k=2, writes=writes, half_life_tokens=half_life, ops=ops)
    return memory.double().requires_grad_(False)


def stored(keys: Tensor, values: Tensor, strengths: Tensor, origins: Tensor) -> HippocampusState:
    """The slots of a stream, and nothing else of it."""
    none = torch.zeros(keys.shape[0]).double()
    return HippocampusState(keys, values, strengths, origins, none, keys[:, 0], none, values[:, 0], none)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_unfilled_slots_first_then_the_lowest_strength(ops):
    memory = make_memory(ops)
    strengths = torch.tensor([[0.5, 0.0, 0.9, 0.2, 0.0, 0.3]], dtype=torch.float64)
    keys, values = draw(1, 6, 4), draw(1, 6, 5)
    origins = draw(1, 6, seed=5)
    pairs = Pairs(draw(1, 4, 4, seed=1), draw(1, 4, 5, seed=2), torch.full((1, 4), 0.75).double(),
                  torch.arange(10.0, 14.0).double().unsqueeze(0), torch.tensor([[0.1, 0.4, 0.0, 0.3]]).double())  # fmt: skip
    after, writes, evictions = memory.write(stored(keys, values, strengths, origins), pairs, torch.tensor([4.0]))
    new_keys, new_values, new_strengths, new_origins = after[:4]
    assert (int(writes), int(evictions)) == (3, 1)
    assert new_strengths[0, [0, 2, 5]].tolist() == pytest.approx([0.25, 0.45, 0.15])  # halved, kept
    assert new_strengths[0, [1, 3, 4]].tolist() == [0.75] * 3  # the two empty ones and the weakest
    # Every written pair lies in exactly one slot, whole, and every other slot is as it was, bit for bit.
    for pair in (0, 1, 3):
        places = [m for m in range(6) if torch.equal(new_keys[0, m], pairs.keys[0, pair])]
        assert len(places) == 1 and places[0] in (1, 3, 4)
        assert torch.equal(new_values[0, places[0]], pairs.values[0, pair])
        assert float(new_origins[0, places[0]]) == 10 + pair
    assert {0, 2, 5} == {m for m in range(6) if torch.equal(new_keys[0, m], keys[0, m])}
    assert torch.equal(new_values[0, [0, 2, 5]], values[0, [0, 2, 5]])
    assert torch.equal(new_origins[0, [0, 2, 5]], origins[0, [0, 2, 5]])
    # The strongest candidate takes the emptiest place: the evicted slot goes to the weakest of the three.
    assert torch.equal(new_keys[0, 3], pairs.keys[0, 0])


def test_pairs_of_no_priority_are_never_written(ops):
    memory = make_memory(ops)
    keys, values, strengths = draw(2, 6, 4), draw(2, 6, 5), draw(2, 6)
    store = (keys, values, strengths, draw(2, 6, seed=5))
    rows = (draw(2, 4, 4, seed=1), draw(2, 4, 5, seed=2), draw(2, 4, seed=3), draw(2, 4, seed=4))
    after, writes, evictions = memory.write(stored(*store), Pairs(*rows, torch.zeros(2, 4).double()), torch.zeros(2))
    assert all(torch.equal(a, b) for a, b in zip(after[:4], store, strict=True))
    assert not writes.any() and not evictions.any()


@pytest.mark.parametrize("seed", range(5))
def test_many_commits_equal_a_plain_list(ops, seed):
    """Decay, choice, placing and eviction over 12 commits of a small memory, against Python lists."""
    memory, generator = make_memory(ops, writes=3), torch.Generator().manual_seed(seed)
    store = stored(*(torch.zeros(1, 7, *width).double() for width in ((4,), (5,), (), ())))
    plain: list[tuple[float, float]] = []  # (strength, first number of the key)
    for _ in range(12):
        n = int(torch.randint(1, 6, (), generator=generator))
        widths = ((4,), (5,), (), (), ())
        pairs = Pairs(*(torch.rand(1, 5, *w, dtype=torch.float64, generator=generator) for w in widths))
        pairs = pairs._replace(priority=pairs.priority * (torch.arange(5) < n))
        store, writes, evictions = memory.write(store, pairs, torch.tensor([n]))
        keys, strengths = store.keys, store.strengths
        plain = sorted((s * 2 ** (-n / 4.0), k) for s, k in plain)
        chosen = sorted(range(n), key=lambda p: -float(pairs.priority[0, p]))[:3]
        evicted = max(0, len(plain) + len(chosen) - 7)
        plain = plain[evicted:] + [(float(pairs.strengths[0, p]), float(pairs.keys[0, p, 0])) for p in chosen]
        assert (int(writes), int(evictions)) == (len(chosen), evicted)
        filled = strengths[0] > 0
        found = sorted(zip(strengths[0, filled].tolist(), keys[0, filled, 0].tolist(), strict=True))
        assert [x for pair in found for x in pair] == pytest.approx([x for pair in sorted(plain) for x in pair])
    assert len(plain) == 7


def test_read_equals_the_formula(ops):
    """Softmax over the two best filled slots and a null slot that trust makes smaller, in plain numbers."""
    memory = make_memory(ops)
    with torch.no_grad():
        memory.null.weight.copy_(draw(1, 5, seed=9))
        memory.log_age.fill_(-0.5)
    query, hidden = torch.nn.functional.normalize(draw(1, 1, 4, seed=1) - 0.5, dim=-1), draw(1, 1, 5, seed=2)
    keys, values = torch.nn.functional.normalize(draw(1, 6, 4, seed=3) - 0.5, dim=-1), draw(1, 6, 5, seed=4)
    strengths = torch.tensor([[0.9, 0.0, 0.4, 0.2, 0.0, 0.7]], dtype=torch.float64)
    content, evidence, novelty, _ = memory.read(query, keys, values, strengths)
    recall = content * memory.gate(evidence, hidden, torch.full((1, 1), 0.3).double()).unsqueeze(-1)
    cosine = {m: float(keys[0, m] @ query[0, 0]) for m in (0, 2, 3, 5)}
    best = sorted(cosine, key=lambda m: -cosine[m])[:2]
    scale, age = math.exp(float(memory.log_scale)), math.exp(-0.5)
    scores = [scale * cosine[m] + age * math.log(float(strengths[0, m])) for m in best]
    scores.append(float(memory.null(hidden)) - 0.3 * math.exp(float(memory.log_trust)))
    total = sum(math.exp(s) for s in scores)
    expected = sum(math.exp(s) / total * values[0, m] for s, m in zip(scores, best, strict=False))
    assert torch.allclose(recall[0, 0], expected, atol=1e-12)
    assert float(novelty) == pytest.approx(1 - max(0.0, max(cosine.values())), abs=1e-12)


def test_an_empty_memory_recalls_exactly_nothing_and_all_is_novel(ops):
    memory = make_memory(ops)
    content, evidence, novelty, _ = memory.read(draw(2, 3, 4), draw(2, 6, 4), draw(2, 6, 5), torch.zeros(2, 6).double())
    assert not content.any() and torch.equal(novelty, torch.ones(2, 3).double())
    assert not memory.gate(evidence, draw(2, 3, 5), torch.ones(2, 3).double()).any()


def test_place_cells_keep_the_share_that_is_asked_for():
    torch.manual_seed(0)
    cells = PlaceCells(16, 200, 0.05, portable.OPS).requires_grad_(False)
    activity = cells(torch.randn(3, 40, 16))
    assert torch.equal((activity > 0).sum(-1), torch.full((3, 40), 10))
    assert 0 <= float(activity.min()) and float(activity.max()) <= 1
    z = cells.project(torch.randn(3, 40, 16))
    assert torch.equal(kth_largest(z, 10).squeeze(-1), z.sort(-1, descending=True).values[..., 9])
    assert PlaceCells(16, 4, 0.01, portable.OPS).active == 1


def test_the_buffer_is_what_a_graph_carries(tiny_brain):
    """Fixed shapes, NamedTuples all the way, and a clone that shares nothing."""
    brain = tiny_brain()
    state = brain.init_state(3)
    assert isinstance(state.buffer, SpanBuffer)
    names = [name for name, _ in leaves(state)]
    assert len(names) == len(set(names)) and "regions.hippocampus.strengths" in names
    copy = clone(state)
    places = [{x.data_ptr() for _, x in leaves(tree) if x.numel()} for tree in (state, copy)]
    assert not places[0] & places[1]


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9, 1.0])
def test_memory_dropout_takes_each_memory_from_that_share_of_the_streams(share, tiny_brain, tokens):
    brain, t = tiny_brain(), dataclasses.replace(presets.tiny().train, memory_dropout=share)
    state = objective.window_loss(brain, tokens(8, 32), brain.init_state(8), t).state
    episodic = hippocampus(state).strengths.any(1)
    procedural = state.regions.cortex.procedural.fast.flatten(1).any(1)
    gone = round(share * 8)
    assert int((~episodic).sum()) == int((~procedural).sum()) == gone
    assert int((~episodic & ~procedural).sum()) >= gone // 2


def test_a_fresh_stream_with_the_memories_of_another_has_nothing_else_of_it(tiny_brain, drive, tokens):
    brain = tiny_brain(["procedural.rule=delta"])
    lived, fresh = drive(brain, tokens(2, 40)).state, brain.init_state(2)
    mixed = dict(leaves(with_memories_of(fresh, lived)))
    memories = [f"regions.hippocampus.{name}" for name in contents.EPISODIC]
    memories += [f"regions.cortex.procedural.{name}" for name in contents.PROCEDURAL]
    for (name, old), (_, new) in zip(leaves(fresh), leaves(lived), strict=True):
        assert torch.equal(mixed[name], new if name in memories else old), name
    assert all(mixed[name].any() for name in memories)
