"""The benchmark suite: measures every way of computing the gradient of a neural ODE, and reports the results."""
