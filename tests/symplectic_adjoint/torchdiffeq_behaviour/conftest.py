from functools import partial

import pytest

import symplectic_adjoint as sa


@pytest.fixture
def odeint(gradient):
    return partial(sa.odeint, gradient=gradient)
