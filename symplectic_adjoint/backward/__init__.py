"""Shared by all gradients: the strategy protocol, the reverse sweep, checkpoints, parameter sums, cost and budget."""
