"""Order conditions by rooted trees, in rational arithmetic, for every kind of method.

A method has order p exactly when sum_i b_i Phi_i(tree) = 1 / gamma(tree) for every rooted tree of at most p nodes
(Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, theorem II.2.13), and dense output has order q
exactly when sum_i b_i(sigma) Phi_i(tree) = sigma^nodes / gamma(tree) up to q nodes (section II.6). For an additive
method each node has a colour, the part of f that it stands for, and a sum runs over the rows of its node's part
(section II.15, P-trees).
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cache
from itertools import combinations_with_replacement
from math import prod

from symplectic_adjoint.methods.coefficients import Row
from symplectic_adjoint.methods.registry import IMPLICIT_METHODS, METHODS
from symplectic_adjoint.methods.tableau import ButcherTableau

# A rooted tree is the colour of its root and the trees attached to it; the single node is (0, ()).
Tree = tuple[int, tuple["Tree", ...]]


@cache
def trees(nodes: int, colours: int = 1) -> tuple[Tree, ...]:
    """Return every rooted tree with that many nodes of these colours, once."""
    below = list(forests(nodes - 1, nodes - 1, colours))
    return tuple(sorted((colour, forest) for colour in range(colours) for forest in below))


def forests(nodes: int, largest: int, colours: int) -> Iterator[tuple[Tree, ...]]:
    """Yield every multiset of trees with at most `largest` nodes each and `nodes` in all."""
    if nodes == 0:
        yield ()
    elif largest > 0:
        for count in range(nodes // largest + 1):
            for chosen in combinations_with_replacement(trees(largest, colours), count):
                for rest in forests(nodes - count * largest, largest - 1, colours):
                    yield (*chosen, *rest)


@cache
def size(tree: Tree) -> int:
    return 1 + sum(size(branch) for branch in tree[1])


@cache
def gamma(tree: Tree) -> int:
    """Return the density: the product of the sizes of the tree and of all its subtrees."""
    return size(tree) * prod(gamma(branch) for branch in tree[1])


class OrderConditions:
    """The order conditions of a method's rows, for any weights of them."""

    def __init__(self, method: ButcherTableau) -> None:
        self._A = method.matrix
        self._parts = method.extended_parts or (0,) * len(self._A)
        self._dense = method.interpolant.weights
        self._colours = 2 if method.additive else 1
        self._stage_weights: dict[Tree, Row] = {}

    def violation(self, b: Row, nodes: int) -> Fraction:
        """Return the largest |sum b_i Phi_i - 1 / gamma| over the trees with that many nodes."""
        every = trees(nodes, self._colours)
        return max(abs(self._sum(b, tree) - Fraction(1, gamma(tree))) for tree in every)

    def dense_violation(self, nodes: int) -> Fraction:
        """Return the largest coefficient of sum b_i(sigma) Phi_i - sigma^nodes / gamma over those trees."""
        powers = [*zip(*self._dense, strict=True)]
        powers += [()] * (nodes - len(powers))  # powers beyond the interpolant's degree have no weights
        return max(
            abs(self._sum(column, tree) - Fraction(int(power == nodes), gamma(tree)))
            for tree in trees(nodes, self._colours)
            for power, column in enumerate(powers, start=1)
        )

    def _sum(self, weights: Sequence[Fraction], tree: Tree) -> Fraction:
        """Return the sum of the rows of the root's part; weights may be fewer than the rows."""
        values = self._weights_of(tree)
        terms = zip(weights, values, self._parts, strict=False)
        return sum((w * value for w, value, part in terms if w and part == tree[0]), Fraction(0))

    def _weights_of(self, tree: Tree) -> Row:
        """Return Phi_i(tree) for every row i of the extended tableau."""
        if tree not in self._stage_weights:
            grown = [[self._sum(row, branch) for row in self._A] for branch in tree[1]]
            products = (prod((branch[i] for branch in grown), start=Fraction(1)) for i in range(len(self._A)))
            self._stage_weights[tree] = tuple(products)
        return self._stage_weights[tree]


@cache
def order_conditions(name: str) -> OrderConditions:
    """Return the order conditions of a method, whose stage weights are computed once."""
    return OrderConditions({**METHODS, **IMPLICIT_METHODS}[name])


def embedded(method: ButcherTableau, error_weights: Row | None) -> Row:
    """Return b_hat."""
    assert error_weights is not None
    return tuple(p - q for p, q in zip(method.b, error_weights, strict=True))
