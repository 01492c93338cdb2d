"""The measurements, one quantity per file. Each runs in its own process."""
