"""How long a clocked mesh of cores takes, from the loads of its cores, and what its static power takes meanwhile.

    t_step = max over cores (S tau_synop + N_a tau_update + N_i tau_idle + packets tau_message) + busiest link tau_hop
             + barrier(tiles)
    t      = max(sum of t_step, steps x real-time step, words x time of a word)

All times are the platform's constants, drawn as energies are, so they carry through to static energy. The barrier is
interpolated between its published ends. differs from a simulator of the mesh: packets do not wait for each other.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from neuro.errors import UsageError
from sims.energy.price import drawn
from sims.energy.streams import DRAWS
from sims.energy.technologies import Technology

_WORK = ("time_synaptic_op", "time_update", "time_idle", "time_message")
TIMES = (*_WORK, "time_hop_ew", "time_hop_ns", "barrier_1", "barrier_32")
_TILES = 32  # of the published barrier's long end


@dataclasses.dataclass(frozen=True, eq=False)
class MeshLoad:
    """What each core does: `[cores]` for the mean step, or `[steps, cores]` for each."""

    synops: np.ndarray
    active: np.ndarray  # neurons that have input or fire
    idle: np.ndarray  # the other neurons
    packets: np.ndarray  # sent
    tiles: int
    steps: int
    link_ew: float = 0.0  # packets a step over the busiest link, east or west
    link_ns: float = 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class MeshTime:
    """Draws `[DRAWS]` of one run."""

    time_s: np.ndarray
    compute_s: np.ndarray  # the part that the cores take; the rest waits for a clock or a host
    static_j: np.ndarray
    core: int  # the busiest at the constants' values, at the mean step
    paced_by: str  # "cores", "real time" or "input and output": what most draws are as long as


def mesh_time(
    load: MeshLoad,
    technology: Technology,
    seed: int = 0,
    *,
    real_time_step_s: float = 0.0,
    words: float = 0.0,
    word_s: float = 0.0,
    setup: bool = True,
) -> MeshTime:
    """Seconds of a run and the joules of static power in it.

    Args:
        real_time_step_s: a step lasts at least so long.
        words: input and output of the whole run, one after another.
        word_s: seconds a word.
        setup: whether static power varies as between boards.

    Raises:
        UsageError: a platform without times, loads of different shapes or below 0, tiles or steps below 1.
    """
    times = {c.kind: c for c in technology.constants if not c.priced}
    if missing := [kind for kind in TIMES if kind not in times]:
        raise UsageError(
            f"timing: '{technology.platform}' has no {missing[0]}, expected times of its cores and links.",
            "Give the seconds of a run yourself.",
        )
    _check(load, {"real_time_step_s": real_time_step_s, "words": words, "word_s": word_s})
    tau = {kind: drawn(times[kind], technology, seed) for kind in TIMES}
    work = np.stack([np.atleast_2d(x) for x in (load.synops, load.active, load.idle, load.packets)], axis=-1).astype(
        float
    )
    each = np.stack([tau[kind] for kind in _WORK])
    busiest = sum((np.max(step @ each, axis=0) for step in work), np.zeros(DRAWS)) * (load.steps / len(work))
    link = np.maximum(load.link_ew * tau["time_hop_ew"], load.link_ns * tau["time_hop_ns"])
    reach = (load.tiles - 1) / (_TILES - 1)
    barrier = tau["barrier_1"] + (tau["barrier_32"] - tau["barrier_1"]) * reach
    compute = busiest + load.steps * (link + np.maximum(barrier, tau["barrier_1"]))
    floors = {"real time": load.steps * real_time_step_s, "input and output": words * word_s}
    time_s = np.maximum(compute, max(floors.values()))
    slowest = max(floors, key=lambda name: floors[name])
    static = next((c for c in technology.constants if c.kind == "static"), None)
    static_j = time_s * drawn(static, technology, seed, setup) if static else np.zeros(DRAWS)
    nominal = work.mean(axis=0) @ np.array([times[kind].si for kind in _WORK])
    paced_by = "cores" if np.mean(compute >= floors[slowest]) >= 0.5 else slowest
    return MeshTime(time_s, compute, static_j, int(np.argmax(nominal)), paced_by)


def _check(load: MeshLoad, more: dict[str, float]) -> None:
    shapes = {np.shape(x) for x in (load.synops, load.active, load.idle, load.packets)}
    shape = np.shape(load.synops)
    steps = shape[0] if len(shape) == 2 else load.steps
    if len(shapes) != 1 or len(shape) not in (1, 2) or 0 in shape or steps != load.steps:
        raise UsageError(
            f"timing: got loads of shapes {', '.join(str(s) for s in sorted(shapes))} for {load.steps} steps, "
            "expected [cores] or [steps, cores], all the same.",
            "Give each core a load of each kind.",
        )
    for name, value in (("tiles", load.tiles), ("steps", load.steps)):
        if value < 1:
            raise UsageError(f"timing: got {name}={value}, expected at least 1.", "Give 1 or more.")
    fields = ("synops", "active", "idle", "packets", "link_ew", "link_ns")
    for name, values in ({name: getattr(load, name) for name in fields} | more).items():
        if not np.all(np.asarray(values) >= 0):
            raise UsageError(f"timing: got {name} below 0, expected at least 0.", "Count again.")
