"""The characteristic properties of the white dwarf, the coupled oscillators and the double pendulum."""

import pytest
import torch

from symplectic_adjoint import odeint
from symplectic_bench.problems import PROBLEMS

TIGHT = 1e-11
"""Tolerance of solves. Conserved quantities are compared at a hundred times it, because errors of steps add up."""


def build(name, batch=3, **sizes):
    return PROBLEMS[name].build(sizes, batch, "float64")


def run(problem, y0=None):
    with torch.no_grad():
        start = problem.y0 if y0 is None else torch.tensor([y0], dtype=torch.float64)
        return odeint(problem.func, start, problem.t, rtol=TIGHT, atol=TIGHT, method="dop853")


class TestWhiteDwarf:
    def test_its_surface_is_where_chandrasekhar_has_it(self):
        """At 5.3571, and there -r^2 phi' is 1.9321 (1939, table 25, for 1 / y_0^2 = 0.01), where phi = 0.1."""
        q, r = 0.99**0.5, 0.5
        phi = 1 - q**3 * r**2 / 6 + q**4 * r**4 / 40 - q**5 * (5 * q**2 + 14) * r**6 / 5040
        slope = -(q**3) * r / 3 + q**4 * r**3 / 10 - q**5 * (5 * q**2 + 14) * r**5 / 840
        phi, slope = run(build("white_dwarf", c=0.01, end=4.85, outputs=1), [phi, slope])[-1, 0].tolist()
        assert 5.35 + (phi - 0.1) / -slope == pytest.approx(5.3571, abs=1e-4)

    def test_starts_are_near_the_regular_solution_and_stay_above_the_surface(self):
        problem = build("white_dwarf", batch=100)
        phi, slope = problem.y0.detach().mean(dim=0).tolist()
        assert phi == pytest.approx(1 - 0.5**2 / 6, abs=0.005) and slope == pytest.approx(-0.5 / 3, abs=0.02)
        assert bool((run(problem)[..., 0] > 0.15).all())

    def test_a_star_without_matter_is_refused(self):
        with pytest.raises(ValueError, match=r"c must be in \[0, 1\)"):
            build("white_dwarf", c=1.0)


class TestCoupledOscillators:
    def energy(self, ys):
        x, z, v, w = ys.unbind(2)
        return (v.square() + w.square() + x.square() + 1.1 * z.square() + 0.4 * (x - z).square()) / 2

    def test_their_energy_decreases_only_if_damped(self):
        free, damped = (self.energy(run(build("coupled_oscillators", damping=d))) for d in (0.0, 0.02))
        torch.testing.assert_close(free, free[:1].expand_as(free), rtol=100 * TIGHT, atol=0)
        assert bool((damped.diff(dim=0) < 0).all())

    def test_it_passes_from_one_to_the_other(self):
        x, z, v, w = run(build("coupled_oscillators", damping=0.0, outputs=100), [1.0, 0.0, 0.0, 0.0])[:, 0].unbind(1)
        first, second = v.square() + x.square(), w.square() + z.square()
        assert float(first.min()) < 0.2 and float(second.max()) > 0.7


class TestDoublePendulum:
    def test_its_energy_is_conserved(self):
        a, b, v, w = run(build("double_pendulum")).unbind(2)
        energy = v.square() + w.square() / 2 + v * w * (a - b).cos() - 2 * a.cos() - b.cos()
        torch.testing.assert_close(energy, energy[:1].expand_as(energy), rtol=100 * TIGHT, atol=100 * TIGHT)

    @pytest.mark.parametrize("sign", [1, -1])
    def test_small_oscillations_have_its_two_frequencies(self, sign):
        """omega^2 = 2 -+ sqrt 2 with b = +- sqrt 2 a (Landau and Lifshitz, section 23), here for a period."""
        omega = (2 - sign * 2**0.5) ** 0.5
        start = [1e-4, sign * 2**0.5 * 1e-4, 0.0, 0.0]
        end = run(build("double_pendulum", end=2 * torch.pi / omega, outputs=1), start)[-1, 0]
        torch.testing.assert_close(end, torch.tensor(start, dtype=torch.float64), rtol=0, atol=1e-10)

    def test_neighbouring_solutions_separate_from_large_angles_only(self):
        problem = build("double_pendulum", end=20.0, outputs=1)

        def apart(angle):
            one, near = (run(problem, [angle + by, angle, 0.0, 0.0])[-1] for by in (0.0, 1e-7))
            return float((one - near).norm() / 1e-7)

        assert apart(0.5) < 10 and apart(2.0) > 100
