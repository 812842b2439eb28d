"""A brain as C99 for microcontrollers: int8 weights, no heap, no library; step and commit, equal to `export.c.reference`."""
