"""Any NIR graph as one torch module: branches, recurrence, delays and pools as well, learnable, its state explicit.

    LIF   v = (1 - dt/tau) v + dt/tau (v_leak + r x)        and the other nodes as `sims.nir.simulate` writes them

Weights, biases and scales are parameters; the constants of neurons are not. A spike has the surrogate's slope backward, and a
reset is a constant of the backward pass. `neuro.nir_modules.to_modules` makes layers of ours of a chain, which run faster.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backends import Surrogate
from backends.surrogate import spike
from neuro import nir_graph as nir
from neuro.errors import UsageError
from neuro.nir_graph import Graph, Node, Shape

LEARNED = ("weight", "bias", "scale")


class NetworkState(NamedTuple):
    """``held``: what each node with a memory holds, [B,...] each; ``last``: what the source of each recurrent edge gave."""

    held: tuple[Tensor, ...]
    last: tuple[Tensor, ...]


class NirNetwork(nn.Module):
    """[T,B,*shape of the Input] -> [T,B,*shape of the Output].

    Args:
        graph: with one Output.
        dt: the step in seconds; by default the one stored with the graph.
        surrogate: the derivative of a spike in the backward pass.
        dtype: by default float64 where a weight is, else float32.

    Raises:
        UsageError: no step, several Outputs, a time constant below the step, or a delay that is no whole number of steps.
    """

    def __init__(
        self,
        graph: Graph,
        dt: float | None = None,
        surrogate: Surrogate | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if len(graph.outputs) != 1:
            got = ", ".join(graph.outputs)
            raise UsageError(
                f"NirNetwork: got {len(graph.outputs)} Outputs ({got}), expected one.", "Join them, or cut the graph."
            )
        self._graph, self.dt = graph, nir.step_of(graph, dt)
        arrays = [(key, value.dtype) for node in graph.nodes.values() for key, value in node.arrays().items()]
        kinds = [kind for key, kind in arrays if key == "weight"] or [kind for _, kind in arrays]
        self.dtype = dtype or (torch.float64 if np.float64 in kinds else torch.float32)
        slope = surrogate or Surrogate()
        cells = [_Cell(name, graph.nodes[name], graph.shapes[name], self.dt, slope, self.dtype) for name in graph.order]
        self.cells = nn.ModuleList(cells)
        self._late = sorted({source for source, _ in graph.recurrent})

    def init_state(self, batch: int) -> NetworkState:
        """At rest: zeros."""
        device = next(self.buffers(), torch.empty(0)).device

        def zeros(shape: Shape) -> Tensor:
            return torch.zeros(batch, *shape, dtype=self.dtype, device=device)

        held = tuple(zeros(shape) for cell in self._cells() for shape in cell.held)
        return NetworkState(held, tuple(zeros(self._graph.shapes[name][1]) for name in self._late))

    def step(self, x: Tensor, state: NetworkState) -> tuple[Tensor, NetworkState]:
        """One step: (x [B,*shape], state) -> (what the Output gives [B,*shape], state)."""
        graph, now = self._graph, dict[str, Tensor]()
        last = dict(zip(self._late, state.last, strict=True))
        held, waiting = list[Tensor](), list(state.held)
        for cell in self._cells():
            coming = [
                last[a] if (a, cell.node_name) in graph.recurrent else now[a] for a in graph.before[cell.node_name]
            ]
            total = x if cell.node_name == graph.input else sum(coming[1:], start=coming[0])
            mine, waiting = waiting[: len(cell.held)], waiting[len(cell.held) :]
            now[cell.node_name], after = cell(total, mine)
            held += after
        return now[graph.outputs[0]], NetworkState(tuple(held), tuple(now[name] for name in self._late))

    def scan(self, x: Tensor, state: NetworkState) -> tuple[Tensor, NetworkState]:
        """T steps: (x [T,B,*shape], state) -> ([T,B,*shape], state).

        Raises:
            UsageError: an input that is not time-first of the Input's shape.
        """
        shape = self._graph.shapes[self._graph.input][0]
        if x.dim() != 2 + len(shape) or tuple(x.shape[2:]) != shape or not len(x) or x.dtype != self.dtype:
            raise UsageError(
                f"NirNetwork: got {x.dtype} {list(x.shape)}, expected {self.dtype} [T, B, {', '.join(map(str, shape))}].",
                "Give it time first, then the batch, in the network's type.",
            )
        found = []
        for x_t in x.unbind(0):
            out, state = self.step(x_t, state)
            found.append(out)
        return torch.stack(found), state

    def graph(self) -> Graph:
        """The graph with the weights as they are now, and the step."""
        nodes = dict(self._graph.nodes)
        for cell in self._cells():
            learned: dict[str, Any] = {key: value.detach().cpu().numpy() for key, value in cell.named_parameters()}
            nodes[cell.node_name] = dataclasses.replace(nodes[cell.node_name], **learned)
        return Graph(nodes, self._graph.edges, {**self._graph.metadata, "dt": self.dt})

    def _cells(self) -> list[_Cell]:
        return list(self.cells)  # type: ignore[arg-type]


class _Cell(nn.Module):
    """A node: (what comes in [B,...], what it holds) -> (what goes out, what it holds then)."""

    def __init__(
        self, name: str, node: Node, shapes: tuple[Shape, Shape], dt: float, surrogate: Surrogate, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.node_name, self.node, self.surrogate, self.out = name, node, surrogate, shapes[1]
        self.held: list[Shape] = []
        for key, value in node.arrays().items():
            if key in LEARNED:
                self.register_parameter(key, nn.Parameter(torch.tensor(value, dtype=dtype)))
        given = {key: value.astype(np.float64) for key, value in node.arrays().items()}
        constants: dict[str, np.ndarray] = {
            key: given[key] for key in ("threshold", "v_threshold", "v_reset") if key in given
        }
        if isinstance(node, nir.Delay):
            late = nir.delay_steps(name, node, dt)
            self.register_buffer("late", torch.from_numpy(late), persistent=False)
            self.held = [(int(late.max(initial=0)), *shapes[0])]
        if isinstance(node, nir.CubaLI):
            rate = nir.euler_rate(name, node, "tau_syn", dt)
            constants |= {"kept": 1.0 - rate, "charge": rate * given["w_in"]}
            self.held = [shapes[0]]
        if isinstance(node, nir.I | nir.IF):
            constants |= {"decay": np.ones(shapes[0]), "gain": dt * given["r"], "rest": np.zeros(shapes[0])}
        elif isinstance(node, nir.LI | nir.CubaLI):
            rate = nir.euler_rate(name, node, "tau" if isinstance(node, nir.LI) else "tau_mem", dt)
            constants |= {"decay": 1.0 - rate, "gain": rate * given["r"], "rest": rate * given["v_leak"]}
        if "decay" in constants:
            self.held = [*self.held, shapes[0]]
        for key, value in constants.items():
            self.register_buffer(key, torch.tensor(value, dtype=dtype), persistent=False)

    def forward(self, x: Tensor, held: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        node: Any = self.node
        c: Any = self  # constants and weights are attributes
        match node:
            case nir.Linear():
                return F.linear(x, c.weight, getattr(self, "bias", None)), []
            case nir.Conv():
                x = F.pad(x, [n for pads in reversed(node.pads) for n in pads])
                run: Any = F.conv1d if node.dims == 1 else F.conv2d
                return run(x, c.weight, c.bias, node.stride, 0, node.dilation, node.groups), []
            case nir.Scale():
                return c.scale * x, []
            case nir.SumPool2d():
                x = F.pad(x, [n for pads in reversed(node.pads) for n in pads])
                total = F.avg_pool2d(x, node.kernel, node.stride, divisor_override=1)
                return total / (node.kernel[0] * node.kernel[1]) if isinstance(node, nir.AvgPool2d) else total, []
            case nir.Flatten():
                return x.reshape(len(x), *self.out), []
            case nir.Threshold():
                return spike(x - c.threshold, self.surrogate, strict=True), []
            case nir.Delay():
                kept = torch.cat([held[0], x.unsqueeze(1)], 1)  # the newest last
                at = (kept.shape[1] - 1 - c.late).unsqueeze(0).expand(len(x), *c.late.shape)
                return kept.gather(1, at.unsqueeze(1)).squeeze(1), [kept[:, 1:]]
            case nir.CubaLI():
                current = c.kept * held[0] + c.charge * x
                out, v = self._membrane(current, held[1])
                return out, [current, v]
            case nir.I() | nir.IF() | nir.LI():
                out, v = self._membrane(x, held[0])
                return out, [v]
        return x, []  # Input and Output

    def _membrane(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        c: Any = self
        v = c.decay * v + c.gain * x + c.rest
        if type(self.node) not in nir.SPIKING:
            return v, v
        z = spike(v - c.v_threshold, self.surrogate, strict=True)
        return z, torch.where(z.detach() > 0, c.v_reset, v)
