"""The vector field f as the solver sees it: calls and VJPs, parameters, and the state that its value depends on."""
