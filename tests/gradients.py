"""Gradients by what a test may ask of them."""

from symplectic_adjoint import GRADIENTS

OWN_STEPS = [name for name, strategy in GRADIENTS.items() if strategy.own_steps]
"""Those whose steps are not the method's: tests/test_reversible.py has them."""
STANDARD = [name for name in GRADIENTS if name not in OWN_STEPS]
EXACT = [name for name in STANDARD if GRADIENTS[name].exact]
"""Of the method's own steps."""
