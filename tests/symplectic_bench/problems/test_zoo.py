"""The characteristic properties of each problem: invariants, equilibria, jumps and cost."""

import numpy as np
import pytest
import torch

from symplectic_adjoint import odeint
from symplectic_adjoint import solve as solve_with_stats
from symplectic_bench.oracles.fifty_digits import FIFTY, Number, gradient, plain
from symplectic_bench.oracles.twin import OPS, DigitsTwin, doubles
from symplectic_bench.problems import PROBLEMS, cahn_hilliard, kdv, robertson

TIGHT = 1e-11
"""Tolerance of solves. Conserved quantities are compared at a hundred times it, because errors of steps add up."""
ROUNDING = 1e-13
"""A few hundred rounding errors of float64."""

ZERO = torch.zeros((), dtype=torch.float64)


def build(name, batch=3, seed=0, **sizes):
    return PROBLEMS[name].build(sizes, batch, "float64", seed=seed)


def run(problem, tolerance=TIGHT, **how):
    if problem.jumps:
        how["options"] = {"jump_t": torch.tensor(problem.jumps, dtype=torch.float64)}
    with torch.no_grad():
        return odeint(problem.func, problem.y0, problem.t, rtol=tolerance, atol=tolerance, method="dop853", **how)


def steps(problem, tolerance=1e-6):
    with torch.no_grad():
        solved = solve_with_stats(problem.func, problem.y0, problem.t, rtol=tolerance, atol=tolerance, method="dopri5")
    return solved.stats.accepted


def assert_conserved(values, tolerance=100 * TIGHT):
    """Assert that the values at all outputs equal the first."""
    torch.testing.assert_close(values, values[:1].expand_as(values), rtol=tolerance, atol=tolerance)


def is_equilibrium(problem, y):
    y = torch.tensor(y, dtype=torch.float64).expand_as(problem.y0)
    return float(problem.func(ZERO, y).detach().abs().max()) < ROUNDING


def divergence(problem, y):
    J = torch.autograd.functional.jacobian(lambda row: problem.func(ZERO, row[None])[0], y)
    return J.diagonal().sum()


@pytest.mark.parametrize("name", [name for name, family in PROBLEMS.items() if family.solution])
def test_a_closed_form_equals_the_solve_at_every_output(name):
    problem = build(name)
    found, _ = doubles(np.frompyfunc(plain, 1, 1)(DigitsTwin(problem).solution()))
    torch.testing.assert_close(found, run(problem), rtol=100 * TIGHT, atol=100 * TIGHT)


@pytest.mark.parametrize("name", [name for name, family in PROBLEMS.items() if family.solution])
def test_the_gradient_of_a_closed_form_equals_that_of_the_solve(name):
    problem = build(name)
    twin = DigitsTwin(problem)
    expected = [doubles(g)[0] for g in twin.gradient(twin.loss(twin.solution()))]
    how = {"options": {"jump_t": torch.tensor(problem.jumps, dtype=torch.float64)}} if problem.jumps else {}
    ys = odeint(problem.func, problem.y0, problem.t, rtol=TIGHT, atol=TIGHT, method="dop853", **how)
    problem.loss(ys).backward()
    for found, e in zip(problem.gradient(), expected, strict=True):
        torch.testing.assert_close(found, e, rtol=100 * TIGHT, atol=100 * TIGHT)


@pytest.mark.parametrize("name", [name for name, family in PROBLEMS.items() if family.solution])
def test_the_time_derivative_of_a_closed_form_is_the_field(name):
    """To fifty digits, less those that cancel in sums of large terms."""
    problem = build(name, batch=2, **({"dim": 3} if name == "linear" else {}))
    twin = DigitsTwin(problem)
    t = Number(float(problem.t[-1]))
    y = PROBLEMS[name].solution(OPS, twin.theta, twin.held, t, twin.y0)
    slopes = [gradient(x, [t])[0] for x in y.ravel()]
    expected = [plain(x) for x in twin.f(t.value, y).ravel()]
    assert max(abs(a - b) for a, b in zip(slopes, expected, strict=True)) < FIFTY.mpf(10) ** -45


class TestLogistic:
    def test_its_equilibria_are_zero_and_its_capacity(self):
        problem = build("logistic")
        assert is_equilibrium(problem, [0.0]) and is_equilibrium(problem, [problem.func.capacity.item()])

    def test_it_grows_and_stays_below_its_capacity(self):
        ys = run(build("logistic"))
        assert bool((ys.diff(dim=0) > 0).all()) and bool((ys < 2).all())


