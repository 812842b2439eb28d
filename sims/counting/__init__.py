"""Counting what a network does, exactly."""
