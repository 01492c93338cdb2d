"""Values that func keeps from one call to the next, as a searched call shows them."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from symplectic_adjoint.errors import LostGradient
from symplectic_adjoint.field.first_graph import edges_of
from symplectic_adjoint.field.host_reads import shown
from symplectic_adjoint.field.read_tensors import Reads
from symplectic_adjoint.field.times import Time, next_number

if TYPE_CHECKING:
    from symplectic_adjoint.field.field import Field


def evaluate_and_watch(f: "Field", t: Tensor, y: Tensor, tensors: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Return f(t, y) and those of the tensors that it reads."""
    reads = Reads(tensors, hidden=False)
    with reads.watch():
        k = f.evaluate(t, y)
    return k, reads.found


def refuse_kept(f: "Field", k: Tensor, t: Tensor, y: Tensor, first_time: Time | None) -> None:
    """Raise LostGradient if f there used a value that an earlier call had computed without a graph.

    first_time: that of the first call.
    """
    known = f.search.known(f.aliases, y, t)
    fewer = f.first_graph.exceeds(k, known)
    if not (fewer or f.search.missed):
        return
    beside = list(_beside(f, t.detach(), y, first_time))
    if f.search.missed:
        f.search.refuse_kept(beside, y, f.aliases)
    if fewer and min(edges_of(one, known) for one, _ in beside) > edges_of(k, known):
        raise LostGradient(
            f"func used at t = {shown(t)} a value that it had computed in an earlier call, which had no graph, "
            "and kept: a part of the gradient would be lost. Compute the value anew in each call, or outside func"
        )


def _beside(f: "Field", t: Tensor, y: Tensor, first_time: Time | None) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Yield f just before and just after t, each with the tensors that it reads and that func keeps for times near.

    What it reads at the first time too, it keeps for all times.
    """
    kept = f.forward_state.kept_since_the_start()
    if kept and first_time is not None:
        _, read = evaluate_and_watch(f, f.time(first_time), y, kept)
        kept = [x for x in kept if all(x is not one for one in read)]
    for direction in (-1.0, 1.0):
        yield evaluate_and_watch(f, next_number(t, direction), y, kept)
