"""Measures every way of computing the gradient of a neural ODE, and makes the tables and figures."""
