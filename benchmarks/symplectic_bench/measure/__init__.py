"""The measurements, one quantity a file. Each runs in a process of its own."""