class TestHarmonic:
    @pytest.mark.parametrize("zeta", [0.0, 0.1])
    def test_its_energy_decreases_only_if_damped(self, zeta):
        problem = build("harmonic", zeta=zeta)
        x, v = run(problem).unbind(2)
        energy = (4 * x.square() + v.square()) / 2
        if zeta:
            assert bool((energy.diff(dim=0) < 0).all())
        else:
            assert_conserved(energy)

    def test_it_returns_to_its_start_after_a_period(self):
        problem = build("harmonic", zeta=0.0, end=float(torch.pi), outputs=1)
        start, end = run(problem)
        torch.testing.assert_close(end, start, rtol=100 * TIGHT, atol=100 * TIGHT)

    def test_critical_damping_is_refused(self):
        with pytest.raises(ValueError, match=r"zeta must be in \[0, 1\)"):
            build("harmonic", zeta=1.0)


class TestKepler:
    @pytest.mark.parametrize("eccentricity", [0.0, 0.3, 0.9])
    def test_energy_and_angular_momentum_are_conserved(self, eccentricity):
        x, y, u, v = run(build("kepler", eccentricity=eccentricity)).unbind(2)
        assert_conserved((u.square() + v.square()) / 2 - 1 / torch.hypot(x, y))
        assert_conserved(x * v - y * u)

    def test_it_starts_near_periapsis_with_a_semi_major_axis_near_one(self):
        x, v = build("kepler", batch=100).y0.detach().split(2, dim=1)
        r = x.norm(dim=1)
        a = 1 / (2 / r - v.square().sum(dim=1))
        # Starts are perturbed by 0.02 in each component, so a varies by da = 2 a^2 (dr / r^2 + v dv), about 0.09.
        assert float((r - 0.7).abs().max()) < 0.1 and abs(float(a.mean()) - 1) < 0.05

    @pytest.mark.parametrize("eccentricity", [0.0, 0.5, 0.99, 0.99999])
    @pytest.mark.parametrize("turns", [0.01, 0.5, 1.0, 7.3])
    def test_an_orbit_of_any_eccentricity_equals_its_continuation(self, eccentricity, turns):
        """The solution in one piece equals that in two, the second of which starts where the first ended."""
        solution = PROBLEMS["kepler"].solution
        near, fast = 1 - eccentricity, ((1 + eccentricity) / (1 - eccentricity)) ** 0.5
        y0 = np.array([[FIFTY.mpf(near), FIFTY.mpf(0), FIFTY.mpf(0), FIFTY.mpf(fast)]], dtype=object)
        theta = [np.array(FIFTY.mpf(1), dtype=object)]
        end = 2 * FIFTY.pi * turns
        whole = solution(OPS, theta, {}, end, y0)
        half = solution(OPS, theta, {}, end / 3, y0)
        parts = solution(OPS, theta, {}, end - end / 3, half)
        # Near the sun, at eccentricity 1 - 1e-5, rounding errors grow by (a / r)^2 and more.
        assert max(abs(x) for x in (whole - parts).ravel()) < FIFTY.mpf(10) ** -25

    def test_an_open_orbit_is_refused(self):
        with pytest.raises(ValueError, match=r"eccentricity must be in \[0, 1\)"):
            build("kepler", eccentricity=1.0)


class TestThreeBody:
    MASSES = torch.tensor([1.1, 1.1, 0.9], dtype=torch.float64)

    def test_energy_momentum_and_angular_momentum_are_conserved(self):
        ys = run(build("three_body"))
        x, v = (part.unflatten(2, (3, 2)) for part in ys.split(6, dim=2))
        m = self.MASSES
        kinetic = (m * v.square().sum(dim=3)).sum(dim=2) / 2
        potential = sum(m[i] * m[j] / (x[:, :, i] - x[:, :, j]).norm(dim=2) for i, j in ((0, 1), (0, 2), (1, 2)))
        assert_conserved(kinetic - potential)
        assert_conserved((m[:, None] * v).sum(dim=2))
        assert_conserved((m * (x[..., 0] * v[..., 1] - x[..., 1] * v[..., 0])).sum(dim=2))

    def test_no_two_bodies_come_close(self):
        x = run(build("three_body", batch=30, outputs=50))[..., :6].unflatten(2, (3, 2))
        assert min(float((x[:, :, i] - x[:, :, j]).norm(dim=2).min()) for i, j in ((0, 1), (0, 2), (1, 2))) > 0.5

    def test_the_masses_are_those_of_the_paper(self):
        assert torch.equal(build("three_body").func.masses.detach(), self.MASSES)


