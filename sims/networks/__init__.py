"""Recurrent networks of spiking neurons, simulated event by event on one core: in C++ where it was built, else in numpy."""
