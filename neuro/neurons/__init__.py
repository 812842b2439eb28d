"""Spiking neurons and how their synapses learn."""
