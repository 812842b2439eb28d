"""Training: parallel streams of text, truncated backpropagation through commits, atomic checkpoints, exact resume."""
