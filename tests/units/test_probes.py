"""Questions to a stream: asked on forks, answered by the memories that the arm keeps, summed over episodes and seeds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from neuro import presets
from neuro.brain import Brain
from neuro.config import apply_sets
from neuro.errors import UsageError
from neuro.evaluate import arms, dialogue, dissociation, habit, probes, profile, statistics, templates
from neuro.evaluate.probes import Answer, Step
from neuro.evaluate.stream import Stream
from neuro.session import Session
from neuro.tokenizer import Tokenizer

TEXT = "The keeper of the lamp in the harbour is called Victor and he was never seen again.\n" * 40


@pytest.fixture(scope="module")
def brain() -> Brain:
    torch.manual_seed(0)
    tokenizer = Tokenizer.train([TEXT], 300)
    brain = Brain(apply_sets(presets.tiny().brain, [f"vocab_size={tokenizer.vocab_size}"])).eval()
    brain.tokenizer = tokenizer
    with torch.no_grad():
        for name, p in brain.named_parameters():
            if name.endswith("memory.null.bias"):
                p.zero_()
            elif not p.any():
                p.normal_(0.0, 0.3)
    return brain


def steps(brain: Brain, seed: int) -> list[Step]:
    random = np.random.default_rng(seed)
    asked = probes.question(brain, "it", "\nThe keeper", " of", [" of", " in"])
    return [
        Step([brain.tokenizer.bos_id, *random.integers(2, 290, 40).tolist()], [asked, asked]),
        Step(random.integers(2, 290, 25).tolist(), [asked._replace(label="later")]),
    ]


def test_an_answer_is_what_the_logits_say(brain):
    """By hand, through the session: wrong tokens, first choice, nats."""
    session = Session(brain)
    session.feed(torch.tensor([[brain.tokenizer.bos_id, 7, 9, 11]]))
    session.commit()
    asked = probes.question(brain, "it", "\nThe keeper", " of the lamp", [" of", " in", " Victor"])
    logits = Session(brain, session.snapshot()).feed(torch.tensor([[*asked.cue, *asked.answer]]), keep_logits=True)[0]
    log_p = torch.log_softmax(logits[len(asked.cue) - 1 : -1].double(), -1)
    found = probes.ask(brain, session.state, arms.ARMS["real"], asked)
    assert found.wrong == [int(row.argmax() != token) for row, token in zip(log_p, asked.answer, strict=True)]
    assert found.nats == pytest.approx(
        -sum(float(row[t]) for row, t in zip(log_p, asked.answer, strict=True)), rel=1e-5
    )
    assert found.first == int(max(asked.firsts, key=lambda token: float(log_p[0, token])) == asked.answer[0])


def test_no_question_changes_what_a_later_one_finds(brain):
    """The second question, and the later step, answer as if nothing had been asked; the weights stay bit for bit."""
    before = {name: tensor.clone() for name, tensor in brain.state_dict().items()}
    episodes = [steps(brain, 0), steps(brain, 1)]
    found = probes.answers(brain, episodes, "real")["real"]
    assert found[0][0] == found[0][1]
    silent = [[Step(step.tokens, step.questions if number else []) for number, step in enumerate(e)] for e in episodes]
    assert [row[-1] for row in found] == [row[-1] for row in probes.answers(brain, silent, "real")["real"]]
    assert all(torch.equal(before[name], tensor) for name, tensor in brain.state_dict().items())


def test_each_arm_keeps_what_it_is_named_after_and_shuffled_reads_the_neighbours_memory(brain):
    episodes = [steps(brain, 0), steps(brain, 1)]
    real = probes.answers(brain, episodes, "real")
    streams = [Stream(brain, arms.ARMS["real"]) for _ in episodes]
    for stream, episode in zip(streams, episodes, strict=True):
        stream.read(episode[0].tokens)
    swapped = arms.with_memories_of(streams[0].state, streams[1].state)
    by_hand = probes.ask(brain, swapped, arms.ARMS["real"], episodes[0][0].questions[0])
    assert real["shuffled"][0][0] == by_hand != real["real"][0][0]
    nats = {arm: probes.answers(brain, episodes, arm)[arm][0][-1].nats for arm in ("episodic", "procedural", "off")}
    assert len({*nats.values(), real["real"][0][-1].nats}) == 4
    assert "shuffled" not in probes.answers(brain, episodes[:1], "real"), "one episode has no other's memory"


def answer(right: bool, nats: float = 1.0) -> Answer:
    return Answer([int(not right)], int(right), nats)


def test_shares_differences_and_chance_by_hand():
    """Two seeds of two episodes: REAL is always right, OFF every second time."""
    labels = ["a", "a", "b"]
    real = [[[answer(True)] * 3] * 2] * 2
    off = [[[answer(True, 3.0), answer(False, 3.0), answer(False, 3.0)]] * 2] * 2
    rows = {(r["label"], r["arm"]): r for r in probes.cells(labels, [0.5, 0.5, 0.25], {"real": real, "off": off}, 0)}
    assert rows["a", "off"]["exact"] == 0.5 and rows["b", "off"]["exact"] == 0.0
    assert rows["a", "real"]["exact_over_off"] == 0.5 and rows["a", "real"]["nats_over_off"] == -2.0
    assert rows["a", "real"]["exact_over_off_interval"] == (0.5, 0.5), "every episode has the same difference"
    assert (rows["a", "off"]["questions"], rows["b", "off"]["questions"]) == (8, 4)
    assert (rows["a", "real"]["chance"], rows["b", "real"]["chance"]) == (0.5, 0.25)
    told = probes.lines(list(rows.values()))
    assert any(line.startswith("a ") and "50 [50, 50]" in line for line in told)


def test_seeds_are_the_outer_level_of_the_intervals():
    """Units that agree inside a seed and differ between seeds: only the seeds' level sees it."""
    groups = [np.array([[value, 1.0]] * 50) for value in (0.0, 1.0, 2.0)]
    nested = statistics.nested_sums(groups)
    flat = statistics.resampled_sums([unit[None] for group in groups for unit in group])
    wide, narrow = ((sums[0] / sums[1]).std() for sums in (nested, flat))
    assert wide == pytest.approx((2 / 3) ** 0.5 / 3**0.5, rel=0.1)
    assert narrow < 0.2 * wide
    assert np.ptp(statistics.nested_sums([np.ones((5, 1))])) == 0


