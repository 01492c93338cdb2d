"""Find the gravity, restitution and initial height of a ball from the times at which it bounces.

The ball is thrown twice, upwards and downwards, at the same known speed: the times of a ball that is merely dropped
would determine only height / gravity. Each flight is solved until the height is zero; a bounce reverses the velocity
and multiplies it by the restitution. The time and the state of an event carry gradients, so the loss is differentiated
through all bounces.
"""

from types import ModuleType

import torch
from torch import Tensor, nn

from symplectic_bench.examples.command_line import Report, run, silent

GRAVITY, RESTITUTION, HEIGHT = 9.81, 0.75, 2.0
THROWS = (3.0, -3.0)
CLEARANCE = 1e-5  # a flight starts this far above the ground: at zero it would end at once

SETTINGS = {"method": "dopri5", "rtol": 1e-6, "atol": 1e-6, "options": {"first_step": 0.1}}
"""The first step is given because the solver, scaling it by the initial height CLEARANCE, would choose a tiny one."""


class Ball(nn.Module):
    """The free flight of (height, velocity). The parameters are logarithms, because the quantities are positive."""

    def __init__(self, gravity: float, restitution: float, height: float) -> None:
        super().__init__()
        self.log_gravity = nn.Parameter(torch.tensor(gravity).log())
        self.log_restitution = nn.Parameter(torch.tensor(restitution).log())
        self.log_height = nn.Parameter(torch.tensor(height).log())

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        del t
        _, velocity = state
        return velocity, -self.log_gravity.exp()


def height(t: Tensor, state: tuple[Tensor, Tensor]) -> Tensor:
    """Return the event function, zero when the ball is on the ground."""
    del t
    return state[0]


def bounce_times(odeint_library: ModuleType, ball: Ball, throw: float, bounces: int) -> Tensor:
    """Return the times, (bounces,), at which the ball is on the ground, counted from the throw."""
    solver = {"odeint_interface": odeint_library.odeint_adjoint, **SETTINGS}
    t, state = torch.tensor(0.0), (ball.log_height.exp(), torch.tensor(throw))
    times = []
    for _ in range(bounces):
        t, (_, velocity) = odeint_library.odeint_event(ball, state, t, event_fn=height, **solver)
        times.append(t)
        state = (torch.tensor(CLEARANCE), -ball.log_restitution.exp() * velocity[-1])
    return torch.stack(times)


def observe(throw: float, bounces: int) -> Tensor:
    """Return the true times, (bounces,), in closed form. After an impact at speed v a flight lasts 2 e v / g."""
    impact = (throw**2 + 2 * GRAVITY * HEIGHT) ** 0.5
    flights = 2 * impact / GRAVITY * RESTITUTION ** torch.arange(bounces)
    flights[0] = (throw + impact) / GRAVITY
    return flights.cumsum(0)


def train(
    odeint_library: ModuleType,
    *,
    iterations: int,
    seed: int = 0,
    bounces: int = 3,
    ball: Ball | None = None,
    report: Report = silent,
) -> list[float]:
    """Return the loss of every iteration, the mean square error of the times. If given, `ball` is trained in place."""
    torch.manual_seed(seed)
    guess = torch.tensor([GRAVITY, RESTITUTION, HEIGHT]) * torch.empty(3).uniform_(0.7, 1.3)
    ball = ball or Ball(*guess.tolist())
    observed = torch.stack([observe(throw, bounces) for throw in THROWS])
    optimizer = torch.optim.Adam(ball.parameters(), lr=5e-2)
    losses = []
    for iteration in range(1, iterations + 1):
        times = torch.stack([bounce_times(odeint_library, ball, throw, bounces) for throw in THROWS])
        loss = (times - observed).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        report(iteration, losses[-1])
    return losses


if __name__ == "__main__":
    run(train, __doc__, iterations=150)
