"""Place cells on a track: gamma nested in theta, and spikes that come ever earlier in theta as the field is crossed.

An animal runs at a constant speed. Each place cell's excitation climbs as its field is crossed and then drops; inhibition
common to all swings at theta. The stronger the excitation, the earlier in the swing it wins (Mehta, Lee and Wilson 2002,
doi:10.1038/nature00807), and a cell that fired is held back by adaptation for the rest of the cycle. Place cells drive
interneurons, which inhibit them all back: while theta lets them fire, they do so at gamma.

Theta phase 0 is the peak of the inhibition. The slope is the circular-linear one of Kempter et al. 2012
(doi:10.1016/j.jneumeth.2012.03.007), over all spikes of all fields, in degrees a ramp. A cell does not fire at the foot of
its ramp: the shift is the slope times the share of the ramp over which it fires (the middle 95 % of the spikes), to be held
against the 100 to 355 degrees of O'Keefe and Recce 1993 (doi:10.1002/hipo.450030307). Two things widen it: a ramp that ends
above what theta's inhibition takes away, and adaptation that outlasts the rest of the cycle, so that a cell fires once in it.
The phase goes with the place and not with the speed (Geisler et al. 2007, doi:10.1073/pnas.0610121104): the slope is taken
again at twice the speed, where nothing was chosen. Cells whose phase precesses fire faster than theta, by the intervals of one
cell's spikes from half a cycle to one and a half.
Coupling is Tort et al.'s modulation index (2010, doi:10.1152/jn.00106.2010) of the gamma amplitude of the interneurons' rate
by theta phase.

Lesion: no theta, the inhibition stays at its mean.
"""

from __future__ import annotations

import math

import numpy as np

from sims.circuits.outcome import Outcome, brian

CELLS = 80
INTERNEURONS = 20
THETA_HZ = 8.0
SPEED_CM_S = 20.0
FIELD_CM = 40.0
TRACK_CM = 160.0
DRIVE = 8.0
INHIBITION = 4.5
NOISE = 0.15
ADAPTATION = 7.0
ADAPTATION_MS = 90.0
TO_INTERNEURONS = 0.4
TO_CELLS = 0.25
GABA_MS = 4.0
DT_MS = 0.5
GAMMA_HZ = (30.0, 100.0)
ENOUGH = 8


def run(seed: int, lesion: bool = False) -> Outcome:
    """One run along the track and one at twice the speed.

    Raises:
        MissingError: brian2 is not installed.
    """
    seconds = TRACK_CM / SPEED_CM_S
    cells, others, place, phases = crossing(seed, SPEED_CM_S, lesion)
    slope, offset, fit = precession(place, phases)
    entered, left = np.quantile(place, [0.025, 0.975])
    rate = np.histogram(others[0], bins=round(seconds * 1e3), range=(0, seconds))[0] / INTERNEURONS * 1e3
    peak, coupling, amplitudes = nesting(rate)
    return Outcome(
        {
            "slope_deg_per_field": math.degrees(slope),
            "shift_deg": math.degrees(slope) * float(left - entered),
            "phase_fit": fit,
            "gamma_hz": peak,
            "coupling": coupling,
            "fast_slope_deg": math.degrees(precession(*crossing(seed, 2 * SPEED_CM_S, lesion)[2:])[0]),
            "negative_fields": falling(place, phases, cells[1]),
            "cell_over_theta": pace(*cells) / THETA_HZ,
        },
        {
            "place": place,
            "phase": np.degrees(phases),
            "line": np.degrees(np.array([offset, slope])),
            "amplitude": amplitudes,
            "rate": rate[1000:1500],
        },
    )


def crossing(seed: int, speed_cm_s: float, lesion: bool) -> tuple[tuple, tuple, np.ndarray, np.ndarray]:
    """(seconds, cell) of the place cells' spikes and of the interneurons'; of the former the part of the ramp and the phase."""
    cells, others, starts = _spikes(seed, speed_cm_s, lesion)
    place = (cells[0] * speed_cm_s - starts[cells[1]]) / FIELD_CM
    return cells, others, place, 2 * math.pi * (cells[0] * THETA_HZ % 1)


def falling(place: np.ndarray, phases: np.ndarray, cells: np.ndarray) -> float:
    """Share of the cells with at least `ENOUGH` spikes whose own slope is negative; nan where there is none."""
    fields = [cells == cell for cell in np.unique(cells)]
    slopes = [precession(place[mine], phases[mine])[0] for mine in fields if mine.sum() >= ENOUGH]
    return float(np.mean(np.array(slopes) < 0)) if slopes else float("nan")


