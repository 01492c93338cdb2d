import gc

import pytest


@pytest.fixture(scope="package", autouse=True)
def _little_garbage():
    """Speed up the garbage collection before a LostGradient, which would go through every library's objects."""
    gc.freeze()
    yield
    gc.unfreeze()
