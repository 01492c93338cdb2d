"""Where cells are measured: on this machine, or by the workers of a Dask cluster."""
