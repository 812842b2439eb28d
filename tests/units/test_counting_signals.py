"""Signals are declared and follow what keeps them; spiking modules become populations with exact synaptic operations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuro.errors import NeuroError, UsageError
from neuro.layers.spiking_linear import SpikingLinear
from neuro.neurons import ALIF, IF, LIF
from neuro.workload import Operation, Population, Workload
from sims.counting import Counting, count


class Fires(nn.Module):
    """The given spikes, whatever comes in."""

    def __init__(self, spikes: Tensor) -> None:
        super().__init__()
        self.register_buffer("spikes", spikes)

    def forward(self, x: Tensor) -> Tensor:
        return self.spikes.clone()


class Through(nn.Module):
    """Spikes through a function into a linear layer."""

    def __init__(self, spikes: Tensor, function: Callable[[Tensor], Tensor], inputs: int) -> None:
        super().__init__()
        self.fires, self.function, self.linear = Fires(spikes), function, nn.Linear(inputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.function(self.fires(x)))


def product(load: Workload) -> Operation:
    (row,) = [row for row in load.operations if row.kind == "mac"]
    return row


def population(load: Workload) -> Population:
    (row,) = load.populations
    return row


def spikes(*shape: int, share: float = 0.4) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(1)) < share).float()


KEEP: dict[str, Callable[[Tensor], Tensor]] = {
    "view": lambda s: s.view(2, 8, 1).transpose(1, 2).contiguous().reshape(2, 8),
    "flatten": lambda s: s.unflatten(1, (2, 4)).flatten(1),
    "stack": lambda s: torch.stack([s, s]).unbind(0)[1],
    "cat": lambda s: torch.cat([s[:1], s[1:]]),
    "to": lambda s: s.double().float(),
    "dropout": lambda s: F.dropout(s, 0.5, training=False),
    "max_pool": lambda s: F.max_pool1d(s.unsqueeze(1), 1).squeeze(1),
    "mask": lambda s: s * (torch.arange(8) < 5),
    "masked_fill": lambda s: s.masked_fill(torch.arange(8) < 5, 0.0),
    "masked_fill_": lambda s: s.masked_fill_(torch.arange(8) < 5, 0.0),
    "where": lambda s: torch.where(torch.arange(8) < 5, s, 0.0),
    "and": lambda s: s * s.flip(1),
    "pad": lambda s: F.pad(s[:, 1:], (1, 0)),
    "index": lambda s: s[:, torch.arange(7, -1, -1)],
    "relu": lambda s: F.relu(s),
    "expand": lambda s: s.unsqueeze(1).expand(-1, 3, -1),
    "copy_": lambda s: torch.empty(2, 8).copy_(s),
    "amax": lambda s: torch.stack([s, s]).amax(0),
}
GRADE = {"scale": lambda s: s * 0.5, "scale_": lambda s: s.mul_(0.5), "share": lambda s: s / 3.0}
LOSE = {
    "add": lambda s: s + 1.0,
    "sum": lambda s: s + s,
    "weigh": lambda s: s * torch.rand(8),
    "fill_": lambda s: s.fill_(1.0),
}


@pytest.mark.parametrize("name", [*KEEP, *GRADE, *LOSE])
def test_a_signal_follows_what_keeps_it(name):
    function = (KEEP | GRADE | LOSE)[name]
    module = Through(spikes(2, 8), function, 8)
    load = count(module, torch.ones(2, 1), signals={"fires": "binary"})
    row = product(load)
    assert row.signal == ("binary" if name in KEEP else "graded" if name in GRADE else "dense")
    arrived = int((function(spikes(2, 8)) != 0).sum())
    assert row.effective == 3 * arrived
    assert population(load).synaptic_ops == (3 * arrived if name not in LOSE else 0)


def test_means_of_spikes_are_graded():
    module = Through(spikes(2, 8), lambda s: F.avg_pool1d(s.unsqueeze(1), 2).squeeze(1), 4)
    load = count(module, torch.ones(2, 1), signals={"fires": "binary"})
    pooled = F.avg_pool1d(spikes(2, 8).unsqueeze(1), 2)
    assert (product(load).signal, product(load).effective) == ("graded", 3 * int((pooled != 0).sum()))


def test_values_decide_nothing():
    module, x = nn.Linear(8, 3), spikes(2, 8)
    assert product(count(module, x)).signal == "dense"
    assert product(count(module, x, input_signal="binary")).signal == "binary"
    assert product(count(module, x, input_signal="graded")).signal == "graded"
    assert product(count(module, x)).effective == product(count(module, x, input_signal="binary")).effective


def test_two_samples_alone_are_two_samples_together():
    module, x = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4)), spikes(2, 8)
    together = [row.effective for row in count(module, x).operations if row.kind == "mac"]
    alone = [[row.effective for row in count(module, one[None]).operations if row.kind == "mac"] for one in x]
    assert together == [a + b for a, b in zip(*alone, strict=True)]


def test_a_binary_signal_holds_nothing_but_0_and_1():
    module = nn.Sequential(Fires(torch.tensor([[0.0, 1.0, 0.5]])), nn.Linear(3, 2))
    with pytest.raises(NeuroError) as error:
        count(module, torch.ones(1, 1), signals={"0": "binary"})
    assert str(error.value) == (
        "signals: the output of '0' is declared binary, got 0.5, expected only 0 and 1.\n"
        'Declare it "graded" or "dense", or correct the module.'
    )
    assert product(count(module, torch.ones(1, 1), signals={"0": "graded"})).effective == 4


@pytest.mark.parametrize("value", [-1.0, 2.0, float("inf"), float("nan"), 1e-30])
def test_hardly_binary(value):
    with pytest.raises(NeuroError, match="declared binary"):
        count(nn.Linear(2, 1), torch.tensor([[1.0, value]]), input_signal="binary")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_binary_in_every_type(dtype):
    module, x = nn.Linear(8, 3).to(dtype), spikes(2, 8).to(dtype)
    assert product(count(module, x, input_signal="binary")).effective == 3 * int(x.sum())
    with pytest.raises(NeuroError, match="declared binary"):
        count(module, x * 0.5, input_signal="binary")


def test_a_declared_dense_output_is_dense():
    module = nn.Sequential(LIFStep(8), nn.Linear(8, 3))
    assert product(count(module, torch.ones(2, 8) * 2)).signal == "binary"
    assert product(count(module, torch.ones(2, 8) * 2, signals={"0": "dense"})).signal == "dense"


class LIFStep(nn.Module):
    """A neuron of ours in a module of the user's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.neuron = LIF(width, beta=0.9)

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron.step(x, self.neuron.init_state(x.shape[0]))[0]


