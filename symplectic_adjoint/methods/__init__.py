"""Runge-Kutta methods as data: tableaus and the named methods. Nothing here imports torch."""
