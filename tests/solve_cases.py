"""Solves by every gradient, every method and every way to call them, for tests of what must not matter to any."""

import torch
from torch import nn

import symplectic_adjoint as sa
from symplectic_adjoint.methods.registry import EXPLICIT_METHODS
from tests.gradients import OWN_STEPS, STANDARD

T = torch.tensor([0.0, 0.25, 0.3, 1.0])
TOLERANCES = {"rtol": 1e-3, "atol": 1e-4}
FIXED = {"step_size": 0.125}
CAPTURES = [name for name, gradient in sa.GRADIENTS.items() if gradient.captures]
IMPLICIT = [name for name, method in sa.METHODS.items() if method.implicit and not method.parts]
IMEX = [name for name, method in sa.METHODS.items() if method.parts]


class Neighbours(nn.Module):
    """Coupled entries, by operations that no autocast casts."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.a, self.b = (nn.Parameter(_drawn(generator)) for _ in range(2))

    def forward(self, t, y):
        return torch.tanh(self.a * y.roll(1, -1)) * torch.cos(t) - torch.sin(self.b) * y


def start():
    return _drawn(torch.Generator().manual_seed(1))


def _drawn(generator):
    return torch.randn(2, 3, generator=generator, dtype=torch.float32, device="cpu")


def solved(func, y0, t, **keywords):
    solution = sa.solve(func, y0, t, **{**TOLERANCES, **keywords})
    return solution.ys, (solution.grid.t, solution.grid.h, solution.grid.pinned_to, solution.grid.open_end)


def stepped(func, y0, t, method="rk4", **keywords):
    return solved(func, y0, t, method=method, options=FIXED, **keywords)


def split(func, y0, t, **keywords):
    return stepped((func, lambda t, y: -5.0 * y), y0, t, params=tuple(func.parameters()), **keywords)


def with_many_outputs(func, y0, t, **keywords):
    times = torch.linspace(0, 1, 90, dtype=t.dtype, device="cpu") * t[-1]
    return solved(func, y0, times, options={"outputs": "interpolate"}, **keywords)


def event(func, y0, t, **keywords):
    t, ys = sa.odeint(func, y0, t[[0, -1]], event_fn=lambda t, y: y.flatten()[0] + t - 1.0, **TOLERANCES, **keywords)
    return torch.cat([ys.flatten(), t.to(ys)[None]]), ()


def dense(func, y0, t, **keywords):
    solution = sa.odeint_dense(func, y0, t[0], t[-1], **TOLERANCES, **keywords)
    return torch.cat([solution(t), solution(t / 2), solution(0.3)[None]]), ()


def adjoint(func, y0, t, **keywords):
    return sa.odeint_adjoint(func, y0, t, gradient="continuous", **TOLERANCES, **keywords), ()


def in_parts(func, y0, t, **keywords):
    return solved(lambda t, y: (func(t, y[0]), -y[1]), (y0, y0 * 2), t, params=func, **keywords)[0][0], ()


def jumping(func, y0, t, **keywords):
    return solved(func, y0, t, options={"jump_t": torch.tensor([0.4], dtype=torch.float32, device="cpu")}, **keywords)


def twice(func, y0, t, **keywords):
    ys = solved(func, y0, t, **keywords)[0]
    return torch.stack(torch.autograd.grad(ys, [y0, func.a], torch.ones_like(ys), create_graph=True)), ()


EXPLICIT_CASES = {
    **{f"adaptive-{name}": (solved, {"gradient": name}) for name in STANDARD},
    **{f"stepped-{name}": (stepped, {"gradient": name}) for name in STANDARD},
    **{f"stepped-{name}": (stepped, {"gradient": name, "method": None}) for name in OWN_STEPS},
    **{f"dense-{name}": (dense, {"gradient": name}) for name in STANDARD},
    **{f"outputs-{name}": (with_many_outputs, {"gradient": name}) for name in STANDARD},
    **{f"event-{name}": (event, {"gradient": name}) for name in STANDARD},
    **{name: (solved if sa.METHODS[name].adaptive else stepped, {"method": name}) for name in EXPLICIT_METHODS},
    **{f"captured-{name}": (solved, {"gradient": name, "capture": True}) for name in CAPTURES},
    **{f"captured-steps-{name}": (stepped, {"gradient": name, "capture": True}) for name in CAPTURES},
    **{f"captured-outputs-{name}": (with_many_outputs, {"gradient": name, "capture": True}) for name in CAPTURES},
    "captured-event": (event, {"capture": True}),
    "float64": (solved, {"accumulate": "float64"}),
    "compensated": (solved, {"accumulate": "compensated"}),
    "offload": (solved, {"gradient": sa.Symplectic(offload="cpu")}),
    "graphs": (solved, {"gradient": sa.Symplectic(graphs=3)}),
    "auto": (solved, {"gradient": "auto"}),
    "adjoint": (adjoint, {}),
    "seminorm": (adjoint, {"adjoint_options": {"norm": "seminorm"}}),
    "mixed-norm": (adjoint, {"adjoint_options": {"norm": "mixed"}}),
    "parts": (in_parts, {}),
    "jump": (jumping, {}),
    "twice": (twice, {}),
}
IMPLICIT_CASES = {
    **{name: (stepped, {"method": name}) for name in IMPLICIT},
    **{name: (split, {"method": name}) for name in IMEX},
    **{
        f"{linear}-{gradient}": (solved, {"method": "kvaerno3", "options": {"linear": linear}, "gradient": gradient})
        for linear in ("dense", "batched", "gmres")
        for gradient in STANDARD
    },
    "coupled-gmres": (solved, {"method": "radauIIA5", "options": {"linear": "gmres", "step_size": 0.5}}),
    "implicit-twice": (twice, {"method": "sdirk2", "options": FIXED}),
}
