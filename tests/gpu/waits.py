"""The waits of the host for a card, as torch finds them."""

import warnings
from contextlib import contextmanager

import torch

TEXT = "called a synchronizing CUDA operation"


@contextmanager
def counted():
    """Yield a list that has an entry for each wait when the block ends."""
    found = []
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")
            found += [str(x.message) for x in given if TEXT in str(x.message)]
