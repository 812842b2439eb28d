"""Laws of branched feed-forwards: a token's is the dense one of its branch, alone; the others do no work for it."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from backends import native, portable
from export.c import quantized
from neuro import accounting, presets
from neuro.config import apply_sets
from neuro.errors import UsageError
from neuro.layers.branched_feedforward import branch_of
from neuro.layers.feedforward import DenseFeedforward
from neuro.train import loop

BRANCHED = "cortex.feedforwards=branched,branched"


def part_of(brain, layer: int = 1):
    return brain.regions["cortex"].layers[layer].feedforward


def test_a_tokens_feedforward_is_the_dense_one_of_its_branch(tiny_brain, tokens):
    """Masked and gathered, in training and in evaluation, values, eligibilities and gradients."""
    ids, x, given = tokens(2, 30), torch.randn(2, 30, 32, dtype=torch.float64), torch.ones(2, 30, dtype=torch.float64)
    found = []
    for ops in (native.OPS, portable.OPS):
        part = part_of(tiny_brain([BRANCHED, "cortex.branches=3"], ops=ops, dtype=torch.float64))
        y, eligibility, fired, state = part.scan(x, given, (), ids)
        (y.sin().sum() + eligibility.sin().sum()).backward()
        found.append((y, eligibility, part.up.grad, part.down.grad, part.sense.grad))
        with torch.no_grad():
            found.append((*part.scan(x, given, (), ids)[:2], *found[-1][2:]))
            rows = [part.scan(x[b : b + 1], given[:1], (), ids[b : b + 1]) for b in range(2)]
            found.append((*(torch.cat([row[i] for row in rows]) for i in range(2)), *found[-1][2:]))
        assert fired == () and state == ()
    for other in found[1:]:
        assert all(torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(found[0], other, strict=True))
    branches = branch_of(ids, 1, 3)
    assert set(branches.flatten().tolist()) == {0, 1, 2}
    for n in range(3):
        dense = DenseFeedforward(32, part.hidden * 3 // 2, 0, portable.OPS).double()
        assert dense.down.in_features == part.hidden
        dense.up.weight.data, dense.down.weight.data = part.up.data.chunk(3)[n], part.down.data.chunk(3)[n]
        assert torch.allclose(dense.scan(x, given, ())[0][branches == n], y[branches == n], rtol=0, atol=1e-12)


def test_branches_are_near_equal_and_differ_between_layers():
    ids = torch.arange(1024)
    table = torch.stack([branch_of(ids, layer, 4) for layer in range(12)])
    for layer, chosen in enumerate(table):
        assert (chosen.bincount(minlength=4) - 256).abs().max() < 64
        for other in table[:layer]:  # two layers agree on as many tokens as by chance
            assert abs(float((chosen == other).double().mean()) - 0.25) < 0.1


def test_counted_products_are_those_that_torch_makes(tiny_brain, tokens):
    off = [f"{name}.enabled=false" for name in ("hippocampus", "procedural", "endocrine", "amygdala")]
    brain = tiny_brain([BRANCHED, *off, "cortex.mixers=recurrence,recurrence"], ops=native.OPS).eval()
    tally = accounting.Tally(brain)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        out = brain._scan(tokens(1, 16), brain.init_state(1))
    tally.span([out.events], brain.commit(out.state)[1])
    load = accounting.workload(brain, tally, "tiny", (1.0, 0.0))
    assert counter.get_total_flops() == 2 * sum(row.count for row in load.operations if row.kind == "mac")


def test_what_would_change_a_tokens_branch_or_lacks_one_is_refused(tmp_path):
    run = apply_sets(presets.tiny(), ["train.sampled=8", f"brain.{BRANCHED}"])
    with pytest.raises(UsageError, match=r"train.sampled: a branch belongs .*\nSet train.sampled=0"):
        loop.train(run, tmp_path)
    with pytest.raises(UsageError, match=r"got brain.cortex.feedforwards 'branched', expected 'spiking' or 'dense'"):
        quantized.check(run.brain)
