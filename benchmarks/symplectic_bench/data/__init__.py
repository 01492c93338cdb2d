"""Data sets, time series, and the files that hold them."""
