"""One generated case: a point of every axis, drawn from its id alone."""

from dataclasses import dataclass, fields
from random import Random

import symplectic_adjoint as sa
from tests.generated.changes import CHANGES
from tests.generated.closures import CLOSURES
from tests.generated.dtypes import DTYPES
from tests.generated.states import STATES
from tests.generated.times import TIMES

EVENTS = {"none": 20, "smooth": 4, "jump": 1, "jump aside": 2}
"""How often each is drawn. "jump aside": the gradient wanted does not go through the event."""
PASSES = ("once", "twice", "double", "several", "apart", "upstream afterwards", "upstream reused")
"""How the backward pass is made: see script.py."""

METHODS = {name: method for name, method in sa.METHODS.items() if not method.additive}
"""Those that take one function."""

OF_TIGHT_SOLVES = ("dopri5", "tsit5", "dopri8", "dop853")
"""Methods that reach a tolerance at which "continuous" is as good as exact in a dozen steps."""


@dataclass(frozen=True)
class Case:
    """What is solved, how func reaches its values, what changes before the backward pass, and how that is made."""

    id: int
    state: str
    dtype: str
    method: str
    stepping: str
    gradient: str
    outputs: str
    event: str
    autocast: bool
    closure: str
    change: str
    passes: str
    wants_y0: bool
    wants_t: bool

    def __str__(self) -> str:
        return ", ".join(f"{x.name}={getattr(self, x.name)}" for x in fields(self))


def draw(case_id: int) -> Case:
    """Return the case of this id: the same on every machine."""
    random = Random(case_id)
    gradient = random.choice(list(sa.GRADIENTS))
    dtype = random.choices(list(DTYPES), weights=[x.weight for x in DTYPES.values()])[0]
    method, stepping = _steps(random, gradient, dtype)
    closure = random.choice(list(CLOSURES))
    changes = [name for name, change in CHANGES.items() if change.applies(CLOSURES[closure])]
    if gradient == "backprop" and "data assigned" in changes:
        changes.remove("data assigned")  # plain autograd, whose saved tensors follow the assignment
    change = random.choices(changes, weights=[CHANGES[name].weight for name in changes])[0]
    passes = [x for x in PASSES if CLOSURES[closure].encodes or not x.startswith("upstream")]
    event = random.choices(list(EVENTS), weights=list(EVENTS.values()))[0]
    return Case(
        id=case_id,
        state=random.choice(list(STATES)),
        dtype=dtype,
        method=method,
        stepping=stepping if event == "none" or stepping != "grid t" else "step size",
        gradient=gradient,
        outputs=random.choices(list(TIMES), weights=[1 if x == "one" else 4 for x in TIMES])[0],
        event=event,
        autocast=dtype == "float32" and random.random() < 0.4 and not is_implicit(method),
        closure=closure,
        change=change,
        passes=random.choice(passes),
        wants_y0=random.random() < 0.7,
        wants_t=random.random() < 0.5,
    )


def is_implicit(method: str) -> bool:
    """Return whether this is the name of an implicit method."""
    return method in METHODS and METHODS[method].implicit


def _steps(random: Random, gradient: str, dtype: str) -> tuple[str, str]:
    """Return a method and how it steps; implicit ones where they may be."""
    if gradient == "continuous":  # on fixed steps it is off by the error of the method
        return random.choice(OF_TIGHT_SOLVES), "adaptive"
    if gradient == "mali":
        return "leapfrog", random.choice(["adaptive", "step size"])
    may_be_implicit = dtype in ("float32", "float64") and sa.GRADIENTS[gradient].takes_implicit
    method = random.choice([name for name in METHODS if may_be_implicit or not is_implicit(name)])
    return method, random.choice(["adaptive", "step size"] if METHODS[method].adaptive else ["step size", "grid t"])
