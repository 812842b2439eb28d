"""Spike-timing-dependent plasticity: pairs, triplets, bounded weights, and a reward that comes later.

    r1, r2  traces of the presynaptic spikes (tau_plus, tau_x);   o1, o2  of the postsynaptic ones (tau_minus, tau_y)
    post spike:  dw = + r1 (a_plus  + a3_plus  o2)
    pre spike:   dw = - o1 (a_minus + a3_minus r2)                       each trace as the spikes of the step find it

A pre spike n steps before a post spike gives exactly a_plus exp(-n dt / tau_plus); two spikes in one step are neither
before nor after each other and give nothing. Without the a3 terms it is the pair rule (Song, Miller and Abbott 2000,
doi:10.1038/78829), with them the triplet rule (Pfister and Gerstner 2006, doi:10.1523/JNEUROSCI.1425-06.2006). All-to-all:
every spike adds one to its traces; nearest: it sets them to one.
Bounds: soft ones scale potentiation by (high - w) and depression by (w - low) (multiplicative rule, Rubin, Lee and
Sompolinsky 2001, doi:10.1103/PhysRevLett.86.364), and both kinds clamp after every step.
Reward: E_t = d E_{t-1} + dw_t, dw = sum_t reward_t E_t (Izhikevich 2007, doi:10.1093/cercor/bhl152).
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor

from backends import Ops, native
from neuro.errors import UsageError
from neuro.neurons import traces


class StdpState(NamedTuple):
    """The four traces; a slow one that the rule does not use is empty."""

    pre: Tensor  # [B,I]
    post: Tensor  # [B,O]
    pre_slow: Tensor | tuple[()]  # [B,I]
    post_slow: Tensor | tuple[()]  # [B,O]


class RewardState(NamedTuple):
    traces: StdpState
    eligibility: Tensor  # [B,O,I]


class _Factors(NamedTuple):
    """dw_t = up_post_t up_pre_t^T - down_post_t down_pre_t^T, [T,B,O] and [T,B,I] each."""

    up_post: Tensor
    up_pre: Tensor
    down_post: Tensor
    down_pre: Tensor


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Where weights end; ``soft`` slows them down on the way there."""

    low: float = 0.0
    high: float = 1.0
    soft: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise UsageError(
                f"Bounds: got low {self.low:g} and high {self.high:g}, expected low < high.", "Swap or widen them."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stdp:
    """A rule: amplitudes per spike, time constants in milliseconds, which spikes meet.

    Raises:
        UsageError: a negative amplitude, a time constant that is not positive or shorter than the step, a triplet term
            without its time constant.
    """

    a_plus: float
    a_minus: float
    tau_plus_ms: float
    tau_minus_ms: float
    a3_plus: float = 0.0
    a3_minus: float = 0.0
    tau_x_ms: float | None = None
    tau_y_ms: float | None = None
    dt_ms: float = 1.0
    nearest: bool = False

    def __post_init__(self) -> None:
        for name in ("a_plus", "a_minus", "a3_plus", "a3_minus"):
            value = getattr(self, name)
            if not value >= 0:
                raise UsageError(
                    f"Stdp.{name}: got {value:g}, expected a number >= 0.",
                    "Give the size of the change; potentiation is added and depression subtracted by the rule.",
                )
        for name in ("tau_plus_ms", "tau_minus_ms", "tau_x_ms", "tau_y_ms"):
            if getattr(self, name) is not None:
                self._decay(name)
        for term, tau in (("a3_plus", "tau_y_ms"), ("a3_minus", "tau_x_ms")):
            if getattr(self, term) and getattr(self, tau) is None:
                raise UsageError(
                    f"Stdp.{term}: got {getattr(self, term):g} without {tau}, expected both or neither.",
                    f"Give {tau}, or leave out {term} for the pair rule.",
                )

    def _decay(self, name: str) -> float:
        return traces.decay_of(f"Stdp.{name}", getattr(self, name), self.dt_ms)

    def init_state(
        self,
        batch: int,
        inputs: int,
        outputs: int,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> StdpState:
        pre = torch.zeros(batch, inputs, device=device, dtype=dtype)
        post = torch.zeros(batch, outputs, device=device, dtype=dtype)
        slow_pre = pre.clone() if self.a3_minus else ()
        return StdpState(pre, post, slow_pre, post.clone() if self.a3_plus else ())

    def step(self, pre: Tensor, post: Tensor, state: StdpState) -> tuple[Tensor, StdpState]:
        """pre [B,I], post [B,O] of one step -> change [B,O,I] of every stream, state: the equations as they stand."""
        traces.check_events("Stdp: pre", pre.unsqueeze(0), *state.pre.shape)
        traces.check_events("Stdp: post", post.unsqueeze(0), *state.post.shape)
        pre_before, post_before = self._decay("tau_plus_ms") * state.pre, self._decay("tau_minus_ms") * state.post
        up, down = self.a_plus * post, self.a_minus * pre
        slow_pre, slow_post = state.pre_slow, state.post_slow
        if isinstance(slow_post, Tensor):
            slow_post = self._decay("tau_y_ms") * slow_post
            up = up + self.a3_plus * slow_post * post
            slow_post = self._jump(slow_post, post)
        if isinstance(slow_pre, Tensor):
            slow_pre = self._decay("tau_x_ms") * slow_pre
            down = down + self.a3_minus * slow_pre * pre
            slow_pre = self._jump(slow_pre, pre)
        change = up.unsqueeze(2) * pre_before.unsqueeze(1) - post_before.unsqueeze(2) * down.unsqueeze(1)
        return change, StdpState(self._jump(pre_before, pre), self._jump(post_before, post), slow_pre, slow_post)

    def scan(
        self, pre: Tensor, post: Tensor, state: StdpState, per_stream: bool = False, ops: Ops = native.OPS
    ) -> tuple[Tensor, StdpState]:
        """pre [T,B,I], post [T,B,O] -> change [O,I] summed over streams, or [B,O,I] of each; state.

        Raises:
            UsageError: input that is not time first, of another size than the state, or not finite.
        """
        f, state = self._factors(pre, post, state, ops)
        product = traces.outer if per_stream else traces.outer_of_all
        return product(f.up_post, f.up_pre) - product(f.down_post, f.down_pre), state

    def learn(
        self,
        weights: Tensor,
        pre: Tensor,
        post: Tensor,
        state: StdpState,
        bounds: Bounds,
        ops: Ops = native.OPS,
    ) -> tuple[Tensor, StdpState]:
        """Bounded weights, which every step sees as the step before left them.

        Args:
            weights: [O,I], which the changes of all streams are added to, or [B,O,I], of each stream its own.
            pre: [T,B,I].
            post: [T,B,O].

        Raises:
            UsageError: as `scan`; weights of another shape, or outside their bounds.
        """
        size = (state.post.shape[1], state.pre.shape[1])
        if weights.shape not in (size, (state.pre.shape[0], *size)):
            raise UsageError(
                f"Stdp.learn: got weights {list(weights.shape)}, expected [O,I] = {list(size)} or one such a stream.",
                "Rows are postsynaptic neurons, columns presynaptic ones.",
            )
        if not bool(((weights >= bounds.low) & (weights <= bounds.high)).all()):
            raise UsageError(
                f"Stdp.learn: got weights outside [{bounds.low:g}, {bounds.high:g}] or NaN, expected them inside.",
                "Clamp the weights first, or widen the bounds.",
            )
        f, state = self._factors(pre, post, state, ops)
        for up_post, up_pre, down_post, down_pre in zip(*(x.split(1) for x in f), strict=True):
            product = traces.outer_of_all if weights.dim() == 2 else traces.outer
            up, down = product(up_post, up_pre), product(down_post, down_pre)
            if bounds.soft:
                up, down = up * (bounds.high - weights), down * (weights - bounds.low)
            weights = (weights + up - down).clamp(bounds.low, bounds.high)
        return weights, state

    def _factors(self, pre: Tensor, post: Tensor, state: StdpState, ops: Ops) -> tuple[_Factors, StdpState]:
        traces.check_events("Stdp: pre", pre, *state.pre.shape)
        traces.check_events("Stdp: post", post, *state.post.shape)
        if pre.shape[0] != post.shape[0]:
            raise UsageError(
                f"Stdp: got {pre.shape[0]} steps of pre and {post.shape[0]} of post, expected as many.",
                "Cut both at the same step.",
            )
        pre_before, pre_last = self._run(pre, state.pre, "tau_plus_ms", ops)
        post_before, post_last = self._run(post, state.post, "tau_minus_ms", ops)
        up, down = self.a_plus * post, self.a_minus * pre
        slow_pre, slow_post = state.pre_slow, state.post_slow
        if isinstance(slow_post, Tensor):
            found, slow_post = self._run(post, slow_post, "tau_y_ms", ops)
            up = up + self.a3_plus * found * post
        if isinstance(slow_pre, Tensor):
            found, slow_pre = self._run(pre, slow_pre, "tau_x_ms", ops)
            down = down + self.a3_minus * found * pre
        return _Factors(up, pre_before, post_before, down), StdpState(pre_last, post_last, slow_pre, slow_post)

    def _run(self, spikes: Tensor, start: Tensor, tau: str, ops: Ops) -> tuple[Tensor, Tensor]:
        decay = self._decay(tau)
        after = traces.trace(spikes, start, decay, ops, self.nearest)
        return traces.before(after, start, decay), after[-1]

    def _jump(self, found: Tensor, spikes: Tensor) -> Tensor:
        return torch.where(spikes != 0, torch.ones_like(found), found) if self.nearest else found + spikes


@dataclasses.dataclass(frozen=True)
class RewardStdp:
    """STDP whose changes wait in an eligibility trace for the reward that they may have earned."""

    rule: Stdp
    tau_eligibility_ms: float

    def __post_init__(self) -> None:
        self._decay()

    def _decay(self) -> float:
        return traces.decay_of("RewardStdp.tau_eligibility_ms", self.tau_eligibility_ms, self.rule.dt_ms)

    def init_state(
        self,
        batch: int,
        inputs: int,
        outputs: int,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> RewardState:
        waiting = torch.zeros(batch, outputs, inputs, device=device, dtype=dtype)
        return RewardState(self.rule.init_state(batch, inputs, outputs, device, dtype), waiting)

    def step(self, pre: Tensor, post: Tensor, reward: Tensor, state: RewardState) -> tuple[Tensor, RewardState]:
        """pre [B,I], post [B,O], reward [B] (or [B,O], each neuron its own) -> change [B,O,I], state."""
        change, spikes = self.rule.step(pre, post, state.traces)
        waiting = self._decay() * state.eligibility + change
        return reward.reshape(len(reward), -1, 1) * waiting, RewardState(spikes, waiting)

    def scan(
        self, pre: Tensor, post: Tensor, reward: Tensor, state: RewardState, ops: Ops = native.OPS
    ) -> tuple[Tensor, RewardState]:
        """pre [T,B,I], post [T,B,O], reward [T,B] (or [T,B,O]) -> change [B,O,I], state.

        Raises:
            UsageError: as `Stdp.scan`; a reward that is not of these steps and streams.
        """
        f, spikes = self.rule._factors(pre, post, state.traces, ops)
        third = reward.unsqueeze(-1) if reward.dim() == 2 else reward
        traces.check_events("RewardStdp: reward", third, pre.shape[1], post.shape[2] if reward.dim() == 3 else 1)
        if len(third) != len(pre):
            raise UsageError(
                f"RewardStdp: got {len(third)} steps of reward for {len(pre)} of spikes, expected as many.",
                "Give every step its reward; most are zero.",
            )
        decay, none = self._decay(), torch.zeros_like(state.eligibility)
        earned = traces.credited(third, f.up_post, f.up_pre, decay, state.eligibility, ops)
        lost = traces.credited(third, f.down_post, f.down_pre, decay, none, ops)
        waiting = traces.eligibility(f.up_post, f.up_pre, decay, state.eligibility)
        waiting = waiting - traces.eligibility(f.down_post, f.down_pre, decay, none)
        return earned - lost, RewardState(spikes, waiting)


BI_POO = Stdp(a_plus=0.777 / 60, a_minus=0.273 / 60, tau_plus_ms=16.8, tau_minus_ms=33.7)
"""Cultured hippocampal neurons: relative change 0.777 exp(-dt / 16.8 ms) and -0.273 exp(dt / 33.7 ms) after 60 pairings at
1 Hz. Data: Bi and Poo 1998, J. Neurosci. 18:10464; their fit: Bi and Poo 2001, doi:10.1146/annurev.neuro.24.1.139."""

VISUAL_CORTEX = {
    "all-to-all": Stdp(
        a_plus=5e-10,
        a_minus=7e-3,
        a3_plus=6.2e-3,
        a3_minus=2.3e-4,
        tau_plus_ms=16.8,
        tau_minus_ms=33.7,
        tau_x_ms=101.0,
        tau_y_ms=125.0,
    ),
    "all-to-all, minimal": Stdp(
        a_plus=0.0, a_minus=7.1e-3, a3_plus=6.5e-3, tau_plus_ms=16.8, tau_minus_ms=33.7, tau_y_ms=114.0
    ),
    "nearest, minimal": Stdp(
        a_plus=0.0, a_minus=8e-3, a3_plus=5e-2, tau_plus_ms=16.8, tau_minus_ms=33.7, tau_y_ms=40.0, nearest=True
    ),
}
"""Triplet models of layer 5 of visual cortex: Pfister and Gerstner 2006, table 3, fitted to Sjostrom, Turrigiano and Nelson
2001, doi:10.1016/S0896-6273(01)00542-6."""
