"""NIR graphs run step by step, in NumPy and float64: forward Euler with the reset in the same step.

    LIF       v = (1 - dt/tau) v + dt/tau (v_leak + r x)             LI      the same, v goes out
    CubaLIF   i = (1 - dt/tau_syn) i + dt/tau_syn w_in x,  then v as above with r i (the current of the same step)
    IF        v = v + dt r x                                         I       the same, v goes out
    Threshold, LIF, CubaLIF, IF    z = 1 and v = v_reset where v > threshold
    Delay     x of round(delay / dt) steps before                    state and recurrent edges begin at 0

A spike is the value 1 for one step. differs: NIR states differential equations and no scheme; the exact solution decays by
exp(-dt/tau), and plain Euler would give the membrane of a CubaLIF the current of the step before. snnTorch, norse and
SpikingJelly do as written here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from neuro import nir_graph as nir
from neuro.errors import UsageError
from neuro.nir_graph import Graph, Node, Shape, delay_steps, euler_rate, step_of
from sims.nir.windows import convolve, pool

Step = Callable[[np.ndarray], np.ndarray]
SIGNALS = ("binary", "graded", "dense")


def steps(
    graph: Graph, inputs: np.ndarray, dt: float | None = None
) -> Iterator[dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Of each step what came into every node and what went out; not to be written to.

    Args:
        graph: the network.
        inputs: [T, *shape of the Input].
        dt: the step in seconds; by default the one stored with the graph.

    Raises:
        UsageError: inputs of another shape or not finite, no time step, one longer than a time constant, or a delay that is
            no whole number of steps.
    """
    dt = step_of(graph, dt)
    given = checked(graph, inputs)
    run = {name: _runner(name, node, graph.shapes[name][0], dt) for name, node in graph.nodes.items()}
    last = {name: np.zeros(shape) for name, (_, shape) in graph.shapes.items()}

    def every() -> Iterator[dict[str, tuple[np.ndarray, np.ndarray]]]:
        for x in given:
            now: dict[str, tuple[np.ndarray, np.ndarray]] = {}
            for name in graph.order:
                values = [last[a] if (a, name) in graph.recurrent else now[a][1] for a in graph.before[name]]
                total = x.astype(np.float64) if name == graph.input else sum(values[1:], start=values[0])
                now[name] = (total, run[name](total))
            last.update((name, out) for name, (_, out) in now.items())
            yield now

    return every()


def run(graph: Graph, inputs: np.ndarray, dt: float | None = None) -> dict[str, np.ndarray]:
    """What every node gave, [T, *shape]; arguments and errors as `steps`."""
    found = list(steps(graph, inputs, dt))
    return {name: np.stack([now[name][1] for now in found]) for name in graph.nodes}


def checked(graph: Graph, inputs: np.ndarray) -> np.ndarray:
    given, shape = np.asarray(inputs), graph.shapes[graph.input][0]
    if given.dtype.kind not in "fiub" or given.shape[1:] != shape or given.ndim == 0 or not len(given):
        form = ", ".join(["T", *map(str, shape)])
        raise UsageError(
            f"NIR graph: got inputs {given.dtype} {list(given.shape)}, expected numbers [{form}].",
            "Give time first, one sample, no batch axis.",
        )
    if not np.isfinite(given).all():
        raise UsageError("NIR graph: got inputs that are NaN or infinite, expected finite ones.", "Correct them.")
    return given


def _runner(name: str, node: Node, shape: Shape, dt: float) -> Step:
    """What a node does at each step; its state lives in the function."""

    constant = {key: value.astype(np.float64) for key, value in node.arrays().items()}
    match node:
        case nir.Input() | nir.Output():
            return lambda x: x
        case nir.Linear():
            bias = constant.get("bias", np.zeros(1))
            return lambda x: constant["weight"] @ x + bias
        case nir.Conv():
            bias = constant["bias"].reshape(-1, *(1,) * node.dims)
            return lambda x: convolve(x, constant["weight"], node) + bias
        case nir.Scale():
            return lambda x: constant["scale"] * x
        case nir.AvgPool2d():
            area = node.kernel[0] * node.kernel[1]
            return lambda x: pool(x, node) / area
        case nir.SumPool2d():
            return lambda x: pool(x, node)
        case nir.Flatten():
            out = node.output_shape(shape)
            assert out is not None
            return lambda x: x.reshape(out)
        case nir.Threshold():
            return lambda x: (x > constant["threshold"]).astype(np.float64)
        case nir.Delay():
            return _delay(delay_steps(name, node, dt))
        case nir.I() | nir.IF():
            return _membrane(shape, np.ones(shape), dt * constant["r"], np.zeros(shape), constant)
        case nir.LI():  # and LIF
            k = euler_rate(name, node, "tau", dt)
            return _membrane(shape, 1.0 - k, k * constant["r"], k * constant["v_leak"], constant)
        case nir.CubaLI():  # and CubaLIF
            k, s = (euler_rate(name, node, key, dt) for key in ("tau_mem", "tau_syn"))
            synapse = _membrane(shape, 1.0 - s, s * constant["w_in"], np.zeros(shape), {})
            membrane = _membrane(shape, 1.0 - k, k * constant["r"], k * constant["v_leak"], constant)
            return lambda x: membrane(synapse(x))
    raise AssertionError(f"no way to run {type(node).__name__}")


def _membrane(
    shape: Shape, decay: np.ndarray, gain: np.ndarray, rest: np.ndarray, constant: dict[str, np.ndarray]
) -> Step:
    """v = decay v + gain x + rest; with a threshold spikes go out, else v."""
    v = np.zeros(shape)
    threshold = constant.get("v_threshold")

    def step(x: np.ndarray) -> np.ndarray:
        nonlocal v
        v = decay * v + gain * x + rest
        if threshold is None:
            return v
        fired = v > threshold
        v = np.where(fired, constant["v_reset"], v)
        return fired.astype(np.float64)

    return step


def _delay(late: np.ndarray) -> Step:
    deep = int(late.max(initial=0)) + 1
    kept = np.zeros((deep, *late.shape))
    places = np.indices(late.shape)
    now = -1

    def step(x: np.ndarray) -> np.ndarray:
        nonlocal now
        now += 1
        kept[now % deep] = x
        return kept[((now - late) % deep, *places)]

    return step
