"""Memories: bounded tensors that are written at commits and read in steps."""