class TestForced:
    def test_the_field_jumps_at_its_jumps_and_nowhere_else(self):
        problem = build("forced")
        y = problem.y0.detach()
        levels = [problem.func(torch.tensor(t, dtype=torch.float64), y) for t in (0.0, *problem.jumps)]
        before = [problem.func(torch.tensor(np.nextafter(t, 0)), y) for t in problem.jumps]
        assert all(torch.equal(a, b) for a, b in zip(levels, before, strict=False))
        assert all(not torch.equal(a, b) for a, b in zip(levels[1:], before, strict=True))

    @pytest.mark.parametrize("pieces", [1, 4])
    def test_its_jumps_are_inside_the_interval_and_not_at_outputs(self, pieces):
        problem = build("forced", pieces=pieces, end=3.0)
        assert len(problem.jumps) == pieces - 1
        assert all(0 < s < 3 for s in problem.jumps) and not set(problem.jumps) & set(problem.t.tolist())

    def test_a_float32_copy_switches_at_the_same_times(self):
        problem = PROBLEMS["forced"].build({"end": 3.1}, 2, "float32")
        assert tuple(problem.func.switches.double().tolist()) == problem.jumps

    def test_a_solver_that_is_given_the_jumps_needs_fewer_f_calls(self):
        problem = build("forced")
        jumps = {"options": {"jump_t": torch.tensor(problem.jumps, dtype=torch.float64)}}
        given, not_given = (
            solve_with_stats(problem.func, problem.y0, problem.t, rtol=1e-9, atol=1e-9, method="dopri5", **how).stats
            for how in (jumps, {})
        )
        assert given.f_calls_forward < not_given.f_calls_forward


class TestOutlier:
    def test_the_other_samples_are_those_of_van_der_pol(self):
        outlier, usual = build("outlier"), build("van_der_pol")
        assert torch.equal(outlier.y0[1:], usual.y0[1:])
        assert float(outlier.y0[0, 0].detach()) == float(usual.y0[0, 0].detach()) + 10

    def test_one_sample_sets_the_steps_of_all(self):
        """Stability limits steps to 3.3 / (mu x^2), x about 12: five times as many as the others need."""
        assert steps(build("outlier")) > 4 * steps(build("van_der_pol"))

    def test_cost_grows_with_the_distance_of_the_outlier(self):
        few, many = (steps(build("outlier", factor=factor), tolerance=1e-3) for factor in (4.0, 8.0))
        assert 3 < many / few < 5  # x^2 is fourfold


class TestFitzHughNagumo:
    def test_its_equilibrium_is_unstable_so_it_fires(self):
        problem = build("fitzhugh_nagumo", end=100.0, outputs=400)
        # v - v^3 / 3 - w + 0.5 = 0 with w = (v + 0.7) / 0.8: one real root.
        (v,) = (r.real for r in np.roots([-1 / 3, 0, 1 - 1 / 0.8, 0.5 - 0.7 / 0.8]) if abs(r.imag) < 1e-9)
        rest = torch.tensor([v, (v + 0.7) / 0.8], dtype=torch.float64)
        assert is_equilibrium(problem, rest.tolist())
        assert float(divergence(problem, rest)) > 0
        crossings = (run(problem, 1e-6)[..., 0] > 1).int().diff(dim=0) == 1
        assert bool((crossings.sum(dim=0) >= 2).all())


class TestLorenz:
    def test_its_divergence_is_the_same_everywhere(self):
        problem = build("lorenz")
        for y in problem.y0.detach():
            torch.testing.assert_close(divergence(problem, y).item(), -(10 + 1 + 8 / 3), rtol=ROUNDING, atol=0)

    def test_its_equilibria_are_the_centres_of_its_wings_and_the_origin(self):
        problem = build("lorenz")
        wing = (8 / 3 * 27) ** 0.5
        assert is_equilibrium(problem, [0.0, 0.0, 0.0])
        assert is_equilibrium(problem, [wing, wing, 27.0]) and is_equilibrium(problem, [-wing, -wing, 27.0])

    def test_neighbouring_solutions_separate(self):
        """By a factor of e per 1.1 units of time: 1e-6 grows a thousandfold by 12, less than the size of the wings."""
        problem = build("lorenz", batch=1, end=12.0, outputs=1)
        near = problem.to(torch.float64)
        with torch.no_grad():
            near.y0.add_(1e-6)
        assert 1e-3 < float((run(problem) - run(near))[-1].norm()) < 10


