"""What a solve must be for an implicit or an additive method, checked before func is called."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from symplectic_adjoint.backward.strategy import Strategy
from symplectic_adjoint.errors import UnsupportedCombination
from symplectic_adjoint.field.autocast import autocast_is_on
from symplectic_adjoint.field.split_function import SplitFunction
from symplectic_adjoint.field.transforms import transforming
from symplectic_adjoint.methods.tableau import ButcherTableau


def require_method_fits(
    func: Any,
    tableau: ButcherTableau,
    strategy: Strategy,
    gradient_name: str,
    y: Tensor,
    *,
    options: Mapping[str, Any],
    others: str,
    compiles: bool,
    captures: bool,
    dtypes: Iterable[torch.dtype],
) -> None:
    """Raise UnsupportedCombination for what does not work with the method.

    others: gradients that work with implicit methods, in words. compiles, captures: whether that is asked for. dtypes:
    those of the state's parts.
    """
    name = f"method={tableau.name!r}"
    require_pair(name, tableau, func)
    if isinstance(func, SplitFunction) and not tableau.additive:
        raise UnsupportedCombination(
            f"{name} takes one function, got a pair: give a function that returns the sum, or an additive method such "
            "as 'kencarp4'"
        )
    if not tableau.implicit:
        return
    if not strategy.takes_implicit:
        raise UnsupportedCombination(
            f"{name}, which is implicit, does not work with gradient={gradient_name!r}: use {others}"
        )
    for found, what in (
        (strategy.obstacle_to_implicit, strategy.obstacle_to_implicit),
        (compiles, "compile=True"),
        (captures, "capture=True"),
        (transforming(), "torch.func or forward mode"),
    ):
        if found:
            raise UnsupportedCombination(
                f"{name}, which is implicit, does not work with {what}: change that, or take an explicit method"
            )
    require_solvable_stages(name, tableau, y, dtypes, options.get("linear"))


def require_pair(name: str, tableau: ButcherTableau, func: Any) -> None:
    """Raise UnsupportedCombination for an additive method without a pair. name: how the method was given."""
    if tableau.additive and not isinstance(func, SplitFunction):
        raise UnsupportedCombination(f"{name} takes func as a pair: (explicit, implicit), whose sum is dy/dt")


def require_solvable_stages(
    name: str, tableau: ButcherTableau, y: Tensor, dtypes: Iterable[torch.dtype], linear: str | None
) -> None:
    """Raise UnsupportedCombination for a state for which an implicit method's stages cannot be solved.

    name: how the method was given. dtypes: those of the state's parts. linear: the option.
    """
    if not tableau.implicit:
        return
    coarse = {str(x) for x in dtypes if x not in (torch.float32, torch.float64)}
    for found, what in (
        (coarse, f"a state of {', '.join(sorted(coarse))}, only float32 or float64"),
        (autocast_is_on(y.device.type), "autocast, whose rounding Newton's method does not get below"),
    ):
        if found:
            raise UnsupportedCombination(
                f"{name}, which is implicit, does not work with {what}: change that, or take an explicit method"
            )
    if linear == "batched" and y.ndim < 2:
        raise UnsupportedCombination(
            f"option 'linear' is 'batched', but y0 has no batch: its shape as one tensor is {tuple(y.shape)}"
        )
