"""What becomes of counts that a prediction was given and did not use: a lower bound, or nothing, and why.

Work that nothing here prices makes the total a lower bound. A count that the price holds already (the spikes of a constant
energy per synaptic operation, the bytes of a published run) or that is no work (layers of a chip) moves nothing. Neither is
passed over in silence.
"""

from __future__ import annotations

from collections.abc import Collection

from sims.energy.technologies import Technology

_NO_WORK = frozenset({"layers", "seconds"})
_HELD = {  # by the platform's published runs, or by what else is given
    "calls": frozenset({"weight_bytes", "flops"}),
    "steps": frozenset({"macs", "spikes", "weight_bytes", "neuron_update", "message", "hop_ew", "hop_ns"}),
    "synops": frozenset({"macs", "spikes", "weight_bytes"}),
    "spikes": frozenset({"macs", "synops", "weight_bytes"}),
    "decode": frozenset({"macs"}),
}
_ON_A_CHIP = frozenset({"macs", "synops", "spikes", "weight_bytes"})


def sort(table: Technology, given: Collection[str], priced: Collection[str]) -> tuple[list[str], list[str]]:
    """(unpriced, without effect) of the counts above 0 that were not used; ``priced`` are the kinds in the total."""
    held = _NO_WORK | (_HELD[table.model] if table.model in _HELD else _held_by_constants(table, priced))
    return [name for name in given if name not in held], [name for name in given if name in held]


def _held_by_constants(table: Technology, priced: Collection[str]) -> frozenset[str]:
    if any(table.constant(kind).basis in ("AllIn", "Step") for kind in priced):
        return _ON_A_CHIP
    if "synaptic_op" in priced and table.scope != "arithmetic":
        return frozenset({"macs", "weight_bytes"})  # connections, and the weights that an operation reads
    return frozenset()
