"""Simulators: counted work becomes joules and a fit onto low-power chips. Runs without torch, all but `sims.counting`."""
