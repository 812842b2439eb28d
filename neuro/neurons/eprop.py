"""E-prop: a recurrent network of (adaptive) LIF neurons that learns forward in time, without a tape.

    u_t = alpha v_{t-1} + W_in x_t + W_rec z_{t-1}      z_t = 1 where u_t >= A_t      A_t = theta + beta a_{t-1}
    v_t = u_t - theta z_t                               a_t = rho a_{t-1} + z_t       y_t = kappa y_{t-1} + W_out z_t

    psi_t = dampening / theta * max(0, 1 - |u_t - A_t| / theta)        what counts as the slope of a spike
    x'_t = alpha x'_{t-1} + x_t                                        trace of the input; of z_{t-1} for W_rec
    g_t  = (rho - beta psi_t) g_{t-1} + psi_t x'_t                     how the synapse has moved the threshold
    e_t  = psi_t (x'_t - beta g_{t-1}),   E_t = kappa E_{t-1} + e_t    eligibility of synapse ji
    dW_ji = sum_t (sum_k B_jk err_{t,k}) E_{t,ji}                      err = dLoss/dy;  dW_out = err times the trace of z

Source: Bellec et al. 2020, doi:10.1038/s41467-020-17236-y. It is the gradient of backpropagation through time (reset held
constant) less what goes from a neuron to the error through the spikes of other neurons at later steps; without recurrent
weights it is that gradient. Feedback B: ``symmetric`` is W_out^T, ``random`` is drawn once, ``adaptive`` is drawn and then
moves as W_out does (with decoupled weight decay on both it aligns: Kolen and Pollack 1994). differs: the reset is part of
what leaks, as in the LIF of `backends.contract.Ops.lif_scan`; no refractory period, no output bias.

`EpropNetwork.gradients` never lays an eligibility out over time: with mu_t, a trace of the learning signal run towards the
past with the decay of g, every sum above is one matrix product of [N,TB] and [TB,I].
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from backends import Ops, native
from neuro.errors import UsageError, nearest
from neuro.neurons import traces

FEEDBACK = ("symmetric", "random", "adaptive")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpropNeuron:
    """Constants of the neurons and of the leaky readout.

    Raises:
        UsageError: a time constant that is not positive or shorter than the step.
    """

    tau_mem_ms: float = 20.0
    tau_adapt_ms: float = 200.0
    tau_out_ms: float = 20.0
    dt_ms: float = 1.0
    threshold: float = 1.0
    dampening: float = 0.3

    def __post_init__(self) -> None:
        for name in ("tau_mem_ms", "tau_adapt_ms", "tau_out_ms"):
            self.decay(name)

    def decay(self, name: str) -> float:
        return traces.decay_of(f"EpropNeuron.{name}", getattr(self, name), self.dt_ms)


class NetworkState(NamedTuple):
    v: Tensor  # [B,N] membrane after the reset
    spikes: Tensor  # [B,N] of the last step
    adapt: Tensor  # [B,N]
    out: Tensor  # [B,K]


class Activity(NamedTuple):
    """What a scan leaves for learning."""

    inputs: Tensor  # [T,B,I]
    spikes: Tensor  # [T,B,N]
    slope: Tensor  # [T,B,N] psi
    out: Tensor  # [T,B,K]
    before: Tensor  # [B,N] the spikes of the step before the first


class SynapseState(NamedTuple):
    """Of the synapses of one matrix: its presynaptic trace, g (empty without adaptation) and E."""

    trace: Tensor  # [B,I]
    adapt: Tensor | tuple[()]  # [B,N,I]
    eligibility: Tensor  # [B,N,I]


class EpropState(NamedTuple):
    inputs: SynapseState
    recurrent: SynapseState
    spikes: Tensor  # [B,N] the trace of z that W_out sees


class Gradients(NamedTuple):
    """One gradient for each matrix, summed over steps and streams."""

    inputs: Tensor  # [N,I]
    recurrent: Tensor  # [N,N]
    out: Tensor  # [K,N]


class EpropNetwork(nn.Module):
    """inputs -> recurrent spiking neurons (no autapses) -> leaky readout.

    Args:
        adaptation: beta, one number or one for each neuron [N]; 0 is a plain LIF.
        gain: spread of the input weights and of the recurrent ones, times 1 / sqrt(fan in). What e-prop leaves out of the
            gradient grows with the norm of W_rec times the steps a membrane remembers, 1 / (1 - alpha): where that is
            many, learn the membranes' matrices more slowly by 1 - alpha (benchmarks/plasticity.py, patterns).
    """

    beta: Tensor
    mask: Tensor

    def __init__(
        self,
        inputs: int,
        neurons: int,
        outputs: int,
        constants: EpropNeuron | None = None,
        feedback: str = "symmetric",
        adaptation: float | Tensor = 0.0,
        gain: tuple[float, float] = (1.0, 0.2),
        generator: torch.Generator | None = None,
        ops: Ops = native.OPS,
    ) -> None:
        super().__init__()
        if feedback not in FEEDBACK:
            raise UsageError(
                f"EpropNetwork.feedback: got '{feedback}', expected one of {', '.join(FEEDBACK)}.",
                nearest(feedback, FEEDBACK),
            )
        beta = torch.as_tensor(adaptation, dtype=torch.get_default_dtype())
        if beta.shape not in ((), (neurons,)):
            raise UsageError(
                f"EpropNetwork.adaptation: got shape {list(beta.shape)}, expected one number or [{neurons}].",
                "Give every neuron its strength of adaptation; 0 is a plain LIF.",
            )
        self.constants, self.feedback, self.ops = constants or EpropNeuron(), feedback, ops

        def draw(rows: int, columns: int, spread: float) -> Tensor:
            return torch.randn(rows, columns, generator=generator) * (spread / math.sqrt(columns))

        self.inputs = nn.Parameter(draw(neurons, inputs, gain[0]))
        self.recurrent = nn.Parameter(draw(neurons, neurons, gain[1]).fill_diagonal_(0.0))
        # The readout sums over its time constant: spikes of unit variance give outputs of unit variance.
        leak = math.sqrt(1.0 - self.constants.decay("tau_out_ms") ** 2)
        self.out = nn.Parameter(draw(outputs, neurons, leak))
        if feedback != "symmetric":
            self.back = nn.Parameter(draw(outputs, neurons, leak).T.clone(), requires_grad=feedback == "adaptive")
        self.register_buffer("beta", beta.expand(neurons).clone())
        self.register_buffer("mask", 1.0 - torch.eye(neurons))
        self.adaptive = bool(beta.any())

    def init_state(self, batch: int) -> NetworkState:
        neurons, outputs = self.inputs.shape[0], self.out.shape[0]
        rest = self.inputs.new_zeros(batch, neurons)
        return NetworkState(rest, rest.clone(), rest.clone(), self.inputs.new_zeros(batch, outputs))

    def init_eprop(self, batch: int) -> EpropState:
        neurons, inputs = self.inputs.shape

        def synapses(width: int) -> SynapseState:
            quiet = self.inputs.new_zeros(batch, neurons, width)
            return SynapseState(self.inputs.new_zeros(batch, width), quiet.clone() if self.adaptive else (), quiet)

        return EpropState(synapses(inputs), synapses(neurons), self.inputs.new_zeros(batch, neurons))

    def scan(self, x: Tensor, state: NetworkState) -> tuple[Activity, NetworkState]:
        """x [T,B,I] -> activity, state.

        Differentiable: the gradient of a loss of ``activity.out`` is that of backpropagation through time with the same
        slopes. E-prop does not need it: call under ``torch.no_grad()``.

        Raises:
            UsageError: input that is not time first, of another size than the state, or not finite.
        """
        c = self.constants
        traces.check_events("EpropNetwork: x", x, state.v.shape[0], self.inputs.shape[1])
        alpha, rho, kappa = c.decay("tau_mem_ms"), c.decay("tau_adapt_ms"), c.decay("tau_out_ms")
        recurrent = (self.recurrent * self.mask).T
        v, z, a, y = state
        spikes, slopes = [], []
        for current in (x @ self.inputs.T).unbind(0):
            u = torch.addmm(current, z, recurrent) + alpha * v
            distance = u - c.threshold - self.beta * a if self.adaptive else u - c.threshold
            with torch.no_grad():
                slope = torch.relu(1.0 - distance.abs() / c.threshold) * (c.dampening / c.threshold)
                fired = (distance >= 0).to(u.dtype)
            z = fired + (distance - distance.detach()) * slope
            v = u - c.threshold * fired
            if self.adaptive:
                a = rho * a + z
            spikes.append(z)
            slopes.append(slope)
        drive = torch.stack(spikes)
        out = traces.trace(drive @ self.out.T, y, kappa, self.ops)
        activity = Activity(x, drive, torch.stack(slopes), out, state.spikes)
        return activity, NetworkState(v, z, a, out[-1])

    @torch.no_grad()
    def gradients(
        self, activity: Activity, error: Tensor, state: EpropState | None = None, direct: Tensor | None = None
    ) -> tuple[Gradients, EpropState | None]:
        """error [T,B,K], dLoss/dy -> gradient of each matrix, state.

        Args:
            state: eligibilities before the first step, when these steps go on where others ended; None starts at rest
                and returns None, which saves making [B,N,I].
            direct: [T,B,N] what the loss asks of the spikes themselves, not through the readout: a firing rate.

        Raises:
            UsageError: an error that is not of these steps, streams and outputs, or not finite.
        """
        c = self.constants
        self._check(activity, error)
        alpha, kappa = c.decay("tau_mem_ms"), c.decay("tau_out_ms")
        later = traces.ahead(error @ self._back(), kappa, self.ops)
        weight, entering = self._of_events(activity.slope, later if direct is None else later + direct)
        if state is None:
            quiet = torch.zeros_like(activity.before)
            starts = torch.zeros_like(activity.inputs[0]), quiet, quiet
        else:
            starts = state.inputs.trace, state.recurrent.trace, state.spikes
        before = torch.cat([activity.before.unsqueeze(0), activity.spikes[:-1]])
        inputs = traces.trace(activity.inputs, starts[0], alpha, self.ops)
        recurrent = traces.trace(before, starts[1], alpha, self.ops)
        spikes = traces.trace(activity.spikes, starts[2], kappa, self.ops)
        found = Gradients(
            traces.outer_of_all(weight, inputs),
            traces.outer_of_all(weight, recurrent) * self.mask,
            traces.outer_of_all(error, spikes),
        )
        if state is None:
            return found, None
        share = (kappa * later[0]).unsqueeze(-1), entering.unsqueeze(-1)
        found = found._replace(
            inputs=found.inputs + _waited(state.inputs, *share),
            recurrent=found.recurrent + _waited(state.recurrent, *share) * self.mask,
        )
        ends = (
            self._carry(activity.slope, inputs, state.inputs),
            self._carry(activity.slope, recurrent, state.recurrent),
        )
        return found, EpropState(*ends, spikes[-1])

    @torch.no_grad()
    def gradients_step(
        self, activity: Activity, error: Tensor, state: EpropState, direct: Tensor | None = None
    ) -> tuple[Gradients, EpropState]:
        """One step of `gradients` (activity, error and direct of one step) as the equations stand: what a chip would do."""
        self._check(activity, error)
        kappa, slope = self.constants.decay("tau_out_ms"), activity.slope[0]
        signals = error[0] @ self._back(), torch.zeros_like(slope) if direct is None else direct[0]
        spikes = kappa * state.spikes + activity.spikes[0]
        inputs, in_state = self._synapses_step(activity.inputs[0], slope, *signals, state.inputs)
        recurrent, rec_state = self._synapses_step(activity.before, slope, *signals, state.recurrent)
        return Gradients(inputs, recurrent * self.mask, error[0].T @ spikes), EpropState(in_state, rec_state, spikes)

    def add_to_grad(self, gradients: Gradients) -> None:
        """Adds them to the parameters' ``grad``, W_out's also to adaptive feedback, for any torch optimizer."""
        pairs = [(self.inputs, gradients.inputs), (self.recurrent, gradients.recurrent), (self.out, gradients.out)]
        if self.feedback == "adaptive":
            pairs.append((self.back, gradients.out.T))
        for parameter, gradient in pairs:
            parameter.grad = gradient.clone() if parameter.grad is None else parameter.grad + gradient

    def _back(self) -> Tensor:
        """[K,N]: which neuron hears of which output's error."""
        return self.out if self.feedback == "symmetric" else self.back.T

    def _check(self, activity: Activity, error: Tensor) -> None:
        traces.check_events("EpropNetwork: error", error, activity.out.shape[1], activity.out.shape[2])
        if len(error) != len(activity.out):
            raise UsageError(
                f"EpropNetwork: got {len(error)} steps of error for {len(activity.out)} of activity, expected as many.",
                "Give every step its error; zero where nothing is asked for.",
            )

    def _of_events(self, slope: Tensor, future: Tensor) -> tuple[Tensor, Tensor]:
        """What sum_t future_t e_t is made of: the weight of every x'_t [T,B,N], and of g before the first step [B,N]."""
        if not self.adaptive:
            return slope * future, torch.zeros_like(slope[0])
        moved = -self.beta * slope * future
        # mu_{t-1} = kept_t mu_t + moved_t, and after the last step nothing is moved.
        mu = self.ops.affine_scan(self._kept(slope).flip(0), moved.flip(0), torch.zeros_like(slope[0])).flip(0)
        after = torch.cat([mu[1:], torch.zeros_like(mu[:1])])
        return slope * (future + after), mu[0]

    def _carry(self, slope: Tensor, trace: Tensor, start: SynapseState) -> SynapseState:
        """The synapses of one matrix after the last step."""
        kappa, steps = self.constants.decay("tau_out_ms"), len(slope)
        age = torch.arange(steps - 1, -1, -1, device=slope.device, dtype=slope.dtype)
        weight, entering = self._of_events(slope, (kappa**age).reshape(-1, 1, 1).expand_as(slope))
        waiting = kappa**steps * start.eligibility + traces.outer(weight, trace)
        if not isinstance(start.adapt, Tensor):
            return SynapseState(trace[-1], (), waiting)
        adapt = traces.eligibility(slope, trace, self._kept(slope), start.adapt)
        return SynapseState(trace[-1], adapt, waiting + entering.unsqueeze(-1) * start.adapt)

    def _kept(self, slope: Tensor) -> Tensor:
        return self.constants.decay("tau_adapt_ms") - self.beta * slope

    def _synapses_step(
        self, events: Tensor, slope: Tensor, learning: Tensor, direct: Tensor, state: SynapseState
    ) -> tuple[Tensor, SynapseState]:
        c = self.constants
        trace = c.decay("tau_mem_ms") * state.trace + events
        arrived, adapt, psi = trace.unsqueeze(1).expand_as(state.eligibility), state.adapt, slope.unsqueeze(-1)
        if isinstance(adapt, Tensor):
            adapt, arrived = (
                self._kept(slope).unsqueeze(-1) * adapt + psi * arrived,
                arrived - self.beta.unsqueeze(-1) * adapt,
            )
        now = psi * arrived
        waiting = c.decay("tau_out_ms") * state.eligibility + now
        gradient = (learning.unsqueeze(-1) * waiting + direct.unsqueeze(-1) * now).sum(0)
        return gradient, SynapseState(trace, adapt, waiting)


def _waited(state: SynapseState, share: Tensor, of_adapt: Tensor) -> Tensor:
    """[N,I]: what the eligibilities from before the first step earn in these."""
    earned = share * state.eligibility
    if isinstance(state.adapt, Tensor):
        earned = earned + of_adapt * state.adapt
    return earned.sum(0)


def rate_error(spikes: Tensor, target_hz: float, strength: float, dt_ms: float) -> Tensor:
    """[T,B,N]: the derivative by each spike of strength / 2 * sum over streams and neurons of (rate - target)^2, rates in
    spikes a step: what keeps learning from silencing neurons or driving them (Bellec et al. 2020, methods)."""
    return (strength / len(spikes)) * (spikes.mean(0) - target_hz * dt_ms / 1000.0).expand_as(spikes)
