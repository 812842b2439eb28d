"""Configuration: TOML there and back, typed overrides, messages that name the key and the nearest match."""

from __future__ import annotations

import dataclasses
import math

import pytest

from neuro import config, presets
from neuro.config import BrainConfig, RunConfig, TrainConfig, apply_sets, from_dict, load, to_dict, to_toml
from neuro.errors import MissingError, UsageError, nearest


def refused(kind: type, match: str, call, *args) -> None:
    with pytest.raises(kind, match=match) as error:
        call(*args)
    assert len(str(error.value).split("\n")) == 2
    assert all(line.endswith((".", "?")) for line in str(error.value).split("\n"))


@pytest.mark.parametrize("name", presets.PRESETS)
def test_presets_survive_toml(name, tmp_path):
    run = presets.PRESETS[name]()
    path = tmp_path / "run.toml"
    path.write_text(to_toml(run), encoding="utf-8")
    assert load(path) == run
    assert from_dict(RunConfig, to_dict(run)) == run


@pytest.mark.parametrize(
    "text", ['"quoted" \\ back', "ümläut 日本", "emoji 😀 .txt", "tab\tnewline\nend", "del \x7f esc \x1b", "'''", ""]
)
def test_any_text_survives_toml(text, tmp_path):
    run = apply_sets(presets.tiny(), [])
    run = dataclasses.replace(run, data=dataclasses.replace(run.data, train=text))
    path = tmp_path / "run.toml"
    path.write_text(to_toml(run), encoding="utf-8")
    assert load(path) == run


@pytest.mark.parametrize("value", [1e-9, 1e22, 0.1, 3.0, math.inf])
def test_any_number_survives_toml(value, tmp_path):
    run = apply_sets(presets.tiny(), [])
    brain = dataclasses.replace(
        run.brain, hippocampus=dataclasses.replace(run.brain.hippocampus, half_life_tokens=value)
    )
    run = dataclasses.replace(run, brain=brain)
    path = tmp_path / "run.toml"
    path.write_text(to_toml(run), encoding="utf-8")
    assert load(path) == run


