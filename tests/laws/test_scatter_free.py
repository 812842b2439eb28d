"""Law: the whole training step runs without scatter, index_put, data-dependent shapes, fallbacks or float64.

Checked by dispatching every operator of forward, commit, backward, clipping and the optimizer through the guard.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import backends
from backends import Backend, ForbiddenOperatorError, Ops, native, portable
from backends.guard import DATA_SHAPED, SCATTERS, OperatorGuard, ScatterFreeGuard, table
from neuro import presets, tasks
from neuro.brain import Brain
from neuro.config import apply_sets
from neuro.state import clone, leaves
from neuro.train import objective, optimizer, spike_regression
from neuro.train.loop import clip_gradient, held_out_nats

TRAIN = dataclasses.replace(presets.tiny().train, mixed_precision=False)


def backend(ops: Ops, scatter_free: bool) -> Backend:
    own = not scatter_free
    return dataclasses.replace(
        backends.select("cpu"), ops=ops, scatter_free=scatter_free, torch_optimizers=own, autocast=None
    )


def parts(
    ops: Ops, scatter_free: bool, sets: list[str] | None = None, dtype: torch.dtype = torch.float32
) -> tuple[Brain, torch.optim.Optimizer]:
    torch.manual_seed(0)
    where = dataclasses.replace(backend(ops, scatter_free), dtype=dtype)
    brain = Brain(apply_sets(presets.tiny().brain, sets or []), where)
    return brain, optimizer.make(brain, brain.backend, 2e-3, 0.1)


def training_step(brain: Brain, adam, ids: Tensor, state, fresh: Tensor):
    """As `neuro.train.loop.train` does it."""
    before = objective.fresh_rows(state, brain.init_state(ids.shape[0]), fresh)
    loss = objective.window_loss(brain, ids, before, TRAIN)
    adam.zero_grad(set_to_none=True)
    loss.total.backward()
    clip_gradient(brain.parameters(), TRAIN.clip_norm)
    adam.step()
    return float(loss.nats), loss.state


def test_the_training_step_of_portable_operators_passes_the_guard(toggles, tokens):
    brain, adam = parts(portable.OPS, True, toggles)
    assert isinstance(adam, optimizer.PortableAdamW)
    fresh, state, before = torch.tensor([True, False]), brain.init_state(2), brain.embedding.detach().clone()
    with ScatterFreeGuard() as guard:
        for seed in range(2):  # the second step begins with filled memory and running moments
            nats, state = training_step(brain, adam, tokens(2, 48, seed), state, fresh)
    assert 3.0 < nats < 8.0
    assert not torch.equal(before, brain.embedding)
    assert not any(x.is_floating_point() and x.isnan().any() for _, x in leaves(state))
    # It did watch: forward, backward and optimizer operators went by.
    assert {"mm", "sub", "_softmax", "_softmax_backward_data", "addcdiv_", "sqrt_"} <= guard.seen.keys()
    assert sum(guard.seen.values()) > 500


def test_evaluation_and_generation_pass_the_guard(toggles, tiny_brain, drive, tokens):
    brain = tiny_brain(toggles, ops=portable.OPS)
    brain.backend = dataclasses.replace(backend(portable.OPS, True), fp64=False)
    with ScatterFreeGuard():
        assert held_out_nats(brain, tokens(1, 80)[0].numpy(), 64) > 0
        drive(brain, tokens(2, 18), pieces=1)  # two tokens beyond a commit


def test_the_training_step_of_native_operators_does_not(tokens):
    brain, adam = parts(native.OPS, False)
    with pytest.raises(ForbiddenOperatorError, match=r"guard: got aten\.\w+"):
        with ScatterFreeGuard():
            training_step(brain, adam, tokens(2, 48), brain.init_state(2), torch.tensor([False, False]))


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Ops) if callable(getattr(native.OPS, f.name))])
def test_every_native_operator_that_scatters_is_caught_on_its_own(name, tokens):
    """One native operator among portable ones: embed, take_rows, write_rows and tally scatter, the others do not."""
    ops = dataclasses.replace(portable.OPS, **{name: getattr(native.OPS, name)})
    brain, adam = parts(ops, True, ["hippocampus.pointer=true"])

    def step() -> None:
        with ScatterFreeGuard():
            training_step(brain, adam, tokens(2, 48), brain.init_state(2), torch.tensor([False, False]))

    if name in ("embed", "take_rows", "write_rows", "tally"):
        with pytest.raises(ForbiddenOperatorError):
            step()
    elif name != "attention":  # fused attention is an operator of its own; whether it is fused depends on the build
        step()


def test_torchs_own_adamw_does_not_pass_the_guard(tokens):
    brain, _ = parts(portable.OPS, True)
    adam = torch.optim.AdamW(brain.parameters(), lr=1e-3)
    with pytest.raises(ForbiddenOperatorError, match=r"lerp"):
        with ScatterFreeGuard():
            training_step(brain, adam, tokens(2, 32), brain.init_state(2), torch.tensor([False, False]))


def weight() -> Tensor:
    return torch.randn(4, 6, requires_grad=True)


def backward(out: Tensor) -> None:
    out.sum().backward()


INDEX = torch.tensor([[0, 2], [1, 0], [3, 3], [5, 1]])
MASK = torch.tensor([True, False, True, True])
FAMILIES = {
    "gather backward": lambda: backward(weight().gather(1, INDEX)),
    "topk backward": lambda: backward(weight().topk(2).values),
    "max over an axis backward": lambda: backward(weight().max(1).values),
    "embedding backward": lambda: backward(F.embedding(torch.tensor([1, 2]), weight())),
    "index_select backward": lambda: backward(weight().index_select(0, torch.tensor([1, 1]))),
    "advanced indexing backward": lambda: backward(weight()[torch.tensor([0, 1]), torch.tensor([2, 2])]),
    "index_put": lambda: torch.zeros(4).__setitem__(torch.tensor([1, 2]), torch.ones(2)),
    "index_add": lambda: torch.zeros(4).index_add(0, torch.tensor([1, 2]), torch.ones(2)),
    "index_copy": lambda: torch.zeros(4).index_copy(0, torch.tensor([1, 2]), torch.ones(2)),
    "index_fill": lambda: torch.zeros(4).index_fill(0, torch.tensor([1, 2]), 1.0),
    "scatter": lambda: torch.zeros(2, 6).scatter(1, torch.tensor([[0], [3]]), 1.0),
    "scatter_add": lambda: torch.zeros(2, 6).scatter_add(1, torch.tensor([[0], [3]]), torch.ones(2, 1)),
    "scatter_reduce": lambda: torch.zeros(6).scatter_reduce(0, torch.tensor([0, 3]), torch.ones(2), "sum"),
    "masked_scatter": lambda: torch.zeros(4).masked_scatter(MASK, torch.ones(4)),
    "put": lambda: torch.zeros(4).put_(torch.tensor([1]), torch.ones(1)),
    "one_hot": lambda: F.one_hot(torch.tensor([0, 2]), 4),
    "nonzero": lambda: MASK.nonzero(),
    "where with one argument": lambda: torch.where(MASK),
    "a boolean mask as index": lambda: torch.ones(4)[MASK],
    "a boolean mask as place to write": lambda: torch.ones(4, 2).__setitem__(MASK, torch.zeros(3, 2)),
    "masked_select": lambda: torch.ones(4).masked_select(MASK),
    "unique": lambda: torch.tensor([1, 1, 2]).unique(),
    "unique of rows": lambda: torch.tensor([[1, 1], [1, 1]]).unique(dim=0),
    "unique_consecutive": lambda: torch.tensor([1, 1, 2]).unique_consecutive(),
    "bincount": lambda: torch.tensor([1, 1, 2]).bincount(),
    "repeat_interleave": lambda: torch.ones(2).repeat_interleave(torch.tensor([1, 2])),
    "lerp": lambda: torch.zeros(2).lerp(torch.ones(2), 0.5),
    "lerp in place": lambda: torch.zeros(2).lerp_(torch.ones(2), 0.5),
    "silu backward": lambda: backward(F.silu(weight())),
    "std": lambda: torch.ones(4).std(),
    "roll": lambda: torch.ones(4).roll(1),
    "cumprod": lambda: torch.ones(4).cumprod(0),
    "float64": lambda: torch.ones(4).double(),
    "bfloat16": lambda: torch.ones(4).bfloat16(),
    "a float64 made from a number": lambda: torch.tensor(1.0, dtype=torch.float64) + 1,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_forbidden_family_is_caught(family):
    FAMILIES[family]()  # it is a legal torch program without the guard
    with pytest.raises(ForbiddenOperatorError) as error, ScatterFreeGuard():
        FAMILIES[family]()
    assert error.value.exit_code == 1
    assert len(str(error.value).split("\n")) == 2


def test_what_portable_operators_are_made_of_is_allowed():
    x = weight()
    with ScatterFreeGuard() as guard:
        backward(torch.where(x > 0, x, -x) @ torch.ones(6, 2))
        torch.ones(4).topk(2)
        torch.cat([x[:1], x[1:]]).softmax(-1).sum().backward()
        x.index_select(0, torch.tensor([1, 2]))
        x.detach()[torch.tensor([0, 1])]
    assert guard.seen["mm"] >= 2
    with ScatterFreeGuard():
        pass
    MASK.nonzero()  # and outside of it everything is


def test_the_table_is_of_operators_that_exist_and_says_what_became_of_them():
    """A name that torch does not have guards nothing."""
    known = {name.removeprefix("aten::") for name in torch._C._dispatch_get_all_op_names() if name.startswith("aten::")}
    states = table()
    assert (len(states), list(states.values()).count("native")) == (1269, 504)
    for name, state in {"mm": "native", "add.Tensor": "native", "scatter_add": "native", "index.Tensor": "native",
                        "lerp.Scalar": "fallback", "roll": "fallback", "silu_backward": "fallback",
                        "clamp.Tensor": "fallback"}.items():  # fmt: skip
        assert states[name] == state
    # Torch gives up a few private operators from one release to the next; of the others every name is one.
    gone = {name for name in states.keys() - known if not name.startswith("_")}
    assert len(gone) < 20
    bases = {name.partition(".")[0] for name in known}
    assert (SCATTERS | DATA_SHAPED) - bases - {"_unsafe_masked_index_put_accumulate", "_unsafe_index_put"} == set()


SQUARE = torch.arange(12.0).reshape(3, 4)
LIMITS = {
    "a scatter into a wider tensor": (
        lambda: SQUARE.scatter(1, torch.tensor([[0], [3]]), 1.0),
        r"with index \[2, 1\] into \[3, 4\], expected them equal off axis 1",
    ),
    "a source of another shape": (
        lambda: SQUARE.scatter_add(1, torch.tensor([[0], [3], [1]]), SQUARE),
        r"with index \[3, 1\] and source \[3, 4\], expected equal shapes",
    ),
    "index_put over whole axes": (
        lambda: SQUARE.clone().__setitem__((slice(None), torch.tensor([1])), torch.ones(3, 1)),
        "with whole axes, expected an index for every axis",
    ),
    "index_put over the last axis": (
        lambda: SQUARE.clone().__setitem__(torch.tensor([1]), torch.ones(1, 4)),
        "with whole axes",
    ),
    "repeat over five axes": (lambda: torch.ones(2).repeat(1, 1, 1, 1, 2), "of 5 axes, expected at most 4"),
    "pads of two signs": (lambda: F.pad(SQUARE, (1, -1)), r"with pads \[1, -1\], expected all of one sign"),
    "six axes": (lambda: torch.ones(1, 1, 1, 1, 1, 2) + 1, "of 6 axes, expected at most 5"),
    "float64": (lambda: torch.ones(2).double(), "made a torch.float64 tensor"),
    "complex": (lambda: torch.complex(torch.ones(2), torch.ones(2)), "made a torch.complex64 tensor"),
    "foreach": (lambda: torch._foreach_add([SQUARE, SQUARE], 1.0), "DirectML has no foreach"),
    "inference mode": (lambda: torch.inference_mode()(lambda: SQUARE + 1)(), "ran in inference mode"),
}


@pytest.mark.parametrize("limit", LIMITS)
def test_what_directml_has_within_limits_is_refused_beyond_them(limit):
    program, says = LIMITS[limit]
    program()
    with pytest.raises(ForbiddenOperatorError, match=says) as error, OperatorGuard():
        program()
    assert len(str(error.value).split("\n")) == 2


def test_what_directml_has_is_allowed_within_its_limits():
    rows = torch.tensor([[0, 1, 2, 3]] * 3)
    with OperatorGuard() as guard:
        SQUARE.scatter(1, rows, SQUARE)
        SQUARE.clone().index_put_((torch.tensor([1]), torch.tensor([2])), torch.ones(1))
        torch.remainder(SQUARE, 2.0)  # a composite that hands a number on where a tensor is wanted
        F.pad(SQUARE, (1, 2)).repeat(1, 2)
        MASK.nonzero()
        SQUARE.requires_grad_(False).amax(1)
    assert {"scatter", "_index_put_impl_", "remainder", "nonzero"} <= guard.seen.keys()


def test_a_recall_task_is_trained_within_the_guard():
    """The answers that count are found on the host: their number is a shape that depends on data."""
    brain, adam = parts(portable.OPS, True, ["vocab_size=64"])
    rows = tasks.parse("task:mqar:T=48,pairs=4", 64)[0].rows(np.random.default_rng(0), 2, 64)
    ids, scored = torch.from_numpy(rows.tokens), torch.from_numpy(rows.scored)
    with ScatterFreeGuard() as guard:
        loss = objective.window_loss(brain, ids, brain.init_state(2), TRAIN, scored)
        loss.total.backward()
        clip_gradient(brain.parameters(), TRAIN.clip_norm)
        adam.step()
    assert "mm" in guard.seen and float(loss.nats) > 3.0


def test_the_hugging_face_face_learns_and_generates_within_the_guard(tiny_brain, tokens):
    """transformers' own loss and greedy decoding around the brain, over padding and several spans."""
    pytest.importorskip("transformers")
    from neuro.hf.modeling import NeuroForCausalLM

    brain = tiny_brain(ops=portable.OPS)
    brain.backend = dataclasses.replace(backend(portable.OPS, True), fp64=False)
    model, ids = NeuroForCausalLM.from_brain(brain.eval()), tokens(2, 21)
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    with ScatterFreeGuard() as guard:
        model(ids, attention_mask=mask, labels=ids).loss.backward()
        out = model.generate(ids, attention_mask=mask, max_new_tokens=20, do_sample=False, eos_token_id=None)
    assert out.shape == (2, 41) and guard.seen["nll_loss_backward"] == 1
    assert brain.embedding.grad is not None


