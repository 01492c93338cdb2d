"""Walks over an autograd graph, and the edge at which it begins."""

import sys
from collections.abc import Callable, Container, Iterator, Sequence
from functools import cache

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from symplectic_adjoint._torch_internals import PythonNode

Edge = tuple[Node | None, int]


def find_unknown_leaves(
    k: Tensor | GradientEdge,
    known: tuple[Tensor, ...],
    visit: Callable[[Node], None] = lambda node: None,
    reached: set[int] | None = None,
) -> list[Tensor]:
    """Return the leaves of k's graph that are not known. The walk stops at known tensors that are not leaves.

    It stops at the one output of a node that is known: of two halves of a chunked tensor, only one may be. A leaf that
    func makes for itself, for a trace or the gradient of an energy, say, is held by the graph alone once func has
    returned: nobody can read its gradient, so none is lost.

    visit: called with every node that is neither a leaf nor a known tensor's. reached: a set to which the ids of the
    known tensors that the graph reaches are added.
    """
    lone = _references_to_a_lone_leaf()
    leaves = {id(x) for x in known}
    ends: dict[Edge, int] = {(x.grad_fn, x.output_nr): id(x) for x in known if x.grad_fn is not None}
    reached = set() if reached is None else reached
    found = []
    start = (k.node, k.output_nr) if isinstance(k, GradientEdge) else (k.grad_fn, k.output_nr)
    for edge in walk_edges([start], ends):
        leaf = getattr(edge[0], "variable", None)
        if edge in ends:
            reached.add(ends[edge])
        elif leaf is None:
            visit(edge[0])
        elif id(leaf) in leaves:
            reached.add(id(leaf))
        elif sys.getrefcount(leaf) > lone:
            found.append(leaf)
    return found


def leads_to(x: Tensor, tensors: Sequence[Tensor]) -> bool:
    """Return whether x, which has a history, was computed from one of the tensors."""
    leaves = {id(p) for p in tensors if p.grad_fn is None}
    ends = {(p.grad_fn, p.output_nr) for p in tensors if p.grad_fn is not None}
    edges = walk_edges(list(x.grad_fn.next_functions) if x.grad_fn is not None else [], ends)
    return any(edge in ends or id(getattr(edge[0], "variable", None)) in leaves for edge in edges)


def edge_to(k: Tensor) -> GradientEdge:
    """Return the edge at which k's graph begins, from which cotangents can be pulled back without k itself."""
    node = k.grad_fn
    if node is None or isinstance(node, PythonNode):  # a leaf, or a node that needs an owner
        return get_gradient_edge(k)
    return GradientEdge(node, k.output_nr)


@cache
def _references_to_a_lone_leaf() -> int:
    """Return how many references Python counts to a leaf that only its graph holds: versions of torch differ."""
    node = get_gradient_edge(torch.ones((), requires_grad=True, device="cpu")).node
    leaf = getattr(node, "variable", None)
    return sys.getrefcount(leaf)


def walk_edges(edges: list[Edge], ends: Container[Edge]) -> Iterator[tuple[Node, int]]:
    """Yield every edge of the graph behind `edges` once, without going beyond those in `ends`. Empties `edges`."""
    seen: set[Edge] = set()
    while edges:
        edge = edges.pop()
        node = edge[0]
        if node is None or edge in seen:
            continue
        seen.add(edge)
        yield node, edge[1]
        if edge not in ends:
            edges.extend(node.next_functions)
