"""The libraries in PyTorch, each called as its documentation does."""

import importlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from symplectic_bench.features.answer import Lacks
from symplectic_bench.features.library import Library, only

TIGHT = {"rtol": 1e-8, "atol": 1e-10}
FINE = 64
"""Steps between two outputs, for libraries that take equal steps only."""


@dataclass(frozen=True)
class OdeintLibrary(Library):
    """A library with the signature of torchdiffeq's odeint, called by the name of the entry."""

    def module(self) -> Any:
        return importlib.import_module(self.package)

    def solve(self, func: Any, y0: Any, t: Tensor, **asked: Any) -> Any:
        tolerances = {name: asked.pop(name, TIGHT[name]) for name in TIGHT}
        method = {"method": asked.pop("method")} if "method" in asked else {}
        if "steps" in asked:
            method, asked = {"method": "rk4"}, {"step_size": float(t[-1] - t[0]) / asked["steps"]}
        return getattr(self.module(), self.entry)(func, y0, t, **tolerances, **method, options=asked or None)

    def event(self, func: Any, y0: Any, t0: Any, event_fn: Any) -> tuple[Any, Any]:
        interface = getattr(self.module(), self.entry)
        return self.module().odeint_event(func, y0, t0, event_fn=event_fn, odeint_interface=interface, **TIGHT)

    def dense(self, func: Any, y0: Any, t0: Any, t1: Any) -> Any:
        if self.entry != "odeint":
            raise Lacks("odeint_dense keeps the graph: there is none with an adjoint")
        if not hasattr(self.module(), "odeint_dense"):
            raise Lacks("no odeint_dense in this version")
        return self.module().odeint_dense(func, y0, t0, t1, **TIGHT)

    def multistep(self, func: Any, y0: Any, t: Any) -> Any:
        return self.solve(func, y0, t, method="implicit_adams", step_size=0.01)


@dataclass(frozen=True)
class Ours(OdeintLibrary):
    """This library with its default gradient, symplectic, or one that the question is about."""

    def calls(self, func: Any, y0: Any, t: Any) -> int:
        return self.module().solve(func, y0, t, **TIGHT).stats.f_calls_forward

    def stiff(self, func: Any, y0: Any, t: Any) -> Any:
        return self.module().odeint(func, y0, t, rtol=1e-6, atol=1e-8, method="kvaerno5")

    def split(self, explicit: Any, implicit: Any, y0: Any, t: Any) -> Any:
        return self.module().odeint((explicit, implicit), y0, t, **TIGHT, method="kencarp4")

    def reversible(self, func: Any, y0: Any, t: Any) -> Any:
        return self.module().odeint(func, y0, t, **TIGHT, gradient="reversible")


@dataclass(frozen=True)
class Torchode(Library):
    """torchode with AutoDiffAdjoint. Its states are (batch, features), its times (batch, times)."""

    def solve(self, func: Any, y0: Any, t: Tensor, **asked: Any) -> Any:
        only(asked, "rtol", "atol", "steps", "max_num_steps", "max_step", "first_step")
        ys = self._solution(func, y0, t.expand(len(y0), -1), **asked).ys
        return ys.transpose(0, 1)

    def per_sample(self, func: Any, y0: Any, t: Any) -> Any:
        return self._solution(func, y0, t).ys

    def calls(self, func: Any, y0: Any, t: Any) -> int:
        return int(self._solution(func, y0, t.expand(len(y0), -1)).stats["n_f_evals"].max())

    def _solution(self, func: Any, y0: Any, t: Tensor, **asked: Any) -> Any:
        to = importlib.import_module("torchode")
        if isinstance(y0, tuple | dict):
            raise Lacks("a state is one tensor (batch, features)")
        term = to.ODETerm(lambda t, y: func(t[:, None], y))
        first = asked.get("first_step")
        if "steps" in asked:
            step, control = to.Euler(term), to.FixedStepController()
            first = float(t[0, -1] - t[0, 0]) / asked["steps"]
        else:
            tolerances = {name: asked.get(name, TIGHT[name]) for name in TIGHT}
            step = to.Dopri5(term)
            control = to.IntegralController(**tolerances, term=term, dt_max=asked.get("max_step"))
        solver = to.AutoDiffAdjoint(step, control, max_steps=asked.get("max_num_steps"))
        dt0 = None if first is None else torch.full((len(y0),), first, dtype=t.dtype)
        solution = solver.solve(to.InitialValueProblem(y0=y0, t_eval=t), dt0=dt0)
        if bool((solution.status != 0).any()):
            raise RuntimeError(f"status {int(solution.status.max())} instead of success")  # its user has to look
        return solution


