"""Spiking neurons, one model per file: equations at the top, a functional step and scan, and a module of the same name."""

from neuro.neurons.adaptive import ALIF
from neuro.neurons.adex import AdEx
from neuro.neurons.base import Neuron
from neuro.neurons.gif import GIF
from neuro.neurons.integrate_and_fire import IF
from neuro.neurons.izhikevich import Izhikevich
from neuro.neurons.lif import LIF
from neuro.neurons.parallel import Parallel, SlidingParallel
from neuro.neurons.parametric import PLIF
from neuro.neurons.synaptic import Synaptic

__all__ = [
    "ALIF",
    "GIF",
    "IF",
    "LIF",
    "PLIF",
    "AdEx",
    "Izhikevich",
    "Neuron",
    "Parallel",
    "SlidingParallel",
    "Synaptic",
]
