"""METHODS: every method by name, collected from the files that define them."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType, ModuleType

from symplectic_adjoint.methods import collocation, imex, implicit, order_1_to_4, order_5, order_8
from symplectic_adjoint.methods.tableau import ButcherTableau

DEFAULT_METHOD = "dopri5"
"""The method of a solve that is given none."""


def collect(*families: ModuleType) -> Mapping[str, ButcherTableau]:
    """Return the public tableaus of these modules by name, in the order in which they are defined.

    Raises ValueError if two of them have the same name.
    """
    methods: dict[str, ButcherTableau] = {}
    for method in _defined_in(families):
        if methods.setdefault(method.name, method) is not method:
            raise ValueError(f"two methods are named {method.name!r}: rename one of them")
    return MappingProxyType(methods)


def _defined_in(families: tuple[ModuleType, ...]) -> Iterator[ButcherTableau]:
    for family in families:
        for name, value in vars(family).items():
            if isinstance(value, ButcherTableau) and not name.startswith("_"):
                yield value


EXPLICIT_METHODS = collect(order_1_to_4, order_5, order_8)
"""Read-only, in the order of the files and their lines. A method defined in one of these files needs nothing else."""

IMPLICIT_METHODS = collect(implicit, collocation, imex)
"""The diagonally and the fully implicit methods, and the additive ones, likewise."""

METHODS = MappingProxyType({**EXPLICIT_METHODS, **IMPLICIT_METHODS})
"""All of them."""

ALIASES = {alias: method.name for method in METHODS.values() for alias in method.aliases}
"""Further names that are accepted, each with the method's name."""

OTHER_NAMES = {other: method.name for method in METHODS.values() for other in method.also_called}
"""Names that other libraries use, each with the method's name here."""
