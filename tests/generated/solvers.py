"""The three solvers that run a script: this library, torchdiffeq, and autograd over recorded steps."""

from contextlib import nullcontext

import torch
import torchdiffeq

import symplectic_adjoint as sa
from symplectic_adjoint.methods.leapfrog import leapfrog
from tests.generated.case import is_implicit
from tests.generated.events import due_time
from tests.generated.states import mapped
from tests.generated.times import STEP_SIZE
from tests.oracle import flatten, replay, unflatten

TIGHT = {"float64": 1e-9, "complex128": 1e-9, "float32": 1e-6}
"""The tolerance of "continuous", whose error is of its size; in half precision it is that of all others."""
LOOSE = 1e-3
IN_TORCHDIFFEQ = {"rk38": "rk4", "tsit5": "dopri5", "dop853": "dopri8", "leapfrog": "midpoint"}
"""What torchdiffeq calls a method, or another one of its kind where it has none."""


def autocast_of(case):
    """Return the context in which the user of this case solves."""
    return torch.autocast("cpu", dtype=torch.bfloat16) if case.autocast else nullcontext()


def keywords_of(case):
    """Return the method, the tolerances and the options."""
    tolerance = TIGHT.get(case.dtype, LOOSE) if case.gradient == "continuous" else LOOSE
    options = {"step_size": STEP_SIZE} if case.stepping == "step size" else {}
    return {"method": case.method, "rtol": tolerance, "atol": tolerance, "options": options}


class Library:
    """This library; it records the grids."""

    def __init__(self, case):
        self._case, self.grids = case, []

    def __call__(self, func, y, t, event_fn):
        keywords = keywords_of(self._case)
        if self._case.gradient == "mali":
            del keywords["method"]
        with autocast_of(self._case):
            solution = sa.solve(func, y, t, event_fn=event_fn, gradient=self._case.gradient, **keywords)
        self.grids.append(solution.grid)
        return solution.event_t, solution.ys


class Torchdiffeq:
    """torchdiffeq.odeint on one vector, at the distinct times: neither structures nor repetitions are at issue."""

    def __init__(self, case):
        self._case = case

    def __call__(self, func, y, t, event_fn):
        case, keywords = self._case, keywords_of(self._case)
        like_it = ("dopri5" if sa.METHODS[case.method].adaptive else "rk4") if is_implicit(case.method) else case.method
        keywords["method"] = IN_TORCHDIFFEQ.get(like_it, like_it)
        distinct = list(dict.fromkeys(t.tolist()))
        if len(distinct) == 1:
            return None, mapped(lambda part: part.expand(len(t), *part.shape), y)
        index = [distinct.index(x) for x in t.tolist()]
        times = torch.stack([t[index.index(n)] for n in range(len(distinct))])
        if event_fn is not None:
            keywords["event_fn"] = lambda time, flat: event_fn(time, unflatten(flat, y))
        with autocast_of(case):
            found = torchdiffeq.odeint(
                lambda time, flat: flatten(func(time, unflatten(flat, y))), flatten(y), times, **keywords
            )
        event_t, ys = (None, found[index]) if event_fn is None else found
        return event_t, unflatten(ys, y)


class Replay:
    """Autograd over recorded steps, in the dtype of the truth: tests/oracle.py."""

    def __init__(self, case, grids):
        self._case, self._grids = case, iter(grids)
        self._tableau = leapfrog(1.0) if case.gradient == "mali" else sa.METHODS[case.method]
        self._pair = {"mali": ("leapfrog", 1.0), "reversible": ("coupled", 0.999)}.get(case.gradient)

    def __call__(self, func, y, t, event_fn):
        grid = next(self._grids)
        if len(grid.t) == 0:
            return None, mapped(lambda part: part.expand(len(t), *part.shape), y)
        if event_fn is None:
            return None, self._replayed(func, y, t, grid)
        return self._to_event(func, y, t, event_fn, grid)

    def _replayed(self, func, y, t, grid):
        """Return ys of the replay on one vector, in y's structure."""
        ys = replay(
            lambda time, flat: flatten(func(time, unflatten(flat, y))), self._tableau, grid, flatten(y), t, self._pair
        )
        return unflatten(ys, y)

    def _to_event(self, func, y, t, event_fn, grid):
        """Move the time found by one Newton step on the graph, with rates as numbers: the implicit function theorem."""
        tau = (grid.t[-1] + grid.output_sigma[-1] * grid.h[-1]).requires_grad_()
        ys = self._replayed(func, y, torch.stack([t[0], tau]), grid)
        end = flatten(mapped(lambda part: part[-1], ys))
        if not event_fn(tau, unflatten(end, y)).requires_grad:
            return torch.tensor(due_time(self._case)[0], dtype=torch.float64), ys  # a jump, whose time is known
        slope = flatten(func(tau, unflatten(end, y))).detach() if self._pair else rate_of(end, tau)
        # Steps that end on the event have fixed sizes, so that their end moves with their start.
        time = tau.detach() + (t[0] - t[0].detach() if self._pair else 0.0)
        value = event_fn(time, unflatten(end, y))
        along = event_fn(tau, unflatten(end.detach() + slope * (tau - tau.detach()), y))
        moved = -value / rate_of(along, tau)
        start = flatten(mapped(lambda part: part[0], ys))
        return time + moved, unflatten(torch.stack([start, end + slope * moved]), y)


def rate_of(x, t):
    """Return dx/dt, as a number."""
    parts = torch.view_as_real(x).reshape(-1) if x.is_complex() else x.reshape(-1)
    rates = torch.stack([torch.autograd.grad(part, t, retain_graph=True)[0] for part in parts])
    return torch.view_as_complex(rates.reshape(-1, 2)).reshape(x.shape) if x.is_complex() else rates.reshape(x.shape)
