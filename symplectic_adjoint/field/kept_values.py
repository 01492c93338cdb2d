"""Values that func computed in an earlier call and kept: their gradients are lost, and no graph shows it."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from symplectic_adjoint.errors import LostGradient
from symplectic_adjoint.field.field import Field
from symplectic_adjoint.field.host_reads import shown
from symplectic_adjoint.field.kept_calls import evaluate_and_watch
from symplectic_adjoint.field.times import next_number


def refuse_kept_later(f: Field, bars: Sequence[Tensor | None], y: Tensor, times: Iterable[float]) -> None:
    """Raise LostGradient if a parameter got no gradient, and func uses a value that it kept in a later call.

    bars: the gradient of each of f's params. times: that of the first call, and some others. No call without a graph
    shows what such a value was computed from. One that func keeps for a single time is no such value, nor one that the
    first call reads too.
    """
    unused = [p for p, bar in zip(f.params, bars, strict=True) if bar is None and p.requires_grad]
    kept = f.forward_state.kept_since_the_start() if unused else []
    kept = [x for x in kept if x.is_floating_point() or x.is_complex()]
    called_at = [f.time(t) for t in times] if kept else []
    if not called_at:
        return
    with torch.no_grad(), f.forward_state.reinstated():
        first, *others = called_at
        early = _ids_read(f, first, y, kept)
        for t in others:
            below, above = (_ids_read(f, next_number(t, side), y, kept) for side in (-1.0, 1.0))
            if (below & above) - early:
                names = ", ".join(map(f.forward_state.name_of, unused))
                raise LostGradient(
                    f"func used near t = {shown(t)} a value that it had computed in a call after its first, which "
                    f"had no graph, and kept, and these parameters got no gradient: {names}. Compute the value anew in "
                    "each call, or outside func; or freeze the parameters (requires_grad_(False)) if func does not use "
                    "them"
                )


def _ids_read(f: Field, t: Tensor, y: Tensor, tensors: Sequence[Tensor]) -> set[int]:
    return {id(x) for x in evaluate_and_watch(f, t, y.detach(), tensors)[1]}
