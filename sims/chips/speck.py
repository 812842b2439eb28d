"""Words of memory that a layer takes on Speck, where addresses are made of whole bits.

Source: sinabs 904eb89, docs/speck/overview.md and sinabs/backend/dynapcnn/dynapcnn_layer.py.
"""

from __future__ import annotations


def kernel_words(inputs: int, outputs: int, width: int, height: int) -> int:
    """Of a convolution's kernel: ``inputs`` and ``outputs`` count channels."""
    return inputs << (_bits(width * height) + _bits(outputs))


def neuron_words(channels: int, width: int, height: int) -> int:
    """Of a layer's neurons before pooling.

    differs: the overview's text has channels x width x height, the software that checks a network has these.
    """
    return channels << (_bits(width) + _bits(height))


def _bits(count: int) -> int:
    return (count - 1).bit_length()