class TestRobertson:
    def test_mass_is_conserved(self):
        A, B, C = run(build("robertson", end=0.1)).unbind(2)
        assert_conserved(A + B / robertson.SCALE + C)

    def test_amounts_are_positive_and_B_reaches_its_quasi_steady_state(self):
        problem = build("robertson", end=0.1)
        ys = run(problem, 1e-9)
        A, B, C = ys[-1].unbind(1)
        B = B / robertson.SCALE
        assert bool((ys >= 0).all())
        made, used = 0.04 * A, 3e7 * B * B + 1e4 * B * C
        # The difference is B', smaller by the ratio of the time scales: 1e-3 to 1.
        torch.testing.assert_close(used, made, rtol=1e-2, atol=0)

    def test_stability_rather_than_accuracy_limits_its_steps(self):
        problem = build("robertson")
        loose, tight = (steps(problem, tolerance) for tolerance in (1e-4, 1e-6))
        assert loose > 200 and abs(loose / tight - 1) < 0.2


class TestMemoryFlow:
    def test_it_converges_to_two_wells_and_not_between_them(self):
        problem = build("memory_flow", batch=10, end=60.0)
        well = 1.5**0.5  # 1 + eps / a
        assert is_equilibrium(problem, [well, 0.0, well, 0.0]) and is_equilibrium(problem, [-well, 0.0, -well, 0.0])
        assert is_equilibrium(problem, [0.0, 0.0, 0.0, 0.0])
        end = run(problem, 1e-9)[-1]
        wells = torch.tensor([[well, 0.0, well, 0.0], [-well, 0.0, -well, 0.0]], dtype=torch.float64)
        assert float(torch.cdist(end, wells).min(dim=1).values.max()) < 1e-6  # the slowest rate is 0.3, e^(-18)
        assert len(set(torch.cdist(end, wells).argmin(dim=1).tolist())) == 2

    def test_without_coupling_its_potential_decreases(self):
        x1, x2, _, _ = run(build("memory_flow", eps=0.0, end=3.0)).unbind(2)
        V = (x1.square() - 1).square() / 4 + 1.5 * x2.square() / 2
        assert bool((V.diff(dim=0) < 0).all())

    def test_the_memory_is_the_weighted_mean_of_the_past(self):
        """m(t) = e^(-t/tau) m(0) + the integral of e^((s-t)/tau) x(s) / tau, here by Simpson's rule."""
        problem = build("memory_flow", end=4.0, outputs=400)
        x, m = run(problem).split(2, dim=2)
        weight = ((problem.t - 4.0) / 2.0).exp()[:, None, None] / 2.0
        simpson = torch.tensor([1.0, *[4.0, 2.0] * 199, 4.0, 1.0], dtype=torch.float64)[:, None, None] * 0.01 / 3
        found = float(np.exp(-2.0)) * m[0] + (simpson * weight * x).sum(dim=0)
        torch.testing.assert_close(found, m[-1], rtol=0, atol=1e-7)  # h^4 / 180 times derivatives up to 1e3


class TestKdV:
    def test_mass_and_energy_are_conserved(self):
        ys = run(build("kdv"))
        dx = kdv.WIDTH / ys.shape[2]
        rise = (ys.roll(-1, dims=2) - ys) / dx
        assert_conserved(ys.sum(dim=2))
        assert_conserved((rise.square() / 2 - ys**3).sum(dim=2) * dx)

    def test_a_soliton_keeps_its_shape(self):
        problem = build("kdv", batch=1, points=160, end=0.25, outputs=1)
        k, center = torch.tensor([1.0]).double(), torch.tensor([4.0]).double()
        with torch.no_grad():
            problem.y0[:] = kdv.soliton(k, center, 160)
        moved = kdv.soliton(k, center + 4 * 0.25, 160)
        # Differences are of second order: errors are dx^2 = 0.004 times derivatives and time; the tails of the periodic
        # copies are 2e-3 high.
        assert float((run(problem, 1e-6)[-1] - moved).abs().max()) < 0.03

    def test_constants_are_equilibria(self):
        assert is_equilibrium(build("kdv"), [0.7])


class TestCahnHilliard:
    def test_mass_is_conserved_and_energy_decreases(self):
        ys = run(build("cahn_hilliard"), 1e-9)
        dx = cahn_hilliard.WIDTH / ys.shape[2]
        rise = (ys.roll(-1, dims=2) - ys) / dx
        assert_conserved(ys.sum(dim=2), 1e-7)  # a hundred times the tolerance
        energy = ((ys.square() - 1).square() / 4 + 5e-4 * rise.square() / 2).sum(dim=2)
        assert bool((energy.diff(dim=0) < 0).all())

    def test_it_has_separated_by_the_default_end(self):
        """From noise of 0.05 to phases: u = +-1 except in the walls between them."""
        ys = run(build("cahn_hilliard"), 1e-6)
        assert bool((ys[-1].amax(dim=1) > 0.7).all()) and bool((ys[-1].amin(dim=1) < -0.7).all())

    def test_constants_are_equilibria(self):
        assert is_equilibrium(build("cahn_hilliard"), [0.3])