def test_a_file_says_only_what_differs_from_its_preset(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('preset = "tiny"\n[brain.cortex]\nwindow = 5\n[train]\nsteps = 7\n', encoding="utf-8")
    run = load(path)
    assert run.brain.cortex.window == 5 and run.train.steps == 7
    base = presets.tiny()
    assert apply_sets(run, ["brain.cortex.window=8", "train.steps=60"]) == base
    path.write_text("", encoding="utf-8")
    assert load(path) == presets.small() == load() == load("small")


def test_sets_are_parsed_by_the_type_of_their_field():
    run = apply_sets(
        presets.tiny(),
        [
            "train.steps=7",
            "train.learning_rate=1",
            "train.mixed_precision=False",
            "brain.thalamus.enabled = false",
            "brain.cortex.mixers=window, recurrence",
            "brain.endocrine.half_lives_tokens=[1,2.5,3,4,5]",
            "data.train=a=b.txt",
            "data.valid=007",
            "brain.hippocampus.slots=64",
        ],
    )
    assert run.train.steps == 7 and run.train.learning_rate == 1.0 and isinstance(run.train.learning_rate, float)
    assert run.train.mixed_precision is False and run.brain.thalamus.enabled is False
    assert run.brain.cortex.mixers == ("window", "recurrence")
    assert run.brain.endocrine.half_lives_tokens == (1.0, 2.5, 3.0, 4.0, 5.0)
    assert run.data.train == "a=b.txt" and run.data.valid == "007"
    assert run.brain.hippocampus.slots == 64
    assert apply_sets(run, []) is run


def test_texts_in_a_list_may_be_quoted():
    run = apply_sets(presets.tiny(), ['brain.cortex.mixers=["window", "window"]'])
    assert run.brain.cortex.mixers == ("window", "window")


def test_sets_that_fit_only_together_are_checked_together():
    """The number of layers is the length of two lists; the heads divide the width."""
    one = apply_sets(presets.tiny(), ["brain.cortex.mixers=window", "brain.cortex.feedforwards=dense"])
    assert one.brain.cortex.mixers == ("window",)
    odd = apply_sets(presets.tiny(), ["brain.d_model=30", "brain.cortex.heads=3"])
    assert (odd.brain.d_model, odd.brain.cortex.heads) == (30, 3)
    refused(UsageError, "feedforwards: got .*expected one per mixer", apply_sets, presets.tiny(),
            ["brain.cortex.mixers=window"])  # fmt: skip


def test_later_sets_win():
    assert apply_sets(presets.tiny(), ["train.steps=3", "train.steps=4"]).train.steps == 4


@pytest.mark.parametrize(
    ("item", "match"),
    [
        ("train.steps", r"--set: got 'train.steps', expected KEY=VALUE\.\nWrite for example --set train.steps=100\."),
        ("train.step=3", r"--set train.step: unknown key 'step'\.\nDid you mean 'steps'\?"),
        ("trian.steps=3", r"unknown key 'trian'\.\nDid you mean 'train'\?"),
        ("brain.cortex.windwo=3", r"unknown key 'windwo'\.\nDid you mean 'window'\?"),
        ("zzz=3", r"unknown key 'zzz'\.\nKnown: brain, data, train\."),
        ("brain.cortex=3", r"--set brain.cortex: is a table, expected one of its keys\.\nKnown: branches, .*window\."),
        ("train.steps.x=3", r"--set train.steps.x: 'steps' has no keys below it\.\nSet steps itself\."),
        (
            "train.steps=many",
            r"--set train.steps: got 'many', expected int\.\nGive --set train.steps a value of that type\.",
        ),
        ("train.steps=1.5", "got 1.5, expected int"),
        ("train.steps=1e3", "got 1000.0, expected int"),
        ("train.steps=true", "got True, expected int"),
        ("train.steps=", "got '', expected int"),
        ("train.steps=null", "got None, expected int"),
        ("train.steps=[3]", r"got \[3\], expected int"),
        ("train.learning_rate=true", "got True, expected float"),
        ("train.mixed_precision=1", "got 1, expected bool"),
        ("train.mixed_precision=yes", "got 'yes', expected bool"),
        ("brain.endocrine.half_lives_tokens=1,2,x,4,5", "got 'x', expected float"),
        ("brain.cortex.mixers=window,attention", r"cortex.mixers: got 'attention', expected recurrence or window"),
    ],
)
def test_wrong_sets_are_refused(item, match):
    refused(UsageError, match, apply_sets, presets.tiny(), [item])


@pytest.mark.parametrize(
    "text", ["__import__('os').system('false')", "2**3", "1+1", "print(1)", "os.environ", "0x10", "1_000"]
)
def test_nothing_is_evaluated(text):
    refused(UsageError, "expected int", apply_sets, presets.tiny(), [f"train.steps={text}"])
    assert apply_sets(presets.tiny(), [f"data.train={text}"]).data.train == text


@pytest.mark.parametrize(
    ("toml", "kind", "match"),
    [
        ("steps = 3\n[", UsageError, r"run.toml': got a file that is no TOML \(.*\), expected one\.\nGive a TOML file; "),
        ("[train]\nsteps = 3\nsteps = 4\n", UsageError, "run.toml': got a file that is no TOML"),
        ('preset = "smal"\n', UsageError, r"run.toml: unknown preset 'smal'\.\nDid you mean 'small'\?"),
        ('preset = ["small"]\n', UsageError, r"run.toml: unknown preset \['small'\]"),
        ("[brian]\nd_model = 3\n", UsageError, r"config: unknown key 'brian'\.\nDid you mean 'brain'\?"),
        ("[brain.cortex]\nwindows = 3\n", UsageError, r"config.brain.cortex: unknown key 'windows'\.\nDid you mean 'window'\?"),
        ("brain = 3\n", UsageError, r"config.brain: got 3, expected a table of keys\.\nWrite it as \[config.brain\]"),
        ('[train]\nsteps = "3"\n', UsageError, r"config.train.steps: got '3', expected int"),
        ("[train]\nsteps = [3]\n", UsageError, r"config.train.steps: got \[3\], expected int"),
        ("[brain.cortex]\nmixers = 3\n", UsageError, r"config.brain.cortex.mixers: got 3, expected tuple\[str, \.\.\.\]"),
        ('[brain.cortex]\nmixers = "window"\n', UsageError, r"got 'window', expected tuple"),
        ("[brain.cortex]\nmixers = [1, 2]\n", UsageError, r"got 1, expected str"),
    ],
)  # fmt: skip
def test_wrong_files_are_refused(toml, kind, match, tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(toml, encoding="utf-8")
    refused(kind, match, load, path)


def test_missing_and_foreign_files_are_refused(tmp_path):
    refused(MissingError, r"config 'tinny': no such preset or file\.\nDid you mean 'tiny'\?", load, "tinny")
    refused(UsageError, r"got a folder, expected a preset or a TOML file\.\nGive a TOML file; 'neuro", load, tmp_path)
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe\x00")
    refused(UsageError, "binary.toml': got a file that is no TOML", load, path)


@pytest.mark.parametrize(
    "item",
    [
        "vocab_size=1", "d_model=0", "d_model=33", "plasticity_span=0", "prosody_channels=0",
        "thalamus.route_budget=0", "thalamus.route_budget=1.5", "thalamus.route_budget=NaN", "thalamus.skips=none",
        "amygdala.hidden=0", "amygdala.half_life_tokens=0", "amygdala.half_life_tokens=-1", "amygdala.prosody_gain=9",
        "endocrine.half_lives_tokens=1,2,3", "endocrine.half_lives_tokens=0,1,1,1,1", "endocrine.half_lives_tokens=NaN,1,1,1,1",
        "endocrine.off=serotonine",
        "cortex.mixers=", "cortex.mixers=window", "cortex.heads=0", "cortex.heads=3", "cortex.window=0",
        "cortex.feedforward_width=0", "cortex.tau_mem_ms=0", "cortex.dt_ms=-1", "cortex.tau_mem_ms=NaN",
        "cortex.v_threshold=0", "cortex.v_threshold=-1", "cortex.surrogate_slope=-1", "cortex.rate_target=0",
        "cortex.rate_target=1.5", "cortex.encoding=binary", "cortex.burst=0", "cortex.branches=1",
        "hippocampus.place_cells=0", "hippocampus.sparsity=0", "hippocampus.sparsity=2", "hippocampus.key_width=0",
        "hippocampus.slots=0", "hippocampus.top_k=0", "hippocampus.top_k=33", "hippocampus.writes_per_span=0",
        "hippocampus.writes_per_span=17", "hippocampus.half_life_tokens=0", "hippocampus.segments=true",
    ],
)  # fmt: skip
def test_brains_that_cannot_be_built_are_refused_by_name(item):
    key = item.partition("=")[0]
    with pytest.raises(UsageError, match=r"config brain\.[a-z_.]+: got .*, expected .*\.\nSet brain\.") as error:
        apply_sets(presets.tiny().brain, [item])
    related = {"d_model=33": "cortex.heads", "cortex.mixers=": "cortex", "cortex.mixers=window": "cortex.feedforwards"}
    assert f"brain.{related.get(item, key)}" in str(error.value)


SPIKES = ["cortex.encoding=spikes", "cortex.mixers=recurrence,recurrence", "cortex.feedforwards=spiking,spiking"]


@pytest.mark.parametrize(
    ("item", "what", "do"),
    [
        (
            "cortex.mixers=recurrence,window",
            "config brain.cortex.mixers: got 'window', expected 'recurrence' with brain.cortex.encoding 'spikes', where every "
            "product reads spikes: a window multiplies queries by keys.",
            "Set brain.cortex.mixers=recurrence,recurrence, or brain.cortex.encoding=dense.",
        ),
        (
            "cortex.feedforwards=dense,spiking",
            "config brain.cortex.feedforwards: got 'dense', expected 'spiking' with brain.cortex.encoding 'spikes', where "
            "every product reads spikes: a dense one reads its own hidden values.",
            "Set brain.cortex.feedforwards=spiking,spiking, or brain.cortex.encoding=dense.",
        ),
        (
            "procedural.enabled=true",
            "config brain.procedural.enabled: got True, expected False with brain.cortex.encoding 'spikes', where every "
            "product reads spikes: fast weights read traces.",
            "Set brain.procedural.enabled=false, or brain.cortex.encoding=dense.",
        ),
    ],
)
def test_what_reads_no_spikes_is_refused_where_everything_is_to(item, what, do):
    with pytest.raises(UsageError) as error:
        apply_sets(presets.tiny().brain, [*SPIKES, "procedural.enabled=false", item])
    assert str(error.value) == f"{what}\n{do}"
    # What is off has no products.
    apply_sets(presets.tiny().brain, [*SPIKES, "cortex.enabled=false"])


@pytest.mark.parametrize(
    "item",
    [
        "steps=-1", "batch=0", "spans_per_step=0", "learning_rate=0", "learning_rate=NaN", "learning_rate=Infinity",
        "weight_decay=-1", "warmup_steps=-1", "final_share=-0.1", "final_share=1.1", "clip_norm=0", "rate_weight=-1",
        "route_weight=-1", "rehearsal=-0.1", "rehearsal=1.1", "eval_every=0", "eval_tokens=1", "seed=-1", f"seed={2**63}",
        "spike_anneal=1.1", "spike_anneal=-0.1",
    ],
)  # fmt: skip
def test_trainings_that_cannot_run_are_refused_by_name(item):
    key = item.partition("=")[0]
    with pytest.raises(UsageError, match=rf"config train\.{key}: got .*, expected .*\.\nSet train\.{key}\."):
        apply_sets(TrainConfig(), [item])


def test_the_smallest_brain_is_built_and_runs():
    import torch

    from neuro.brain import Brain

    sets = ["vocab_size=2", "d_model=1", "plasticity_span=1", "prosody_channels=1", "amygdala.hidden=1",
            "cortex.mixers=window", "cortex.feedforwards=spiking", "cortex.heads=1", "cortex.window=1",
            "cortex.feedforward_width=1", "hippocampus.place_cells=1", "hippocampus.sparsity=1.0",
            "hippocampus.key_width=1", "hippocampus.writes_per_span=1", "hippocampus.slots=1",
            "hippocampus.top_k=1"]  # fmt: skip
    brain = Brain(apply_sets(presets.tiny().brain, sets))
    state = brain.init_state(1)
    for _ in range(3):
        state, events = brain.commit(brain.scan(torch.ones(1, 1, dtype=torch.int64), state).state)
    assert int(events.filled) == 1 and torch.isfinite(state.logits).all()


def test_configurations_are_frozen_and_hashable():
    brain = BrainConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        brain.d_model = 3
    assert hash(brain) == hash(BrainConfig()) and brain == BrainConfig()


def test_decay_is_that_of_the_membrane():
    assert config.CortexConfig(tau_mem_ms=2.0, dt_ms=1.0).decay == pytest.approx(math.exp(-0.5))


def test_nearest_word():
    assert nearest("windw", ["window", "heads"]) == "Did you mean 'window'?"
    assert nearest("qqq", ["window", "heads"]) == "Known: heads, window."
