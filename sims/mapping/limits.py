"""The limits of a chip that a placement must keep, read from the chip's file."""

from __future__ import annotations

import dataclasses

import numpy as np

from sims.chips import Chip
from sims.mapping.network import Conv2d, Ints, Network, Projection, Sparse

UNBOUNDED = 2**62
_TOO_LONG = 2**40  # bits of a row that an axon's list cannot hold: more than any core has
CHECKED = (
    "cores",
    "compartments_per_core",
    "hidden_neurons",
    "output_neurons",
    "input_channels",
    "input_expansion_neurons",
    "output_expansion_neurons",
    "in_axons_per_core",
    "out_axons_per_core",
    "target_axons_per_neuron",
    "target_chips_per_neuron",
    "synapse_bits_per_core",
    "synapse_words_per_core",
    "synapse_memory_units_per_core",
    "synapses_per_core",
    "axon_list_words",
    "weight_bits",
    "fan_in",
    "fan_out",
    "kernel_words_per_core",
    "fan_out_layers",
)
HOLDS = (  # what bounds a placement, checked or not
    *CHECKED,
    "synapses_per_chip",
    "sdram_bytes_per_chip",
    "dtcm_bytes_per_core",
    "sram_bytes_per_core",
    "router_entries_per_chip",
    "tags",
    "chip_reach",
)


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one chip and one of its cores holds; a number that the chip's file does not state bounds nothing.

    A spike takes one in-axon on each core that holds targets of it, and one out-axon of its own core for each of them.
    The weights of one axon lie in one row: weight by weight, with the index of its target in a sparse projection, a header
    for each block of synapses, filled up to whole words. A shared kernel lies on each core that has a neuron of the
    target: for each tap one row over the output channels that are there.

    Args:
        roles: hidden and output neurons are counted apart. Outputs are placed groups that project to nothing; fan-in,
            fan-out and ``synapses`` then count what hidden neurons send to hidden neurons.
        targets: cores that one neuron may reach.
        target_chips: chips that one neuron may reach.
        row_words: of one axon's synapses on one core.
        input_reach, output_reach: hidden neurons that inputs reach, and that reach outputs.
    """

    cores: int
    neurons: int = UNBOUNDED
    in_axons: int = UNBOUNDED
    out_axons: int = UNBOUNDED
    bits: int = UNBOUNDED
    weight_bits: int = UNBOUNDED
    fan_in: int = UNBOUNDED
    fan_out: int = UNBOUNDED
    targets: int = UNBOUNDED
    target_chips: int = UNBOUNDED
    word_bits: int = 1
    header_bits: int = 0
    block: int = UNBOUNDED
    index_bits: int = 0
    row_words: int = UNBOUNDED
    roles: bool = False
    synapses: int = UNBOUNDED
    inputs: int = UNBOUNDED
    outputs: int = UNBOUNDED
    input_reach: int = UNBOUNDED
    output_reach: int = UNBOUNDED
    unchecked: tuple[str, ...] = ()

    def synapse_bits(self, projection: Projection) -> int:
        """Memory of one synapse; 0 where a shared kernel holds the weight."""
        if isinstance(projection, Conv2d):
            return 0
        return projection.weight_bits + (self.index_bits if isinstance(projection, Sparse) else 0)

    def row_bits(self, synapses: Ints, payload: Ints) -> Ints:
        """Memory of rows of so many synapses with so many bits of weights; more than any core has for one too long."""
        words = -(-(payload + self.header_bits * -(-synapses // self.block)) // self.word_bits)
        bits = np.where(words > self.row_words, _TOO_LONG, words * self.word_bits)
        return np.where(payload > 0, bits, 0)

    def counted(self, network: Network) -> dict[str, bool]:
        """Whether the neurons of each placed group take the place of neurons, or (False) of outputs."""
        sends = {projection.source for projection in network.projections}
        return {g.name: not self.roles or g.name in sends for g in network.groups if g.placed}


@dataclasses.dataclass(frozen=True)
class Mesh:
    """Tiles of cores in a grid, numbered by columns (tile = rows x + y) or rows; further chips follow in x.

    Args:
        known: False where the chip's file does not say where cores lie; hops are then not counted.
    """

    columns: int
    rows: int
    per_tile: int
    by_columns: bool = True
    known: bool = True


def of(chip: Chip) -> Limits:
    """The limits of a chip.

    Raises:
        MissingError: how many cores it has is not known.
    """
    given = chip.limits

    def most(name: str) -> int:
        return given.get(name, UNBOUNDED)

    word = given.get("synapse_word_bits", 1)
    memory = most("synapse_bits_per_core")
    if "synapse_memory_units_per_core" in given and "synapse_word_bits" in given:
        memory = given["synapse_memory_units_per_core"] * word
    if "crossbar_rows" in given or "hidden_neurons" in given:  # a synapse for each pair, whether it is used or not
        memory, word = UNBOUNDED, 1
    return Limits(
        cores=chip.limit("cores"),
        neurons=most("compartments_per_core"),
        in_axons=most("in_axons_per_core"),
        out_axons=most("out_axons_per_core"),
        bits=memory,
        weight_bits=most("weight_bits"),
        fan_in=most("fan_in"),
        fan_out=most("fan_out"),
        targets=most("target_axons_per_neuron"),
        target_chips=most("target_chips_per_neuron"),
        word_bits=word,
        header_bits=given.get("synapse_header_bits", 0),
        block=most("synapses_per_block"),
        index_bits=given.get("index_bits", 0),
        row_words=most("axon_list_words"),
        roles="hidden_neurons" in given,
        synapses=most("synapses_per_core"),
        inputs=most("input_channels"),
        outputs=most("output_neurons"),
        input_reach=most("input_expansion_neurons"),
        output_reach=most("output_expansion_neurons"),
        unchecked=tuple(
            name for name in HOLDS if name in chip.rows and (name not in CHECKED or chip.rows[name].value is None)
        ),
    )


def mesh(chip: Chip) -> Mesh:
    """Where the chip's cores lie; all on one tile where that is not known."""
    t = chip.topology
    if t.kind == "layers" or t.cols is None or t.rows is None or t.cores_per_tile is None or t.order is None:
        return Mesh(1, 1, chip.limit("cores"), known=False)
    return Mesh(t.cols, t.rows, t.cores_per_tile, t.order == "column")
