"""Run suites: the sweep, the processes that measure, and the executors that distribute cells."""
