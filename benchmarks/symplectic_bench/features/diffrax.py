"""diffrax with its default adjoint, RecursiveCheckpointAdjoint: programs in JAX."""

import functools
import importlib
import math
from collections.abc import Callable, Mapping
from typing import Any

from symplectic_bench.features.answer import Lacks, Wrong, expect, expect_stop
from symplectic_bench.features.library import Library
from symplectic_bench.features.probes.decay import END_SUM, LEFT, RATE, Y0_SUM

LACKS = {
    "callback": "none for each step, except a progress meter",
    "multistep": "no Adams method",
    "reversible": "reversible solvers, without their gradient",
    "autocast": "JAX has none",
}


class Programs:
    """One program a method, named like its probe."""

    def __init__(self) -> None:
        self.jax = importlib.import_module("jax")
        self.jax.config.update("jax_enable_x64", True)
        self.jnp, self.dfx = self.jax.numpy, importlib.import_module("diffrax")
        self.y0 = self.jnp.array([[1.0, 2.0], [0.5, 1.5]])

    def decay(self, t: Any, y: Any, rate: Any) -> Any:
        return self.jax.tree.map(lambda part: -rate * part, y)

    def solve(self, y0: Any, rate: Any = RATE, t: Any = (0.0, 1.0), func: Any = None, **asked: Any) -> Any:
        t = self.jnp.asarray(t)
        steps = asked.pop("steps", None)
        control = asked.pop("control", None) or self.dfx.PIDController(rtol=1e-8, atol=1e-10)
        if steps:
            control = self.dfx.ConstantStepSize()
        asked = {"saveat": self.dfx.SaveAt(ts=t), "max_steps": 4096, **asked}
        solver = asked.pop("solver", None) or self.dfx.Dopri5()
        dt0 = asked.pop("dt0", 1 / steps if steps else None)
        term = self.dfx.ODETerm(func or self.decay)
        return self.dfx.diffeqsolve(term, solver, t[0], t[-1], dt0, y0, args=rate, stepsize_controller=control, **asked)

    def end(self, *given: Any, **asked: Any) -> Any:
        return sum(part[-1].sum() for part in self.jax.tree.leaves(self.solve(*given, **asked).ys))

    def by_rate(self, **asked: Any) -> Any:
        y0 = asked.pop("y0", self.y0)
        return self.number(self.jax.grad(lambda rate: self.end(y0, rate, **asked))(RATE))

    def number(self, value: Any) -> Any:
        return importlib.import_module("numpy").array(value)

    def parameters(self) -> None:
        expect(self.by_rate(), -END_SUM)

    unused_parameter = retain_graph = parameters

    def closure(self) -> None:
        def end(rate: Any) -> Any:
            return self.end(self.y0, None, func=lambda t, y, args: -rate * y)

        expect(self.number(self.jax.grad(end)(RATE)), -END_SUM)

    def closure_non_leaf(self) -> None:
        def end(root: Any) -> Any:
            rate = root**2
            return self.end(self.y0, None, func=lambda t, y, args: -rate * y)

        expect(self.number(self.jax.grad(end)(RATE**0.5)), -2 * RATE**0.5 * END_SUM)

    held_non_leaf = closure_non_leaf

    def autograd_inside(self) -> None:
        energy = self.jax.grad(lambda y, rate: rate * (y**2).sum() / 2)
        expect(self.by_rate(func=lambda t, y, rate: -energy(y, rate)), -END_SUM)

    def initial_state(self) -> None:
        expect(self.number(self.jax.grad(self.end)(self.y0)), [LEFT] * 4)

    func_grad = initial_state

    def _times(self, index: int, known: float) -> None:
        gradient = self.jax.grad(lambda t: self.end(self.y0, RATE, t))(self.jnp.array([0.0, 1.0]))
        expect(self.number(gradient[index]), known)

    def end_time(self) -> None:
        self._times(1, -RATE * END_SUM)

    def start_time(self) -> None:
        self._times(0, RATE * END_SUM)

    def output_time(self) -> None:
        gradient = self.jax.grad(lambda t: self.solve(self.y0, RATE, t).ys[1].sum())(self.jnp.array([0.0, 0.4, 1.0]))
        expect(self.number(gradient[1]), -RATE * Y0_SUM * math.exp(-0.4 * RATE))

    def exact(self) -> None:
        def end(rate: Any) -> Any:
            return self.end(self.y0, rate, func=lambda t, y, rate: -rate * y**3, steps=8)

        known = (end(RATE + 1e-5) - end(RATE - 1e-5)) / 2e-5
        expect(self.number(self.jax.grad(end)(RATE)), self.number(known), 1e-6)

    def several_outputs(self) -> None:
        t = (0.0, 0.3, 1.0)
        gradient = self.jax.grad(lambda rate: self.solve(self.y0, rate, t).ys.sum())(RATE)
        expect(self.number(gradient), -Y0_SUM * sum(one * math.exp(-RATE * one) for one in t))

    def many_outputs(self) -> None:
        few, many = (self.solve(self.y0, t=self.jnp.linspace(0, 1, n)).stats["num_steps"] for n in (2, 100))
        if int(many) > 2 * int(few):
            raise Lacks("more steps")

    def decreasing(self) -> None:
        expect(self.by_rate(t=(1.0, 0.0)), Y0_SUM / LEFT)

    def repeated_time(self) -> None:
        expect(self.by_rate(t=(0.0, 1.0, 1.0)), -END_SUM)

    def dense(self) -> None:
        def at(rate: Any) -> Any:
            return self.solve(self.y0, rate, saveat=self.dfx.SaveAt(dense=True)).evaluate(0.35).sum()

        expect(self.number(self.jax.grad(at)(RATE)), -0.35 * Y0_SUM * math.exp(-0.35 * RATE))

    def known_jump(self) -> None:
        inner = self.dfx.PIDController(rtol=1e-8, atol=1e-10)
        control = self.dfx.ClipStepSizeController(inner, jump_ts=self.jnp.array([0.5]))
        found = self.by_rate(func=lambda t, y, rate: -rate * y * (t >= 0.5), control=control)
        expect(found, -0.5 * Y0_SUM * math.exp(-0.5 * RATE), 1e-6)

    def times_per_sample(self) -> None:
        ends = self.jax.vmap(lambda y, end: self.solve(y, t=self.jnp.stack((0.0 * end, end))).ys[-1])
        ys = ends(self.y0, self.jnp.array([1.0, 2.0]))
        expect(self.number(ys.sum(1)), [3 * LEFT, 2 * LEFT**2])

    def _event(self, rate: Any, level: Any) -> Any:
        optimistix = importlib.import_module("optimistix")
        event = self.dfx.Event(lambda t, y, args, **_: y.sum() - level, optimistix.Newton(1e-10, 1e-10))
        saveat = self.dfx.SaveAt(t1=True)
        return self.solve(self.y0, rate, (0.0, 10.0), event=event, saveat=saveat).ts[-1]

    def event(self) -> None:
        expect(self.number(self._event(RATE, 3.0)), math.log(Y0_SUM / 3) / RATE)

    def event_gradient(self) -> None:
        expect(self.number(self.jax.grad(self._event)(RATE, 3.0)), -math.log(Y0_SUM / 3) / RATE**2)

    def event_parameter(self) -> None:
        expect(self.number(self.jax.grad(self._event, 1)(RATE, 3.0)), -1 / (RATE * 3))

    def tuple_state(self) -> None:
        expect(self.by_rate(y0=(self.y0, self.y0[0])), -(Y0_SUM + 3) * LEFT)

    def dict_state(self) -> None:
        expect(self.by_rate(y0={"a": self.y0, "b": self.y0[0]}), -(Y0_SUM + 3) * LEFT)

    def scalar(self) -> None:
        expect(self.by_rate(y0=self.jnp.array(2.0)), -2 * LEFT)

    def _rotated(self, rate: Any) -> Any:
        return self.solve(self.jnp.array([[1.0 + 1.0j]]), rate, func=lambda t, y, rate: 1j * rate * y).ys[-1]

    def complex_state(self) -> None:
        expect(self.number(self._rotated(RATE)), complex(1, 1) * complex(math.cos(RATE), math.sin(RATE)))

    def complex_gradient(self) -> None:
        gradient = self.jax.grad(lambda rate: self._rotated(rate).real.sum())(RATE)
        expect(self.number(gradient), -math.sin(RATE) - math.cos(RATE))

    def float32_state(self) -> None:
        control = self.dfx.PIDController(rtol=1e-5, atol=1e-6)
        asked = {"y0": self.y0.astype("float32"), "t": (1e8, 1e8 + 1), "control": control}
        expect(self.by_rate(**asked), -END_SUM)

    def bfloat16_state(self) -> None:
        control = self.dfx.PIDController(rtol=1e-2, atol=1e-2)
        rate = self.jnp.array(RATE, "bfloat16")
        y0 = self.y0.astype("bfloat16")
        gradient = self.jax.grad(lambda rate: self.end(y0, rate, control=control))(rate)
        expect(self.number(gradient.astype("float64")), -END_SUM, 3e-2)

    def per_sample_steps(self) -> None:
        calm, wild = self.jnp.array([0.5, 0.1]), self.jnp.array([30.0, 20.0])
        control = self.dfx.PIDController(rtol=1e-3, atol=1e-4)

        def one(y: Any) -> Any:
            return self.solve(y, func=lambda t, y, rate: -rate * y**3, control=control).ys[-1]

        beside = self.jax.vmap(one)(self.jnp.stack((calm, wild)))[0]
        expect(self.number(beside), self.number(self.jax.vmap(one)(calm[None])[0]), 1e-12)

    def tolerance_per_component(self) -> None:
        atol = self.jnp.full((2, 2), 1e-10)
        expect(self.by_rate(control=self.dfx.PIDController(rtol=1e-8, atol=atol)), -END_SUM)

    def first_step(self) -> None:
        expect(self.by_rate(dt0=0.01), -END_SUM)

    def max_step(self) -> None:
        control = self.dfx.PIDController(rtol=1e-8, atol=1e-10, dtmax=0.01)
        if int(self.solve(self.y0, control=control).stats["num_steps"]) < 100:
            raise Wrong("fewer than 100 steps")

    def max_steps(self) -> None:
        self._stops(t=(0.0, 100.0), max_steps=3)

    def nan(self) -> None:
        self._stops(func=lambda t, y, rate: y * math.nan)

    def broadcast(self) -> None:
        self._stops(func=lambda t, y, rate: (-rate * y).sum().reshape(1, 1))

    def weight_changed(self) -> None:
        expect_stop(lambda: self.y0.__setitem__(0, 1.0))  # arrays are immutable

    state_changed = weight_changed

    def object_changed(self) -> None:
        settings = {"scale": 1.0}

        def end(rate: Any) -> Any:
            return self.end(self.y0, rate, func=lambda t, y, rate: -settings["scale"] * rate * y)

        _, backward = self.jax.vjp(end, RATE)
        settings["scale"] = 1.5
        expect(self.number(backward(1.0)[0]), -END_SUM)

    number_changed = object_changed

    def dropout(self) -> None:
        def field(t: Any, y: Any, rate: Any) -> Any:
            key = self.jax.random.fold_in(self.jax.random.key(0), (1000 * t).astype(int))
            return -rate * y * 2 * self.jax.random.bernoulli(key, 0.5, y.shape)

        def end(rate: Any) -> Any:
            return self.end(self.y0, rate, func=field, steps=4)

        known = (end(RATE + 1e-5) - end(RATE - 1e-5)) / 2e-5
        expect(self.number(self.jax.grad(end)(RATE)), self.number(known), 1e-6)

    def unknown_option(self) -> None:
        self._stops(no_such_option=1.0)

    def disordered(self) -> None:
        self._stops(t=(0.0, 1.0, 0.5))

    def _stops(self, **asked: Any) -> None:
        try:
            self.solve(self.y0, **asked).ys.block_until_ready()
        except Exception:
            return
        raise Wrong("no error")

    def counts(self) -> None:
        stats = self.solve(self.y0).stats
        if "num_f_evals" not in stats:
            raise Lacks("reports steps, not calls of func")

    def stiff(self) -> None:
        control = self.dfx.PIDController(rtol=1e-6, atol=1e-8)
        found = self.by_rate(
            func=lambda t, y, rate: -1e6 * (y - rate * self.jnp.cos(t)), control=control, solver=self.dfx.Kvaerno5()
        )
        expect(found, 4 * math.cos(1.0), 1e-3)

    def imex(self) -> None:
        def end(rate: Any) -> Any:
            slow, fast = self.dfx.ODETerm(lambda t, y, args: -RATE * y), self.dfx.ODETerm(self.decay)
            # At rtol 1e-6, diffrax 0.7.2 does not reach the end within its 4,096 steps.
            control, terms = self.dfx.PIDController(rtol=1e-3, atol=1e-5), self.dfx.MultiTerm(slow, fast)
            solution = self.dfx.diffeqsolve(
                terms, self.dfx.KenCarp4(), 0.0, 1.0, None, self.y0, args=rate, stepsize_controller=control
            )
            return solution.ys[-1].sum()

        expect(self.number(self.jax.grad(end)(RATE)), -END_SUM * LEFT, 1e-2)

    def sde(self) -> None:
        path = self.dfx.VirtualBrownianTree(0.0, 1.0, tol=1e-3, shape=(), key=self.jax.random.key(0))
        noise = self.dfx.ControlTerm(lambda t, y, args: 0.5, path)
        terms = self.dfx.MultiTerm(self.dfx.ODETerm(lambda t, y, args: 0.0 * y), noise)
        end = self.dfx.diffeqsolve(terms, self.dfx.Euler(), 0.0, 1.0, 0.1, self.jnp.array(0.0)).ys[-1]
        expect(self.number(end), self.number(0.5 * path.evaluate(0.0, 1.0)))

    def no_graph(self) -> None:
        def temporaries(steps: int) -> int:
            def end(rate: Any) -> Any:
                # 8 states are kept whatever the number of steps
                adjoint = self.dfx.RecursiveCheckpointAdjoint(checkpoints=8)
                y0 = self.jnp.ones((1000,))
                return self.end(y0, rate, steps=steps, adjoint=adjoint)

            return self.jax.jit(self.jax.grad(end)).lower(RATE).compile().memory_analysis().temp_size_in_bytes

        if temporaries(400) > 2 * temporaries(40):
            raise Lacks("memory grows with the steps")

    def double_backward(self) -> None:
        adjoint = self.dfx.DirectAdjoint()  # the default one differentiates once
        total = lambda rate: self.solve(self.y0, rate, adjoint=adjoint).ys[-1].sum()  # noqa: E731
        second = self.jax.grad(self.jax.grad(total))(RATE)
        expect(self.number(second), END_SUM)

    def forward_mode(self) -> None:
        adjoint = self.dfx.ForwardMode()
        _, tangent = self.jax.jvp(lambda y: self.solve(y, adjoint=adjoint).ys[-1], (self.y0,), (self.y0 * 0 + 1,))
        expect(self.number(tangent), [LEFT] * 4)

    def vmap(self) -> None:
        ends = self.jax.vmap(lambda y: self.solve(y).ys[-1])(self.y0)
        expect(self.number(ends), self.number(self.y0 * LEFT))

    def compiled(self) -> None:
        expect(self.number(self.jax.jit(self.jax.grad(lambda rate: self.end(self.y0, rate)))(RATE)), -END_SUM)

    fullgraph = compiled


class Diffrax(Library):
    """diffrax, whose programs are in JAX."""

    def programs(self) -> Mapping[str, Callable[[], Any]]:
        programs = _programs()
        return {name: getattr(programs, name) for name in dir(programs) if not name.startswith("_")}


@functools.cache
def _programs() -> Programs:
    """Import JAX, which takes seconds, once a process."""
    return Programs()
