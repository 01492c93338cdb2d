"""The solution of an implicit stage on the autograd graph.

k solves k = f(t, Y), Y = .. + h g k. With f evaluated on a graph at the solution, where k is a constant,

    dk = (I - h g J)^-1 df ,   so that   f_bar = (I - h g J)^-T k_bar         (implicit function theorem)

For second derivatives J too is a function of what k depends on. Newton's method N(k) = k + M^-1 (f(t, Y) - k), with the
constant M = I - h g J of the solution, has dN/dk = 0 there, so that N(N(k)) on the graph has the right first and second
derivatives.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from symplectic_adjoint.errors import UnsupportedCombination
from symplectic_adjoint.field.linear_systems import Product

At = TypeVar("At")
"""The graph of f at the solution: a Linearization, or one for each of several stages that are solved for together."""

Evaluate = Callable[[Tensor], tuple[Tensor, At]]
"""k -> f(t, Y) with Y = .. + h g k, on the graph of k, and its graph."""


def stage_on_graph(k: Tensor, evaluate: Evaluate[At], solve_transposed: Callable[[At, Tensor], Tensor]) -> Tensor:
    """Return k, the solved stage, on the graph of what it depends on, for first derivatives.

    solve_transposed: returns (I - h g J)^-T k_bar for J on a graph and k_bar.
    """
    value, at = evaluate(k)
    if not value.requires_grad:
        return k
    return _Solved.apply(value, k, lambda k_bar: solve_transposed(at, k_bar))


def stage_for_second_derivatives(
    k: Tensor, evaluate: Evaluate[At], solves: Callable[[At], tuple[Product, Product]]
) -> Tensor:
    """Return k, the solved stage, on the graph of what it depends on, for first and second derivatives.

    solves: returns r -> M^-1 r and r -> M^-T r for J on a graph.
    """
    value, at = evaluate(k)
    if not value.requires_grad:
        return k
    exact = solves(at)
    once = k + _ConstantSolve.apply(value - k, *exact)
    value, _ = evaluate(once)
    return _NoThirdDerivatives.apply(once + _ConstantSolve.apply(value - once, *exact), 2)


class _Solved(torch.autograd.Function):
    """The solution k, with the graph of f at it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, k: Tensor, solve_transposed: Product) -> Tensor:
        del value
        ctx.solve_transposed = solve_transposed
        return k.view_as(k)

    @staticmethod
    def backward(ctx: Any, *bars: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise UnsupportedCombination(
                'second derivatives (create_graph=True) through an implicit method need gradient="symplectic", or any '
                'other exact one but "backprop"'
            )
        return ctx.solve_transposed(bars[0]), None, None


class _ConstantSolve(torch.autograd.Function):
    """M^-1 r for a constant M."""

    @staticmethod
    def forward(ctx: Any, r: Tensor, solve: Product, solve_transposed: Product) -> Tensor:
        ctx.solves = solve_transposed, solve
        return solve(r.detach())

    @staticmethod
    def backward(ctx: Any, *bars: Tensor) -> tuple[Tensor | None, ...]:
        return _ConstantSolve.apply(bars[0], *ctx.solves), None, None


class _NoThirdDerivatives(torch.autograd.Function):
    """x itself, which may be differentiated `orders` times."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, orders: int) -> Tensor:
        ctx.orders = orders
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *bars: Tensor) -> tuple[Tensor | None, ...]:
        if not torch.is_grad_enabled():
            return bars[0], None
        if ctx.orders == 1:
            raise UnsupportedCombination(
                "third derivatives through an implicit method are not available: leave create_graph out of the second"
            )
        return _NoThirdDerivatives.apply(bars[0], ctx.orders - 1), None
