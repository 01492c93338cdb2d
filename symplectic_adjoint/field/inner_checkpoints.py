"""torch.utils.checkpoint within func."""

from collections.abc import Iterator
from contextlib import contextmanager

from symplectic_adjoint.errors import UnsupportedCombination


@contextmanager
def refusing_reentrant_checkpoints() -> Iterator[None]:
    """Raise UnsupportedCombination where a VJP meets a reentrant checkpoint, which only a whole backward pass runs."""
    try:
        yield
    except RuntimeError as error:
        if "use_reentrant=True" not in str(error):
            raise
        raise UnsupportedCombination(
            "func calls torch.utils.checkpoint with use_reentrant=True, which cannot be transposed one f call at a "
            'time: give it use_reentrant=False, or use gradient="backprop"; a solve keeps no graph of func, so that '
            "func seldom needs a checkpoint"
        ) from error
