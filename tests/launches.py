"""Kernel launches, counted without a card: the operators that would launch a kernel on one."""

import sys
from collections import Counter
from pathlib import Path

from torch.utils._python_dispatch import TorchDispatchMode

import symplectic_adjoint

LIBRARY = Path(symplectic_adjoint.__file__).parent

WITHOUT_KERNEL = {
    "detach",
    "alias",
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "_reshape_alias",
    "lift_fresh",
}
"""Operators, other than views, that only make a tensor object. A read (_local_scalar_dense) counts: it is a copy."""


def _launches(func):
    name = func._schema.name.removeprefix("aten::")
    return not func.is_view and name not in WITHOUT_KERNEL


class Launches(TorchDispatchMode):
    """Counts launches by the place in the library that asked for them; "func" if that is what was called last.

    An operator counts once. That is what it launches on a card, but for large lists and a few reductions.
    """

    def __init__(self):
        super().__init__()
        self.by_place = Counter()

    @property
    def total(self):
        return self.by_place.total()

    @property
    def ours(self):
        """The launches outside func and its VJPs."""
        return sum(count for place, count in self.by_place.items() if place not in ("func", "vjp"))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if _launches(func):
            self.by_place[_place()] += 1
        return func(*args, **(kwargs or {}))


def _place():
    frame = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if code.co_name == "forward" and frame.f_locals.get("self").__class__.__module__.startswith("tests."):
            return "func"
        path = Path(code.co_filename)
        if path.is_relative_to(LIBRARY):
            name = f"{path.relative_to(LIBRARY).as_posix()}:{code.co_qualname}"
            return "vjp" if name.endswith("AutogradSums.pull") else name
        frame = frame.f_back
    return "caller"


def count_launches(function, *args, **kwargs):
    """Call the function; return what it returned, and its launches."""
    with Launches() as launches:
        result = function(*args, **kwargs)
    return result, launches
