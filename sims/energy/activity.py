"""What each region did in each phase: the integer columns of the energy report."""

from __future__ import annotations

import dataclasses

from neuro.workload import Phase, Workload

COLUMNS = {
    "macs": "multiply-accumulates a dense layer makes, those behind spikes among them",
    "effective_macs": "of them on values that are no spikes, and not on a zero where zeros were looked for",
    "replaced_macs": "of them behind spikes, where a chip adds instead",
    "accumulates": "additions of a weight, one for each spike and target",
    "spikes": "of all its populations",
    "updates": "of neurons, each at each step",
    "elementwise": "additions and products of single values",
    "transcendental": "exponentials, roots and divisions",
    "compare": "comparisons",
    "weights_bytes": "of weights, read once a call",
    "state_bytes": "of carried state, read and written",
    "kv_bytes": "of keys and values, read and written",
    "memory_bytes": "of memory slots, read and written",
    "bus_bytes": "of channels between regions, written once and read by each reader",
}


@dataclasses.dataclass(frozen=True)
class Activity:
    """Counts of one region in one phase, of the whole run; `COLUMNS` says what each is."""

    phase: str
    region: str
    macs: int
    effective_macs: int
    replaced_macs: int
    accumulates: int
    spikes: int
    updates: int
    elementwise: int
    transcendental: int
    compare: int
    weights_bytes: int
    state_bytes: int
    kv_bytes: int
    memory_bytes: int
    bus_bytes: int

    @property
    def spikes_per_synapse(self) -> float | None:
        """Additions made for each product that the spikes replace; None without spikes."""
        return self.accumulates / self.replaced_macs if self.replaced_macs else None


def of(workload: Workload) -> tuple[Activity, ...]:
    """One row for each phase and region, in the order of the workload."""
    rows = []
    for phase in workload.phases:
        named = [row.region for row in phase.operations] + [row.region for row in phase.populations]
        rows += [_activity(phase, name) for name in dict.fromkeys(named + [row.region for row in phase.traffic])]
    return tuple(rows)


def _activity(phase: Phase, region: str) -> Activity:
    operations = [row for row in phase.operations if row.region == region]
    populations = [row for row in phase.populations if row.region == region]

    def total(kind: str) -> int:
        return sum(row.count for row in operations if row.kind == kind)

    def moved(store: str) -> int:
        rows = [row for row in phase.traffic if row.region == region and row.store == store]
        return sum(row.read_bytes + row.written_bytes for row in rows)

    macs = [row for row in operations if row.kind == "mac"]
    return Activity(
        phase=phase.name,
        region=region,
        macs=total("mac"),
        effective_macs=sum(
            row.count if row.effective is None else row.effective for row in macs if row.signal != "binary"
        ),
        replaced_macs=sum(row.count for row in macs if row.signal == "binary"),
        accumulates=total("accumulate") + sum(row.synaptic_ops for row in populations),
        spikes=sum(row.spikes for row in populations),
        updates=sum(row.updates for row in populations),
        elementwise=total("elementwise"),
        transcendental=total("transcendental"),
        compare=total("compare"),
        weights_bytes=moved("weights"),
        state_bytes=moved("state"),
        kv_bytes=moved("kv"),
        memory_bytes=moved("memory"),
        bus_bytes=moved("bus"),
    )
