"""An upper bound of the cores that spiking populations need, without a search.

A population's neurons sit on source cores; its synapses sit where their targets add them up, each target in a compartment
of its own. A target keeps all its inputs on one core, so a fan-in that no core can hold does not fit at all. No core is
shared by two populations; headers and alignment of synapse memory are left out (`place` counts both exactly).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from neuro.workload import Population
from sims.chips import Chip


@dataclasses.dataclass(frozen=True)
class Placed:
    """Cores one population needs, by each limit; the largest counts."""

    name: str
    neurons: int
    targets: int
    source_cores_by: dict[str, int]  # compartments, out_axons
    target_cores_by: dict[str, int]  # compartments, synapse_bits
    problem: str = ""  # why it does not fit at all; empty when it does

    @property
    def source_cores(self) -> int:
        return max(self.source_cores_by.values(), default=0)

    @property
    def target_cores(self) -> int:
        return max(self.target_cores_by.values(), default=0)

    @property
    def reason(self) -> str:
        """In words: why it does not fit, or what takes how many cores."""
        if self.problem:
            return self.problem
        return (
            f"{self.neurons} neurons on {_cores(self.source_cores_by)}, "
            f"their {self.targets} targets with the synapses on {_cores(self.target_cores_by)}"
        )


@dataclasses.dataclass(frozen=True)
class Fit:
    """Cores and chips for all populations."""

    chip: str
    cores: int
    chips: int  # 0 when something does not fit
    verdict: str
    rows: tuple[Placed, ...]

    @property
    def fits(self) -> bool:
        """Every population can be placed, on however many chips."""
        return not any(row.problem for row in self.rows)


def fit(populations: Sequence[Population], chip: Chip) -> Fit:
    """How many cores and chips the populations need, or why they do not fit."""
    rows = tuple(_place(population, chip) for population in populations)
    cores = sum(row.source_cores + row.target_cores for row in rows)
    chips = _ceil(cores, chip.limits["cores"])
    broken = next((row for row in rows if row.problem), None)
    if broken:
        return Fit(chip.chip, cores, 0, f"does not fit: {broken.name}: {broken.problem}", rows)
    if not rows:
        return Fit(chip.chip, 0, 0, "nothing to place: no spiking population", rows)
    noun = "chip" if chips == 1 else "chips"
    return Fit(chip.chip, cores, chips, f"needs {chips} {noun} ({cores} of {chips * chip.limits['cores']} cores)", rows)


def _place(population: Population, chip: Chip) -> Placed:
    limits, p = chip.limits, population

    def refuse(problem: str) -> Placed:
        return Placed(p.name, p.neurons, p.fan_out, {}, {}, problem)

    if p.weight_bits > limits["weight_bits"]:
        return refuse(f"weights of {p.weight_bits} bits, a synapse holds at most {limits['weight_bits']}")
    if p.neurons > limits["in_axons_per_core"]:
        return refuse(f"a target has {p.neurons} inputs, a core takes {limits['in_axons_per_core']}")
    target_bits = p.neurons * p.weight_bits
    if target_bits > limits["synapse_bits_per_core"]:
        return refuse(f"one target's {target_bits} synapse bits exceed a core's {limits['synapse_bits_per_core']}")
    target_cores = {"compartments": _ceil(p.fan_out, limits["compartments_per_core"])}
    if target_bits:
        target_cores["synapse_bits"] = _ceil(p.fan_out, limits["synapse_bits_per_core"] // target_bits)
    axons = max(target_cores.values())  # a spike takes one out-axon per destination core
    if axons > limits["out_axons_per_core"]:
        return refuse(f"a neuron needs {axons} out-axons, a core has {limits['out_axons_per_core']}")
    source_cores = {"compartments": _ceil(p.neurons, limits["compartments_per_core"])}
    if axons:
        source_cores["out_axons"] = _ceil(p.neurons, limits["out_axons_per_core"] // axons)
    return Placed(p.name, p.neurons, p.fan_out, source_cores, target_cores)


def _ceil(count: int, size: int) -> int:
    return -(-count // size)


def _cores(by: dict[str, int]) -> str:
    limit, cores = max(by.items(), key=lambda item: item[1])
    return f"{cores} core{'' if cores == 1 else 's'}" + (f" ({limit.replace('_', ' ')})" if cores > 1 else "")
