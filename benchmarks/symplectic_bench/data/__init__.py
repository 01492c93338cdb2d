"""Data sets, tables and time series, and their caches."""
