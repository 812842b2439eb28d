"""Drift calibration: the maps undo what was done, cost nothing where nothing was done, and bring a stored memory back."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from neuro.errors import UsageError

transformers = pytest.importorskip("transformers")

from neuro.hf import AdapterCache, HippocampalAdapter  # noqa: E402
from neuro.hf.adapter_drift import Alignment, Traces, fit  # noqa: E402
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
