"""Diagnostics of the caller's own model: check a gradient, measure and compare gradients, predict their costs."""