@pytest.mark.parametrize("make", [lambda: LIF(6, beta=0.9), lambda: IF(6), lambda: ALIF(6, 10.0, 100.0)])
def test_our_neurons_declare_themselves(make):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.neuron, self.down = nn.Linear(8, 6), make(), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            fired, _ = self.neuron.scan(self.up(x), self.neuron.init_state(x.shape[1]))
            FIRED.append(fired)
            return self.down(fired)

    torch.manual_seed(0)
    load = count(Net(), 3 * torch.rand(5, 2, 8), samples=2)
    fired = int(FIRED.pop().sum())
    one = population(load)
    assert (one.name, one.region, one.neurons, one.updates) == ("neuron", "neuron", 6, 60)
    assert (one.spikes, one.synaptic_ops, one.fan_out, one.fan_in, one.input_signal) == (
        fired,
        3 * fired,
        3,
        8,
        "dense",
    )
    assert one.weight_bits == 8 and one.target == ""
    assert [row.kind for row in load.operations if row.region == "neuron"] == []  # its arithmetic is its updates
    (state,) = [row for row in load.traffic if row.store == "state"]
    assert state.read_bytes == state.written_bytes == 60 * 4 * len(make().state_type._fields)


FIRED: list[Tensor] = []


def test_a_layer_of_linear_and_neurons_is_both():
    layer, next_one = SpikingLinear(64, LIF(32, beta=0.9)), nn.Linear(32, 5)
    with torch.no_grad():
        layer.weight[:, :10] = 0.0
    module, x = nn.ModuleList([layer, next_one]), spikes(7, 2, 64)
    with Counting(module) as counting:
        counting.given([x], "binary")
        fired, _ = layer.scan(x, layer.init_state(2))
        next_one(fired)
    load = counting.workload(2)
    first, second = [row for row in load.operations if row.kind == "mac"]
    assert (first.signal, first.count, first.effective) == ("binary", 14 * 64 * 32, 32 * int(x[..., 10:].sum()))
    assert (second.signal, second.effective) == ("binary", 5 * int(fired.sum()))
    one = population(load)
    assert (one.neurons, one.updates, one.fan_in, one.input_signal) == (32, 14 * 32, 64, "binary")


def test_snntorch_declares_itself():
    snntorch = pytest.importorskip("snntorch")
    net = nn.Sequential(nn.Linear(8, 6), snntorch.Leaky(0.9, init_hidden=True), nn.Linear(6, 3))
    net.append(snntorch.Leaky(0.9, init_hidden=True, output=True))
    load = count(net, 5 * torch.rand(4, 8))
    assert [row.signal for row in load.operations if row.kind == "mac"] == ["dense", "binary"]
    hidden, out = load.populations
    assert (hidden.neurons, hidden.updates, hidden.fan_in, out.input_signal) == (6, 24, 8, "binary")
    assert hidden.synaptic_ops == 3 * hidden.spikes
    graded = nn.Sequential(snntorch.Leaky(0.9, init_hidden=True, graded_spikes_factor=0.5), nn.Linear(8, 3))
    assert product(count(graded, 5 * torch.rand(4, 8))).signal == "graded"