@dataclass(frozen=True)
class TorchDiffEqPack(Library):
    """TorchDiffEqPack with odesolve_adjoint (ACA), which returns the state at the end."""

    def solve(self, func: Any, y0: Any, t: Tensor, **asked: Any) -> Any:
        only(asked, "rtol", "atol", "steps")
        end = self._end("odesolve_adjoint", "Dopri5", func, y0, t, **asked)
        return (
            tuple(torch.stack(pair) for pair in zip(y0, end, strict=True))
            if isinstance(y0, tuple)
            else torch.stack((y0, end))
        )

    def reversible(self, func: Any, y0: Any, t: Any) -> Any:
        end = self._end("odesolve_adjoint_sym12", "sym12async", func, y0, t, rtol=1e-6, atol=1e-8)
        return torch.stack((y0, end))

    def _end(self, entry: str, method: str, func: Any, y0: Any, t: Tensor, **asked: Any) -> Any:
        if len(t) > 2:
            raise Lacks("returns the state at the end only")
        h = float(t[-1] - t[0]) / asked["steps"] if "steps" in asked else None
        times = {"t0": t[0], "t1": t[-1]} if t.requires_grad else {"t0": float(t[0]), "t1": float(t[-1])}
        options = {"method": "RK4" if "steps" in asked else method, "h": h, **times, "print_neval": False}
        options |= {name: asked.get(name, TIGHT[name]) for name in TIGHT} | {"neval_max": 100000}
        return getattr(importlib.import_module("TorchDiffEqPack"), entry)(func, y0, options=options)


@dataclass(frozen=True)
class Rampde(Library):
    """rampde, whose steps are the intervals of the times that it is given."""

    def solve(self, func: Any, y0: Any, t: Tensor, **asked: Any) -> Any:
        only(asked, "rtol", "atol", "steps")
        between = asked["steps"] // (len(t) - 1) if "steps" in asked else FINE
        fractions = torch.arange(between, dtype=t.dtype) / between
        inner = (t[:-1, None] + (t[1:] - t[:-1])[:, None] * fractions).reshape(-1)
        ys = importlib.import_module("rampde").odeint(func, y0, torch.cat((inner, t[-1:])), method="rk4")
        return tuple(part[::between] for part in ys) if isinstance(ys, tuple) else ys[::between]


@dataclass(frozen=True)
class Torchdyn(Library):
    """torchdyn's ODEProblem with sensitivity="adjoint"."""

    def solve(self, func: Any, y0: Any, t: Tensor, **asked: Any) -> Any:
        only(asked, "rtol", "atol", "steps")
        core = importlib.import_module("torchdyn.core")
        solver = "rk4" if "steps" in asked else "dopri5"
        times = torch.linspace(float(t[0]), float(t[-1]), asked["steps"] + 1, dtype=t.dtype) if "steps" in asked else t
        tolerances = {name: asked.get(name, TIGHT[name]) for name in TIGHT}
        adjoint = {f"{name}_adjoint": value for name, value in tolerances.items()}
        field = func if isinstance(func, nn.Module) else lambda t, y, args=None: func(t, y)
        problem = core.ODEProblem(field, solver=solver, sensitivity="adjoint", **tolerances, **adjoint)
        _, ys = problem(y0, times)
        return ys[:: asked["steps"]] if "steps" in asked else ys


@dataclass(frozen=True)
class Zuko(Library):
    """zuko's odeint, which returns the state at the end."""

    def solve(self, func: Any, y0: Any, t: Tensor, **asked: Any) -> Any:
        only(asked, "rtol", "atol")
        if len(t) > 2:
            raise Lacks("returns the state at the end only")
        parameters = tuple(func.parameters()) if isinstance(func, nn.Module) else ()
        tolerances = {name: asked.get(name, TIGHT[name]) for name in TIGHT}
        field = (lambda t, *parts: func(t, parts)) if isinstance(y0, tuple) else func
        end = importlib.import_module("zuko.utils").odeint(field, y0, t[0], t[1], phi=parameters, **tolerances)
        if isinstance(y0, tuple):
            return tuple(torch.stack(pair) for pair in zip(y0, end, strict=True))
        return torch.stack((y0, end))


@dataclass(frozen=True)
class Pnode(Library):
    """PNODE with a fixed-step Runge-Kutta method and PETSc's discrete adjoint."""

    def solve(self, func: Any, y0: Any, t: Tensor, **asked: Any) -> Any:
        from symplectic_bench.contenders.pnode import PNODE, NumbersAsTimes

        only(asked, "rtol", "atol", "steps")
        if isinstance(y0, tuple | dict):
            raise Lacks("a state is one tensor")
        if t.requires_grad:
            raise Lacks("times have no gradient")
        ode = PNODE.load().ODEPetsc()
        step = float(t[-1] - t[0]) / asked.get("steps", FINE)
        ode.setupTS(y0.detach(), NumbersAsTimes(func, y0), step_size=step, method="rk4", enable_adjoint=True)
        return ode.odeint_adjoint(y0, t)