def test_held_out_templates_share_nothing_with_those_to_tune_by():
    held_out, tuning = templates.HELD_OUT, templates.TUNING
    for name in (
        "wrongly",
        "changed",
        "chatter",
        "replies",
        "things",
        "places",
        "times",
        "orders",
        "tools",
        "brackets",
        "joints",
    ):
        assert not {*getattr(held_out, name)} & {*getattr(tuning, name)}, name
    for first, second in itertools.product(held_out.facts, tuning.facts):
        assert not {first.said, first.reworded, first.told} & {second.said, second.reworded, second.told}
        assert not {*first.values} & {*second.values}, (first.said, second.said)
    assert len(held_out.facts) == 20
    with pytest.raises(UsageError, match="--templates: got 'helt-out'"):
        templates.named("helt-out")


def test_a_profile_asks_what_counts_and_at_the_distances_it_says(brain):
    ids = brain.tokenizer.encode(TEXT)
    far = [20, 50]
    assert profile.distances(16384) == [1024, 4096, 16384] and profile.distances(500) == [500]
    episode = profile._episode(brain, [5] * (profile.PAUSE + 50), far, np.random.default_rng(0), templates.HELD_OUT)
    assert [len(step.tokens) for step in episode[2:]] == [20, 30]
    assert ids and [len(step.questions) for step in episode] == [0, 0, 40, 40]
    decode = brain.tokenizer.decode
    facts, later = decode(episode[0].tokens), decode(episode[1].tokens)
    kinds = {"stated": 0, "updated": 0, "contradicted": 0}
    for asked in episode[2].questions[:20]:
        kind = asked.label.split(": ")[1].split(",")[0]
        kinds[kind] += 1
        said = decode([*asked.cue, *asked.answer]).strip("\n") + "."
        if kind == "updated":
            assert said in later and said not in facts
        else:
            assert said in facts and said not in later
            assert (decode(asked.cue) in later) == (kind == "contradicted")
        assert asked.answer[0] in asked.firsts
    assert kinds == {"stated": 12, "updated": 4, "contradicted": 4}


def test_a_dialogue_asks_each_fact_as_many_turns_later_as_it_says(brain):
    made = dialogue.made(brain, templates.HELD_OUT, 3, np.random.default_rng(0))
    assert len(made) == 23 and sum(len(step.questions) for step in made) == 20
    decode = brain.tokenizer.decode
    told = {fact.told: fact.said for fact in templates.HELD_OUT.facts}
    for turn, step in enumerate(made):
        for asked in step.questions:
            cue = decode(asked.cue).rpartition("Assistant: ")[2]
            assert f"{told[cue]}{decode(asked.answer)}." in decode(made[turn + 1 - 3].tokens)


