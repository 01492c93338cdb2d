"""The ways in which the values of the field reach func: one class a kind, as users write them.

A kind is built from leaves; func() is what the user passes to a solve that starts now, and turn(k) changes what func
reads to its k-th value. values() says what that is, for the truth, without any of it.
"""

from tests.generated.closures import of_contents, of_functions, of_modules, of_networks, of_upstream
from tests.generated.closures.closure import CLOSURES as CLOSURES

__all__ = ["CLOSURES", "of_contents", "of_functions", "of_modules", "of_networks", "of_upstream"]