def pace(seconds: np.ndarray, cells: np.ndarray) -> float:
    """Hz of one cell's spikes, by the mean interval among those of half a theta cycle to one and a half; nan without one."""
    order = np.lexsort((seconds, cells))
    gaps, same = np.diff(seconds[order]), np.diff(cells[order]) == 0
    cycles = gaps * THETA_HZ
    near = gaps[same & (cycles > 0.5) & (cycles < 1.5)]
    return 1 / float(near.mean()) if len(near) else float("nan")


def precession(place: np.ndarray, phases: np.ndarray) -> tuple[float, float, float]:
    """(radians a unit of place, phase at 0, length of the mean residual vector): the slope within one turn that fits best."""
    slopes = np.linspace(-2 * math.pi, 2 * math.pi, 2001)
    fits = np.exp(1j * (phases - slopes[:, None] * place)).mean(1)
    best = int(np.abs(fits).argmax())
    return float(slopes[best]), float(np.angle(fits[best])) % (2 * math.pi), float(np.abs(fits[best]))


def nesting(rate: np.ndarray) -> tuple[float, float, np.ndarray]:
    """A rate in Hz at every ms -> (Hz of the gamma peak, modulation index, share of gamma amplitude in 18 bins of theta)."""
    spectrum = np.fft.rfft(rate - rate.mean())
    hz = np.fft.rfftfreq(len(rate), 1e-3)
    band = (hz >= GAMMA_HZ[0]) & (hz <= GAMMA_HZ[1])
    power = np.convolve(np.abs(spectrum) ** 2, np.hanning(41), "same")
    analytic = np.zeros(len(rate), complex)
    analytic[: len(hz)] = np.where(band, 2 * spectrum, 0)
    amplitude = np.abs(np.fft.ifft(analytic))
    phase = (np.arange(len(rate)) * 1e-3 * THETA_HZ % 1 * 18).astype(int)
    share = np.bincount(phase, amplitude, 18) / np.bincount(phase, minlength=18)
    share /= share.sum()
    entropy = -float((share * np.log(share)).sum())
    return float(hz[band][power[band].argmax()]), 1 - entropy / math.log(18), share


def _spikes(seed: int, speed_cm_s: float, lesion: bool) -> tuple[tuple, tuple, np.ndarray]:
    """(seconds, cell) of the place cells' spikes and of the interneurons', and the cm at which each field starts."""
    brian2 = brian(seed)
    seconds = TRACK_CM / speed_cm_s
    ms, hz = brian2.ms, brian2.Hz
    space = {
        "tau": 15 * ms,
        "tau_a": ADAPTATION_MS * ms,
        "tau_i": GABA_MS * ms,
        "speed": speed_cm_s * hz,
        "field": FIELD_CM,
        "drive": DRIVE,
        "inhibition": INHIBITION,
        "swing": 0.0 if lesion else 1.0,
        "theta": THETA_HZ * hz,
        "noise": NOISE,
        "jump": ADAPTATION,
        "out": TO_INTERNEURONS,
        "back": TO_CELLS,
    }
    dt = DT_MS * ms
    cells = brian2.NeuronGroup(
        CELLS,
        """
        x = (speed*t - begin)/field : 1
        ramp = drive*x*int(x > 0)*int(x < 1) : 1
        swung = inhibition*(1 + swing*cos(2*pi*theta*t))/2 : 1
        dv/dt = (ramp - swung - a - g - v)/tau + noise*sqrt(2/tau)*xi : 1 (unless refractory)
        da/dt = -a/tau_a : 1
        dg/dt = -g/tau_i : 1
        begin : 1 (constant)
        """,
        threshold="v > 1",
        reset="v = 0; a += jump",
        refractory=2 * ms,
        method="euler",
        dt=dt,
        namespace=space,
        name="place_cells",
    )
    starts = np.linspace(-FIELD_CM / 2, TRACK_CM - FIELD_CM / 2, CELLS)
    cells.begin = starts
    others = brian2.NeuronGroup(
        INTERNEURONS,
        "dv/dt = -v/(10*ms) + noise*sqrt(2/(10*ms))*xi : 1 (unless refractory)",
        threshold="v > 1",
        reset="v = 0",
        refractory=2 * ms,
        method="euler",
        dt=dt,
        namespace=space,
        name="interneurons",
    )
    there = brian2.Synapses(cells, others, on_pre="v_post += out", delay=1 * ms, dt=dt, namespace=space)
    again = brian2.Synapses(others, cells, on_pre="g_post += back", delay=1 * ms, dt=dt, namespace=space)
    there.connect()
    again.connect()
    heard = [brian2.SpikeMonitor(group) for group in (cells, others)]
    brian2.Network(cells, others, there, again, *heard).run(seconds * brian2.second, namespace={})
    first, second = ((np.asarray(m.t / brian2.second), np.asarray(m.i)) for m in heard)
    return first, second, starts
