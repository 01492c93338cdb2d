"""Saying where a value stopped being finite: the stage, the time and the first bad component."""

import torch
from torch import Tensor

from symplectic_adjoint.step import Step


def first_bad_component(x: Tensor) -> str | None:
    """'component (2, 0) is nan' for the first entry that is not finite, None where all are."""
    finite = torch.isfinite(x)
    if bool(finite.all()):
        return None
    flat = int((~finite).flatten().to(torch.uint8).argmax())
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), x.shape))
    return f"component {index} is {x.flatten()[flat].item()}"


def describe_non_finite(step: Step, number: int) -> str:
    """Where a step first met a value that is not finite; number counts accepted steps from 0."""
    for i, k in enumerate(step.ks):
        bad = first_bad_component(k)
        if bad is not None:
            where = f"t = {float(step.time(i)):.9g} (step {number}, stage {i + 1})"
            return f"func returned a value that is not finite at {where}: {bad}"
    bad = first_bad_component(step.end()) or "its error estimate overflowed"
    where = f"step {number} from t = {float(step.t):.9g} by h = {float(step.h):.3g}"
    return f"the state stopped being finite in {where}: {bad}"