def test_a_recurrent_neuron_counts_the_weights_inside():
    snntorch = pytest.importorskip("snntorch")
    load = count(nn.Sequential(snntorch.RLeaky(0.9, linear_features=6, init_hidden=True)), torch.rand(4, 6))
    assert sum(row.count for row in load.operations if row.kind == "mac") == 4 * 36
    assert population(load).neurons == 6


def test_steps_before_the_batch():
    class Multi(Fires):
        step_mode = "m"

    load = count(Multi(spikes(5, 2, 6)), torch.ones(5, 2, 6), signals={"": "binary"})
    assert (population(load).neurons, population(load).updates) == (6, 60)


class Joined(nn.Module):
    """Two populations in one tensor, flattened, pooled or gathered on their way."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.a, self.b, self.way = Fires(spikes(2, 3, 4, 4)), Fires(spikes(2, 2, 4, 4, share=0.7)), way
        width = {"flatten": 80, "pool": 20}.get(way, 5)
        self.next = nn.Conv2d(5, 6, 3, padding=1) if way == "conv" else nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.next(self.together(self.a(x), self.b(x)))

    def together(self, a: Tensor, b: Tensor) -> Tensor:
        s = torch.cat([a, b], 1)
        if self.way == "pool":
            return F.max_pool2d(s, 2).flatten(1)
        return {"flatten": s.flatten(1), "rows": s.permute(0, 2, 3, 1), "conv": s}[self.way]


@pytest.mark.parametrize("way", ["flatten", "rows", "pool", "conv"])
def test_populations_that_are_joined_keep_apart(way):
    module = Joined(way)
    load = count(module, torch.ones(2, 1), signals={"a": "binary", "b": "binary"})
    found = {one.name: one.synaptic_ops for one in load.populations}
    a, b = module.a.spikes, module.b.spikes
    for name, pair in (("a", (a, 0 * b)), ("b", (0 * a, b))):
        x = module.together(*pair)
        alone = count(module.next, x, input_signal="binary")
        assert found[name] == product(alone).effective
    assert sum(found.values()) == product(load).effective


def test_spikes_that_two_layers_read_are_made_twice():
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fires, self.left, self.right = Fires(spikes(2, 8)), nn.Linear(8, 3), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            s = self.fires(x)
            return self.left(s).sum() + self.right(s).sum()

    one = population(count(Fork(), torch.ones(2, 1), signals={"fires": "binary"}))
    assert (one.fan_out, one.synaptic_ops) == (7, 7 * one.spikes)


def test_spikes_that_pass_through_a_declared_module_are_still_their_neurons():
    module = nn.Sequential(Fires(spikes(2, 4, 2)), nn.Flatten(), nn.Linear(8, 3))
    one = population(count(module, torch.ones(2, 1), signals={"0": "binary", "1": "binary"}))
    assert (one.name, one.synaptic_ops) == ("0", 3 * int(spikes(2, 4, 2).sum()))


def test_signals_name_submodules_that_run():
    module = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    x = torch.ones(1, 3)
    with pytest.raises(UsageError) as error:
        count(module, x, signals={"2": "binary"})
    assert str(error.value) == "signals: got '2', expected the path of a submodule.\nKnown: 0, 1."
    with pytest.raises(UsageError) as error:
        count(nn.Sequential(), x, signals={"leaky": "binary"})
    assert (
        str(error.value)
        == "signals: got 'leaky', expected the path of a submodule.\nKnown: none, it has no submodules."
    )
    named = nn.ModuleDict({"leaky": nn.ReLU()})
    with pytest.raises(UsageError, match=r"got 'leaki', expected .*\nDid you mean 'leaky'\?"):
        count(named, x, signals={"leaki": "binary"}, call=lambda m, x: m["leaky"](x))
    with pytest.raises(UsageError) as error:
        count(module, x, signals={"1": "spikes"})
    assert str(error.value) == (
        "signals '1': got 'spikes', expected one of binary, graded, dense.\nSay what the submodule's output is."
    )
    with pytest.raises(UsageError) as error:
        count(module, x, signals={"1": "graded"}, call=lambda m, x: m[0](x))
    assert str(error.value) == (
        "signals: got '1', which never ran, expected a submodule that is called.\n"
        "Leave it out, or name one that ran. Ran: 0."
    )
    with pytest.raises(UsageError, match="expected one of binary, graded, dense"):
        count(module, x, input_signal="spikes")


def test_a_signal_of_no_tensor_is_an_error():
    class Says(nn.Module):
        def forward(self, x: Tensor) -> str:
            return "spikes"

    with pytest.raises(UsageError) as error:
        count(nn.Sequential(Says()), torch.ones(1), signals={"0": "binary"})
    assert str(error.value) == (
        "signals: '0' is declared binary, got an output of str, expected a tensor.\n"
        "Declare the submodule whose output is the tensor."
    )
