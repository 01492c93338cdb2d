"""The forward solve: the problem, the time loop, step sizes, outputs, events and options."""