def test_a_habits_showings_are_farther_apart_than_working_memory_reaches(brain, monkeypatch):
    monkeypatch.setattr(habit, "SHOWINGS", 3)
    (episode, mask), (other, _) = habit.grammars(brain, templates.HELD_OUT, 2, 0)
    calls = [brain.tokenizer.decode(step.questions[0].answer) for step in episode]
    other_call = brain.tokenizer.decode(other[0].questions[0].answer)
    assert len(mask) == sum(len(step.questions[0].answer) for step in episode)
    # What is form is the same in every showing; the arguments are not.
    form = []
    for number, step in enumerate(episode):
        start = sum(len(s.questions[0].answer) for s in episode[:number])
        answer_ids = step.questions[0].answer
        form.append([token for token, is_form in zip(answer_ids, mask[start:], strict=False) if is_form])
        assert len(step.tokens) > brain.config.cortex.window
    assert form[0] == form[1] == form[2] and calls[0][:3] != other_call[:3]


def test_errors_by_showing_and_what_the_eighth_has_left():
    """Form tokens 1 and 3 of three; wrong at the first showing, half of them at the second and on."""
    shown = [Answer([1, 0, 1], 0, 1.0), *[Answer([1, 1, 0], 0, 1.0)] * 8]
    mask = [True, False, True] * 9
    (row,) = habit.errors({"real": [[shown, shown]]}, [[mask, mask]], 0)
    assert row["form"][0] == 1.0 and row["form"][7] == 0.5 and row["halves"] == 0.5
    assert row["arguments"][0] == 0.0 and row["arguments"][1] == 1.0
    assert row["form_later"] == 0.5


def measured(real: float, no_episodic: float, no_procedural: float, seeds: int = 2) -> list[dict[str, list]]:
    """Answers of which such a share is right, in each of two episodes a seed."""
    shares = {"real": real, "procedural": no_episodic, "episodic": no_procedural}
    return {
        arm: [[[answer(n < round(20 * share)) for n in range(20)] for _ in range(2)] for _ in range(seeds)]
        for arm, share in shares.items()
    }


def test_a_double_dissociation_is_one_lesion_for_each_ability(brain):
    asked = [probes.Question(f"1024: stated, {profile.WORDINGS[0]}", [1], [2], [2, 3])] * 20
    masks = [[[True] * 20] * 2] * 2

    def verdict(facts, rules):
        return dissociation.lesions(profile.Measured(asked, facts), habit.Measured(rules, masks), 0)

    both = verdict(measured(1.0, 0.0, 1.0), measured(1.0, 1.0, 0.5))
    assert both["double_dissociation"]
    losses = {row["ability"]: row for row in both["losses"]}
    assert losses["profile"]["lost_without_episodic"] == 1.0 and losses["profile"]["lost_without_procedural"] == 0.0
    assert losses["habit"]["lost_without_procedural"] == pytest.approx(1 - 9 / 19)
    assert [row["carrier"] for row in both["carriers"]] == ["episodic", "procedural"]
    assert not verdict(measured(1.0, 0.0, 1.0), measured(1.0, 0.5, 1.0))["double_dissociation"]
    assert not verdict(measured(0.0, 0.0, 0.0), measured(1.0, 1.0, 0.5))["double_dissociation"], "nothing to lose"


def test_a_brain_with_one_memory_has_nothing_to_dissociate(brain):
    one = Brain(apply_sets(presets.tiny().brain, ["procedural.enabled=false"]))
    with pytest.raises(UsageError) as refused:
        dissociation.run(one, TEXT)
    assert refused.value.what == (
        "dissociation: got a brain whose memories are: episodic; expected an episodic and a procedural one."
    )


@pytest.mark.parametrize("suite", [profile, dialogue, habit])
def test_too_few_items_are_refused(suite, brain):
    for name in ("seeds", "episodes"):
        with pytest.raises(UsageError, match=f"got 0 {name}, expected at least 1") as refused:
            suite.run(brain, TEXT, **{name: 0})
        assert refused.value.do == f"Leave out --{name}, or give more."


def test_a_text_too_short_for_the_distances_is_refused(brain):
    with pytest.raises(UsageError, match=r"expected at least 33280 \(2 episodes of 256 \+ 16384\)"):
        profile.run(brain, TEXT)
