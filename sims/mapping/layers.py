"""Chips whose cores are layers: a convolution with its neurons each, and not all of one size."""

from __future__ import annotations

from sims.chips import Chip
from sims.mapping.network import Conv2d, Network, Sparse


def needs(network: Network, group: str, chip: Chip) -> tuple[int, int, str]:
    """(kernel words, neuron words, why no layer holds it; empty when one may) of a group with its input.

    A dense projection is a convolution as large as its source. Words are addressed by bits, so that sizes round up to
    powers of two (the chip's rules ``kernel_words`` and ``neuron_words``).
    """
    incoming = network.incoming(group)
    if len(incoming) != 1 or isinstance(incoming[0], Sparse):
        return (
            0,
            0,
            f"{len(incoming)} inputs, a layer holds one convolution" if len(incoming) != 1 else "its input is sparse",
        )
    projection, most = incoming[0], chip.limits
    source, target = network[projection.source], network[group]
    if isinstance(projection, Conv2d):
        assert source.shape is not None and target.shape is not None
        (kx, ky), inputs, into, shape = projection.kernel, source.shape[2], source.shape[:2], target.shape
        stride, padding, groups = projection.stride, projection.padding, projection.groups
    else:
        kx, ky, inputs = source.shape or (1, 1, source.neurons)
        into, shape, stride, padding, groups = (kx, ky), (1, 1, target.neurons), (1, 1), (0, 0), 1
    steps = chip.options("stride_options")
    for number, limit, words in (
        (max(kx, ky), most["kernel_side"], "pixels of kernel"),
        (max(padding), most["padding_max"], "pixels of padding"),
        (max(inputs, shape[2]), most["channels_per_layer"], "channels"),
        (max(into), most["input_side"], "pixels of input"),
        (max(shape[:2]), most["output_side"], "pixels of output"),
        (groups, 1, "groups of channels"),
        (projection.weight_bits, most["weight_bits"], "bits a weight"),
        (sum(p.source == group for p in network.projections), most["fan_out_layers"], "layers that it sends to"),
    ):
        if number > limit:
            return 0, 0, f"{number} {words}, a layer takes {limit}"
    if not set(stride) <= set(steps):
        return 0, 0, f"stride {list(stride)}, a layer takes {', '.join(map(str, steps))}"
    kernel = inputs * 2 ** (_log2(kx * ky) + _log2(shape[2]))
    return kernel, shape[2] * 2 ** (_log2(shape[0]) + _log2(shape[1])), ""


def match(network: Network, chip: Chip) -> tuple[dict[str, int], dict[str, str]]:
    """A core for each group that has one, in words why not for the others (augmenting paths: as many as can be)."""
    kernels, neurons = chip.options("kernel_words_per_core"), chip.options("compartments_per_core")
    problems: dict[str, str] = {}
    holds: dict[str, list[int]] = {}
    for group in network.groups:
        if not group.placed:
            continue
        kernel, words, problem = needs(network, group.name, chip)
        fits = [at for at in range(chip.limit("cores")) if kernel <= kernels[at] and words <= neurons[at]]
        if problem or not fits:
            problems[group.name] = problem or f"{kernel} kernel words and {words} neuron words, no layer has both"
        else:
            holds[group.name] = fits
    taken: dict[int, str] = {}

    def found(name: str, tried: set[int]) -> bool:
        for at in holds[name]:
            if at not in tried:
                tried.add(at)
                if at not in taken or found(taken[at], tried):
                    taken[at] = name
                    return True
        return False

    for name in holds:
        if not found(name, set()):
            problems[name] = "the layers that could hold it are taken"
    return {name: at for at, name in taken.items()}, problems


def _log2(number: int) -> int:
    return (number - 1).bit_length()
