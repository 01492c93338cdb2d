"""Independent oracles: the gradient on the recorded grid, and the same in fifty digits."""
