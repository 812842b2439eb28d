"""Operators written for one kind of machine, outside torch."""
