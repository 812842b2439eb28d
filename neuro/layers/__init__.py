"""Building blocks of the cortex."""