def test_other_spiking_networks_learn_within_the_guard():
    where = backend(portable.OPS, True)
    x = (torch.rand(12, 3, 5) < 0.3).float()
    with ScatterFreeGuard() as guard:
        spike_regression.fit(x, x[..., :2], spike_regression.RegressionConfig(hidden=6, steps=2), where)
    assert {"sqrt", "addcdiv_"} <= guard.seen.keys()


def twenty_steps(tokens, dtype: torch.dtype, forced: bool) -> tuple[list[float], list[float]]:
    """Losses of torch.optim.AdamW over native operators, and their distances to PortableAdamW over portable ones.

    forced: before each step the portable arm gets the weights, moments and state of the native one.
    """
    arms = [(*parts(native.OPS, False, dtype=dtype),), (*parts(portable.OPS, True, dtype=dtype),)]
    assert isinstance(arms[0][1], torch.optim.AdamW) and isinstance(arms[1][1], optimizer.PortableAdamW)
    states = [brain.init_state(4) for brain, _ in arms]
    losses, apart = [], []
    for step in range(20):
        if forced:
            arms[1][0].load_state_dict(arms[0][0].state_dict())
            moments = arms[0][1].state_dict()["state"]
            kept = {i: {name: x.clone() for name, x in moment.items()} for i, moment in moments.items()}
            arms[1][1].load_state_dict(arms[1][1].state_dict() | {"state": kept})
            states[1] = clone(states[0])
        fresh, nats = torch.tensor([step % 5 == 3, False, False, False]), []
        for i, (brain, adam) in enumerate(arms):
            loss, states[i] = training_step(brain, adam, tokens(4, 32, step, vocab_size=40), states[i], fresh)
            nats.append(loss)
        losses.append(nats[0])
        apart.append(abs(nats[0] - nats[1]) if math.isfinite(nats[0] - nats[1]) else math.inf)
    return losses, apart


