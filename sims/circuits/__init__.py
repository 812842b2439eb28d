"""The same circuits in Brian2, to compare with; the only door to brian2."""
