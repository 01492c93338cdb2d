"""Executors, which measure cells on this machine or on the workers of a Dask cluster."""
