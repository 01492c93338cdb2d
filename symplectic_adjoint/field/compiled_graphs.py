"""The graphs of a func that was compiled by torch.compile, which cannot do all that others can."""

from symplectic_adjoint.errors import UnsupportedCombination


def refuse_compiled(error: RuntimeError) -> None:
    """Raise UnsupportedCombination if a VJP failed with this error because func was compiled by torch.compile."""
    message = str(error)
    if "donated buffer" in message:
        raise UnsupportedCombination(
            "func was compiled by torch.compile so that its backward code overwrites what its graph saved, and here "
            "that graph is needed more than once (an implicit method, or a tensor that was computed outside func from "
            "one that func uses too): set torch._functorch.config.donated_buffer = False before it is compiled, or "
            "pass the module that is not compiled"
        ) from error
    if "does not currently support double backward" in message:
        raise UnsupportedCombination(
            "GMRES needs derivatives of func's VJP, which a func compiled by torch.compile does not have: set option "
            "linear='dense' (or 'batched'), or pass the module that is not compiled"
        ) from error