def test_twenty_steps_native_and_portable_have_the_same_losses_in_float64(tokens, measured):
    losses, apart = twenty_steps(tokens, torch.float64, forced=False)
    measured("max_loss_difference", max(apart))
    assert losses[0] - losses[-1] > 0.5  # it learns
    assert max(apart) <= 1e-9


def test_twenty_steps_native_and_portable_have_the_same_losses_in_float32(tokens, measured):
    """Every step from the same point: to 1e-5, save where rounding moves a spike over the threshold (rare and small).

    Running freely, one such spike parts the two for good: reported, and held to a hundredth of a nat.
    """
    losses, apart = twenty_steps(tokens, torch.float32, forced=True)
    measured("max_loss_difference", max(apart))
    assert losses[0] - losses[-1] > 0.5
    assert sorted(apart)[-3] <= 1e-5 and max(apart) <= 1e-3
    _, free = twenty_steps(tokens, torch.float32, forced=False)
    measured("max_loss_difference_running_freely", max(free))
    assert max(free[:5]) <= 1e-5 and max(free) <= 1e-2


def test_portable_adamw_is_torchs_adamw():
    """On a noisy quadratic in float64, with decay, over 200 steps and a changing learning rate; also after a reload."""
    found = []
    for portable_one in (True, False):
        torch.manual_seed(0)
        p, still = nn.Parameter(torch.randn(7, 3, dtype=torch.float64)), nn.Parameter(torch.ones(2))
        groups = [{"params": [p], "weight_decay": 0.1}, {"params": [still], "weight_decay": 0.1}]
        betas = optimizer.BETAS
        make = (lambda g: optimizer.PortableAdamW(g, 1e-2)) if portable_one else (
            lambda g, betas=betas: torch.optim.AdamW(g, lr=1e-2, betas=betas, eps=optimizer.EPS))  # fmt: skip
        adam = make(groups)
        for step in range(200):
            if step == 100:
                kept = adam.state_dict()
                adam = make([dict(group, params=group["params"]) for group in groups])
                adam.load_state_dict(kept)
            for group in adam.param_groups:
                group["lr"] = 1e-2 * (1 - step / 200)
            adam.zero_grad(set_to_none=True)
            ((p - 1) ** 2 * torch.rand(7, 3, dtype=torch.float64)).sum().backward()
            adam.step()
        assert torch.equal(still, torch.ones(2))  # no gradient, no step, no decay
        found.append(p.detach())
    assert float((found[0] - found[1]).abs().max()) < 1e-12


def test_matrices_decay_and_nothing_else_does(tiny_brain):
    brain = tiny_brain()
    decaying, rest = optimizer.make(brain, brain.backend, 1e-3, 0.1).param_groups
    assert (decaying["weight_decay"], rest["weight_decay"]) == (0.1, 0.0)
    names = {id(p): name for name, p in brain.named_parameters()}
    assert all(p.dim() >= 2 and names[id(p)] != "embedding" for p in decaying["params"])
    assert "embedding" in {names[id(p)] for p in rest["params"]}
    assert len(decaying["params"]) + len(rest["params"]) == len(names)
