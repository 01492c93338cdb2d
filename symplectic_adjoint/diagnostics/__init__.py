"""Diagnostics on the caller's own model: check one gradient, compare all of them, predict what each costs."""
