"""Independent oracles for the gradient on the recorded grid, in float64 and in fifty digits."""
