"""Laws of skipped layers: a skipped token leaves a layer as it was, gathering changes nothing, decoding skips the work."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import neuro
from backends import native, portable
from neuro import accounting, presets
from neuro.config import TrainConfig, apply_sets
from neuro.layers.mixture_of_depths import DepthRouter, held_lif_scan
from neuro.regions.cortex import _Given
from neuro.state import leaves
from neuro.train import loop, objective

LAYERS = {
    "recurrence and spiking": ["cortex.mixers=recurrence,recurrence", "cortex.feedforwards=spiking,spiking"],
    "window and dense": ["cortex.mixers=window,window", "cortex.feedforwards=dense,dense", "cortex.window=5"],
    "branched": ["cortex.feedforwards=branched,branched"],
    "as it comes": [],
}
DEPTH = "thalamus.skips=layer"


class Given(DepthRouter):
    """A router that says what it is told, [B,T] at a time."""

    def __init__(self, gate: torch.Tensor) -> None:
        super().__init__(32)
        self.gate, self.at = gate, 0

    def forward(self, x: torch.Tensor, drive: torch.Tensor) -> torch.Tensor:
        self.at += x.shape[1]
        return self.gate[:, self.at - x.shape[1] : self.at].to(x.dtype)


@pytest.fixture(params=list(LAYERS), ids=lambda name: name.replace(" ", "_"))
def layers(request) -> list[str]:
    return [DEPTH, *LAYERS[request.param]]


def half(brain, batch: int, tokens: int) -> torch.Tensor:
    """Routes of every layer [L,B,T], about half of them 1, and a layer that never runs in row 0."""
    gates = (torch.rand(2, batch, tokens, generator=torch.Generator().manual_seed(4)) < 0.5).float()
    gates[1, 0] = 0
    for layer, gate in zip(brain.regions["cortex"].layers, gates, strict=True):
        layer.depth = Given(gate)
    return gates


@pytest.mark.parametrize("pieces", [16, 1])
def test_a_layer_with_skips_is_the_layer_over_the_tokens_sent_to_it(layers, pieces, tiny_brain, drive, tokens):
    """The first layer against itself without any skip, on nothing but what was sent: outputs, spikes and state."""
    brain = tiny_brain([*layers, "procedural.enabled=false"], dtype=torch.float64)
    layer, cortex = brain.regions["cortex"].layers[0], brain.regions["cortex"]
    x, ids = torch.randn(1, 40, 32, dtype=torch.float64), tokens(1, 40)
    gate = (torch.rand(1, 40) < 0.5).double()
    start = cortex.init_state(1, x.device).layers[0]
    start = type(start)(*(type(part)(*(leaf.double() for leaf in part)) for part in start))
    ran, before = [], start
    for at in range(0, 40, pieces):
        part = slice(at, at + pieces)
        with torch.no_grad():
            given = _Given(
                x[:, part], torch.zeros_like(x[:, part]), layer.mixer_norm(x[:, part]), before, (), ids[:, part]
            )
            out = cortex._skipping(layer, given, gate[:, part], torch.ones_like(gate[:, part]))
        ran.append(out.x)
        before = out.state
    only = x[:, gate[0] > 0]
    ones = torch.ones_like(only[..., 0])
    given = _Given(only, torch.zeros_like(only), layer.mixer_norm(only), start, (), ids[:, gate[0] > 0])
    alone = cortex._run(layer, given, ones, ones)
    after = torch.cat(ran, 1)
    assert torch.equal(after[:, gate[0] == 0], x[:, gate[0] == 0])  # bit for bit: it passed by
    assert torch.allclose(after[:, gate[0] > 0], alone.x, rtol=0, atol=1e-9)
    for (name, a), (_, b) in zip(leaves(before), leaves(alone.state), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-9), name


@pytest.mark.parametrize("tokens_at_once", [None, 1, 5])
def test_masked_equals_gathered(layers, tokens_at_once, tiny_brain, drive, tokens):
    """Portable operators and batches mask, native ones gather the tokens of one row: the same in all three."""
    ids, found = tokens(3, 53), []
    for ops in (native.OPS, portable.OPS):
        brain = tiny_brain(layers, ops=ops, dtype=torch.float64)
        gates = half(brain, 3, 53)
        found.append(drive(brain, ids, pieces=tokens_at_once))
    a, b = found
    assert torch.equal(a.spikes, b.spikes)
    assert torch.equal(a.events["route"].permute(2, 0, 1), gates.to(a.events["route"].dtype))
    pairs = [(a.logits, b.logits), *((x, y) for (_, x), (_, y) in zip(leaves(a.state), leaves(b.state), strict=True))]
    for row in range(3):
        brain = tiny_brain(layers, ops=native.OPS, dtype=torch.float64)
        half(brain, 3, 53)
        for layer, gate in zip(brain.regions["cortex"].layers, gates, strict=True):
            layer.depth = Given(gate[row : row + 1])
        alone = drive(brain, ids[row : row + 1], pieces=tokens_at_once)
        assert torch.equal(alone.spikes[0], a.spikes[row])
        pairs.append((alone.logits[0], a.logits[row]))
        state = zip(leaves(alone.state), leaves(a.state), strict=True)
        pairs += [(x[0], y[row]) for (_, x), (_, y) in state if x.dim()]
    assert max(a.gap(x, y) for x, y in pairs) <= 1e-9


def test_a_held_membrane_is_that_of_the_tokens_that_count():
    from backends import LifRule

    current, v0 = torch.randn(3, 20, 7, dtype=torch.float64) * 2, torch.rand(3, 7, dtype=torch.float64) * 3
    gate = (torch.rand(3, 20) < 0.4).double()
    gate[2] = 0
    for ops in (native.OPS, portable.OPS):
        spikes, v = held_lif_scan(ops, current, gate, v0, 0.6, 1.0, LifRule())
        for row in range(2):
            on = gate[row] > 0
            alone, last = ops.lif_scan(
                current[row : row + 1, on].transpose(0, 1), v0[row : row + 1], 0.6, 1.0, LifRule()
            )
            assert torch.equal(spikes[row, on], alone[:, 0]) and not spikes[row, ~on].any()
            assert torch.allclose(v[row], last[0], rtol=0, atol=1e-12)
        assert torch.equal(v[2], v0[2]) and not spikes[2].any()


@pytest.mark.parametrize("length", [1, 16])
def test_a_layer_that_is_skipped_multiplies_nothing(length, tiny_brain, tokens):
    """Without gradients no product of it is even called; of those that are, the inputs have one row a token sent."""
    brain = tiny_brain([DEPTH, "cortex.feedforwards=dense,dense"], ops=native.OPS).eval()
    rows: dict[str, list[int]] = {}
    for name, part in brain.regions["cortex"].layers.named_modules():
        if isinstance(part, nn.Linear) and not name.endswith("modulation"):
            part.register_forward_pre_hook(
                lambda _, given, name=name: rows.setdefault(name, []).append(given[0][..., 0].numel())
            )
    skipped, sent_once = torch.zeros(1, length), torch.zeros(1, length)
    sent_once[0, -1] = 1
    for first, second in ((skipped, sent_once), (sent_once, skipped)):
        rows.clear()
        for layer, gate in zip(brain.regions["cortex"].layers, (first, second), strict=True):
            layer.depth = Given(gate)
        with torch.no_grad():
            brain._scan(tokens(1, length), brain.init_state(1))
        on = "0" if first is sent_once else "1"
        assert len(rows) == 4 and all(name.startswith(f"{on}.") and count == [1] for name, count in rows.items())


def test_counted_products_are_those_that_torch_makes(tiny_brain, tokens):
    """One row of skipped layers, gathered: the accounting's integers are torch's own, to the last product."""
    off = [f"{name}.enabled=false" for name in ("hippocampus", "procedural", "endocrine", "amygdala")]
    mixers = ["cortex.mixers=recurrence,recurrence", "cortex.feedforwards=dense,dense"]
    brain = tiny_brain([DEPTH, *off, *mixers], ops=native.OPS).eval()
    for layer, gate in zip(brain.regions["cortex"].layers, ([1.0, 0.0] * 8, [0.0, 0.0, 1.0, 0.0] * 4), strict=True):
        layer.depth = Given(torch.tensor([gate]))
    tally = accounting.Tally(brain)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        out = brain._scan(tokens(1, 16), brain.init_state(1))
    tally.span([out.events], brain.commit(out.state)[1])
    assert tally.routed == [8, 4]
    load = accounting.workload(brain, tally, "tiny", (1.0, 0.0))
    counted = sum(row.count for row in load.operations if row.kind == "mac" and "depth" not in row.name)
    assert counter.get_total_flops() == 2 * counted


def test_the_router_learns_also_from_tokens_that_were_not_sent(tiny_brain, tokens):
    brain = tiny_brain([DEPTH, "cortex.feedforwards=dense,dense"])
    with torch.no_grad():
        brain.regions["thalamus"].threshold += 1e3  # nothing is sent
    out = brain.scan(tokens(2, 16), brain.init_state(2))
    assert not out.aux.route.any()
    with torch.no_grad():
        brain.regions["thalamus"].threshold -= 1e3
    out = brain.scan(tokens(2, 16), brain.init_state(2))
    out.aux.surprise.sum().backward()
    for layer in brain.regions["cortex"].layers:
        assert layer.depth.score.weight.grad.any()
    assert brain.regions["thalamus"].route.weight.grad.any()


@pytest.mark.parametrize("budget", [0.3, 0.75])
def test_the_controller_holds_the_budget(budget, tiny_brain, tokens):
    """Without any training: the threshold alone moves, from everything running to the share that was asked for."""
    brain = tiny_brain([DEPTH, f"thalamus.route_budget={budget}"])
    thalamus, shares = brain.regions["thalamus"], []
    with torch.no_grad():
        for step in range(400):
            loss = objective.window_loss(brain, tokens(8, 16, seed=step), brain.init_state(8), TrainConfig())
            thalamus.hold_budget(loss.route)
            shares.append(float(loss.route))
    assert abs(sum(shares[-50:]) / 50 - budget) < 0.02
    assert "regions.thalamus.threshold" in brain.state_dict()


def test_no_loss_pulls_at_the_budget_of_whole_layers(tiny_brain, tokens):
    brain, ids = tiny_brain([DEPTH]), tokens(2, 16)
    losses = [
        objective.window_loss(brain, ids, brain.init_state(2), TrainConfig(rate_weight=0.0, route_weight=weight))
        for weight in (0.0, 50.0)
    ]
    assert torch.equal(losses[0].total, losses[1].total)


def test_without_a_thalamus_or_a_cortex_nothing_is_skipped(tiny_brain, tokens):
    for off in ("thalamus", "cortex"):
        brain = tiny_brain([DEPTH, f"{off}.enabled=false"])
        assert not brain.config.skips_layers
        with torch.no_grad():
            assert brain.scan(tokens(2, 16), brain.init_state(2)).events.route.all()


def test_a_brain_of_skipped_layers_learns_to_its_budget_and_goes_on_from_its_file(tmp_path, tiny_brain, tokens):
    """A training run through its public door: the share approaches the budget, the threshold is saved with the weights."""
    text = tmp_path / "text.txt"
    text.write_text("The keeper counted the boats twice, and the boats counted him. " * 80, encoding="utf-8")
    sets = [
        f"brain.{DEPTH}",
        "brain.thalamus.route_budget=0.3",
        f"data.train={text}",
        "brain.cortex.mixers=" + ",".join(["recurrence"] * 5),
        "brain.cortex.feedforwards=" + ",".join(["dense"] * 5),
        "train.steps=30",
        "train.batch=4",
    ]
    brain = loop.train(apply_sets(presets.tiny(), [*sets, "train.eval_tokens=64"]), tmp_path / "run", "cpu")
    lines = (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    shares = [record["route"] for record in map(json.loads, lines) if record["event"] == "step"]
    assert abs(shares[-1] - 0.3) < abs(shares[0] - 0.3)
    threshold = brain.regions["thalamus"].threshold
    assert float(threshold) != 0.0
    loaded = neuro.load(tmp_path / "run" / "model").regions["thalamus"].threshold
    assert torch.allclose(loaded, threshold, atol=1e-3)


def test_recorded_membranes_stand_still_over_what_is_skipped(tiny_brain, drive, tokens):
    sets, ids = [DEPTH, "cortex.feedforwards=spiking,spiking"], tokens(2, 16)
    plain = tiny_brain(sets, record_raster=True)
    brain = tiny_brain(sets, record_raster=True, record_membrane=True)
    gates = half(plain, 2, 16)
    half(brain, 2, 16)
    threshold = brain.config.cortex.v_threshold
    with torch.no_grad():
        expected = plain.scan(ids, plain.init_state(2)).events.raster
        events = brain.scan(ids, brain.init_state(2)).events
    assert torch.equal(events.raster, expected) and expected.any()
    for layer, gate in enumerate(gates):
        u, spikes = events.membrane[:, :, layer], events.raster[:, :, layer]
        on = gate > 0
        assert torch.equal(u[on] >= threshold, spikes[on] > 0) and not spikes[~on].any()
        after = u - threshold * spikes
        for t in range(1, 16):
            held = ~on[:, t]
            assert torch.allclose(u[held, t], after[held, t - 1])
