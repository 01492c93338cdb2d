"""Analyse rows: summaries, criteria, claims, exponents of growth, and comparison with a baseline."""
