"""Drift calibration: the maps undo what was done, cost nothing where nothing was done, and bring a stored memory back."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from neuro.errors import UsageError

transformers = pytest.importorskip("transformers")

from neuro.hf import AdapterCache, HippocampalAdapter  # noqa: E402
from neuro.hf.adapter_drift import SHARES, Alignment, Traces, fit, restated  # noqa: E402
from neuro.hf.streaming import CACHE_NAME  # noqa: E402

D = 16


def states(rows: int = 400) -> torch.Tensor:
    return torch.randn(rows, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * torch.linspace(
        0.1, 2, D
    )


def rotation() -> torch.Tensor:
    skew = torch.randn(D, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return torch.matrix_exp(skew - skew.T)


@pytest.mark.parametrize("kind", ["affine", "orthogonal"])
def test_rotation_scale_and_offset_are_undone(kind):
    before = states()
    after = 1.7 * before @ rotation().T + 3.0
    found = fit(after, before, kind)
    assert (found(after) - before).abs().max() < 2e-2
    assert (found(2.0 * after) - before).abs().max() > 0.5


def test_a_stretched_space_needs_the_affine_map():
    before = states()
    after = before * torch.linspace(0.3, 3, D)
    misses = [(fit(after, before, kind)(after) - before).square().mean() for kind in ("affine", "orthogonal")]
    assert misses[0] < 1e-4 < 1e-2 < misses[1]


def test_without_a_drift_the_map_is_the_identity():
    x = states()
    exact, near = fit(x, x), fit(x, x, "orthogonal")
    assert torch.equal(exact.weight, torch.eye(D, dtype=torch.float64)) and not exact.bias.any()
    assert (near.weight - torch.eye(D)).abs().max() < 1e-12
    constant = fit(torch.ones(5, D), torch.ones(5, D))
    assert torch.equal(constant(torch.ones(1, D)), torch.ones(1, D).double())


@pytest.mark.parametrize(
    ("x", "y", "kind", "text"),
    [
        (torch.ones(4, 3), torch.ones(5, 3), "affine", "got traces [4, 3] and [5, 3]"),
        (torch.ones(1, 3), torch.ones(1, 3), "affine", "got traces [1, 3] and [1, 3]"),
        (torch.full((4, 3), torch.nan), torch.ones(4, 3), "affine", "values that are not finite"),
        (torch.ones(4, 3), torch.ones(4, 3), "cubic", "got kind 'cubic', expected affine or orthogonal"),
    ],
)
def test_mistakes(x, y, kind, text):
    with pytest.raises(UsageError) as error:
        fit(x, y, kind)
    assert text in error.value.what and error.value.do


def adapter() -> HippocampalAdapter:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=D, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        initializer_range=0.3, bos_token_id=0, eos_token_id=None, tie_word_embeddings=True,
    )  # fmt: skip
    base = transformers.LlamaForCausalLM(config).eval()
    sizes = dict(span=8, slots=64, place_cells=64, key_width=16, top_slots=4, sparsity=0.1, lora_rank=0)
    model = HippocampalAdapter.from_pretrained(base, **sizes)
    with torch.no_grad():
        model.fusion.hippocampus.memory.null.bias.fill_(4.0)
    return model


def drifted(model: HippocampalAdapter) -> HippocampalAdapter:
    """The same function of another base: its states are turned, stretched and moved, and its head undoes it."""
    other = copy.deepcopy(model)
    turn, enter, leave = rotation().float(), nn.Linear(D, D), nn.Linear(D, 50)
    with torch.no_grad():
        enter.weight.copy_(2.0 * turn)
        enter.bias.fill_(1.0)
        leave.weight.copy_(model.base.lm_head.weight @ turn.T / 2.0)
        leave.bias.copy_(-leave.weight @ enter.bias)
    other.base.model.norm = nn.Sequential(other.base.model.norm, enter)
    other.base.lm_head = leave
    return other


def read(model: HippocampalAdapter, ids: torch.Tensor, stored) -> torch.Tensor:
    cache = AdapterCache()
    with torch.no_grad():
        model(ids[:, :1], **{CACHE_NAME: cache})
        cache.put_memories([stored])
        return model(ids[:, 1:], **{CACHE_NAME: cache}).logits.log_softmax(-1)


def test_a_memory_is_read_again_after_the_base_has_drifted(tmp_path):
    model = adapter()
    random = torch.Generator().manual_seed(5)
    ids, others = (torch.randint(1, 50, (rows, 33), generator=random) for rows in (1, 30))
    stored = model.remember(ids).memory_of(0)
    other = drifted(model)
    wanted = read(model, ids, stored)
    with torch.no_grad():
        assert (other.base(ids).logits - model.base(ids).logits).abs().max() < 1e-3, "the same function"
    lost = (read(other, ids, stored) - wanted).abs().max()
    before = model.trace(others)
    other.calibrate(before, other.trace(others))
    back = (read(other, ids, stored) - wanted).abs().max()
    assert lost > 1.0 and back < 0.05 * lost
    same = copy.deepcopy(model)
    same.calibrate(before, model.trace(others))
    assert (read(same, ids, stored) - wanted).abs().max() < 1e-4
    same.save_pretrained(tmp_path)
    again = HippocampalAdapter.from_pretrained(tmp_path)
    assert torch.equal(again.fusion.alignment.map("hidden").weight, torch.eye(D))


def rows_of(count: int) -> torch.Tensor:
    return torch.randint(1, 50, (count, 33), generator=torch.Generator().manual_seed(count))


def test_after_a_linear_drift_the_whole_map_is_chosen():
    model, traced, chosen_on, ids = adapter(), rows_of(30), rows_of(6), rows_of(1)
    other, cache = drifted(model), model.remember(ids)
    wanted = read(model, ids, cache.memory_of(0))
    nats = other.calibrate(model.trace(traced), other.trace(traced), choose_on=chosen_on)
    assert list(nats) == list(SHARES) and min(nats, key=nats.get) == 1.0
    whole = Alignment.between(model.trace(traced), other.trace(traced))
    assert torch.equal(other.fusion.alignment.hidden_weight, whole.hidden_weight)
    cache.reread(other)
    assert (read(other, ids, cache.memory_of(0)) - wanted).abs().max() < 0.05
    plain = restated(model, chosen_on)
    assert abs(nats[1.0] - plain) < 1e-3 and nats[0.0] > plain + 1.0, "by what is told again, with its memory"


def test_after_a_drift_that_no_map_undoes_none_is_kept():
    model, traced = adapter(), rows_of(30)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for n, parameter in enumerate(other.base.parameters()):
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(n))
            parameter.add_(0.3 * parameter.std() * noise)
    nats = other.calibrate(model.trace(traced), other.trace(traced), choose_on=rows_of(6))
    assert nats[0.0] == min(nats.values()) < nats[1.0] - 0.5
    assert other.fusion.alignment is None, "nothing of the maps that were tried is left"


@pytest.mark.parametrize("kind", ["affine", "orthogonal"])
def test_a_choice_without_a_drift_moves_nothing(kind):
    model, traced, ids = adapter(), rows_of(30), rows_of(1)
    stored = model.remember(ids).memory_of(0)
    wanted, before = read(model, ids, stored), model.trace(traced)
    model.calibrate(before, before, kind, choose_on=rows_of(6))
    assert model.fusion.alignment is None and torch.equal(read(model, ids, stored), wanted)


def test_a_share_lies_between_nothing_and_the_whole_map():
    before, after = (Traces(*(factor * states(),) * 3) for factor in (1.0, 2.0))
    whole = Alignment.between(before, after)
    assert torch.equal(whole.kept(0.0).hidden_weight, torch.eye(D)) and not whole.kept(0.0).hidden_bias.any()
    assert torch.equal(whole.kept(1.0).recalled_weight, whole.recalled_weight)
    middle = (torch.eye(D) + whole.context_weight) / 2
    assert (whole.kept(0.5).context_weight - middle).abs().max() < 1e-6


@pytest.mark.parametrize("rows", [torch.ones(3, 1, dtype=torch.int64), torch.ones(9, dtype=torch.int64)])
def test_text_that_nothing_can_be_chosen_on_is_refused(rows):
    model = adapter()
    before = model.trace(rows_of(3))
    with pytest.raises(UsageError, match=r"got choose_on \[.*\], expected \[rows, 2 tokens or more\]"):
        model.calibrate(before, before, choose_on=rows)
    assert model.fusion.alignment is None


def test_a_choice_that_fails_leaves_the_calibration_that_was_there():
    model = adapter()
    before = model.trace(rows_of(30))
    model.calibrate(before, before)
    kept = model.fusion.alignment
    with pytest.raises(UsageError, match="got ids"):
        model.calibrate(before, before, choose_on=torch.full((2, 9), 10**6))
    assert kept is not None and model.fusion.alignment is kept


def test_traces_of_another_width_are_refused():
    model = adapter()
    wide = torch.zeros(9, D + 1)
    with pytest.raises(UsageError, match="got traces 17 wide, expected 16"):
        model.calibrate(Traces(wide, wide, wide), Traces(wide, wide, wide))
    assert model.fusion.alignment is None


def test_tracing_leaves_the_model_as_it_was():
    model = adapter().train()
    traces = model.trace(torch.randint(1, 50, (3, 9)))
    assert [part.shape for part in traces] == [(27, D)] * 3 and model.training
    assert traces.embedded.square().mean(1).sub(1).abs().max() < 1e-4
    assert set(dict(Alignment(D).named_buffers())) >= {"hidden_weight", "recalled_bias"}
