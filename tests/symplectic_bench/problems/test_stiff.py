"""The stiff problems: their fields against formulas written another way, their splits, equilibria, jumps and cost."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from symplectic_adjoint import METHODS, odeint, solve
from symplectic_bench.oracles.recorded_grid import gradient, relative_error, replay
from symplectic_bench.oracles.twin import OPS, DigitsTwin, doubles, values
from symplectic_bench.problems import PROBLEMS, allen_cahn, brusselator, hires, pharmacokinetics
from symplectic_bench.problems.problem import Split

ROUNDING = 1e-13
"""A few hundred rounding errors of float64."""

SPLIT = [name for name, family in PROBLEMS.items() if family.split]


def build(name, batch=3, **sizes):
    return PROBLEMS[name].build(sizes, batch, "float64")


def field(problem, y, t=0.3):
    with torch.no_grad():
        return problem.f(t, torch.as_tensor(y)).numpy()


def assert_is_field(problem, formula, t=0.3):
    """Assert that formula(y) of one sample is the field, at random states."""
    y = np.random.default_rng(0).uniform(0.2, 1.5, tuple(problem.y0.shape))
    expected = np.stack([formula(row) for row in y])
    np.testing.assert_allclose(field(problem, y, t), expected, rtol=ROUNDING, atol=ROUNDING * np.abs(expected).max())


def periodic_laplacian(n, width):
    """Return the matrix of second differences on a periodic interval, by its rows."""
    L = -2 * np.eye(n) + np.roll(np.eye(n), 1, axis=0) + np.roll(np.eye(n), -1, axis=0)
    return L * (n / width) ** 2


@pytest.mark.parametrize("name", SPLIT)
class TestSplits:
    def test_the_parts_sum_to_the_field_and_each_has_parameters(self, name):
        problem = build(name)
        explicit, implicit = problem.pair
        assert isinstance(problem.func, Split)
        y, t = problem.y0.detach(), problem.t.new_tensor(0.3)
        assert torch.equal(explicit(t, y) + implicit(t, y), problem.func(t, y))
        assert list(explicit.parameters()) and list(implicit.parameters())
        together = [*explicit.parameters(), *implicit.parameters()]
        assert [id(p) for p in together] == [id(p) for p in problem.parameters]

    def test_the_formulas_of_the_parts_are_the_parts(self, name):
        problem = build(name, batch=2, **{"points": 4} if "points" in PROBLEMS[name].sizes else {})
        twin = DigitsTwin(problem)
        for formula, part in zip(PROBLEMS[name].split, problem.pair, strict=True):
            found, _ = doubles(values(formula(OPS, twin.theta, twin.held, twin.number(0.3), twin.y0)))
            assert relative_error([found], [part(problem.t.new_tensor(0.3), problem.y0)]) < ROUNDING

    def test_the_implicit_part_is_the_stiff_one(self, name):
        """By the largest rate at the start, that is, the spectral radius of the Jacobian."""
        problem = build(name, batch=1)
        rates = [
            np.abs(np.linalg.eigvals(torch.autograd.functional.jacobian(
                lambda row, part=part: part(problem.t[0], row[None])[0], problem.y0.detach()[0]))).max()
            for part in problem.pair
        ]  # fmt: skip
        assert rates[1] > 2 * rates[0]


def test_a_field_in_one_part_has_no_pair():
    with pytest.raises(AssertionError, match="without a split are declined"):
        _ = build("robertson").pair


class TestHires:
    def test_its_field_is_that_of_hairer_and_wanner(self):
        """Numbers as printed in their book, equation (10.4) of section IV.10."""

        def formula(y):
            bind = 280 * y[5] * y[7]
            return [
                -1.71 * y[0] + 0.43 * y[1] + 8.32 * y[2] + 0.0007,
                1.71 * y[0] - 8.75 * y[1],
                -10.03 * y[2] + 0.43 * y[3] + 0.035 * y[4],
                8.32 * y[1] + 1.71 * y[2] - 1.12 * y[3],
                -1.745 * y[4] + 0.43 * y[5] + 0.43 * y[6],
                -bind + 0.69 * y[3] + 1.71 * y[4] - 0.43 * y[5] + 0.69 * y[6],
                bind - 1.81 * y[6],
                -bind + 1.81 * y[6],
            ]

        assert_is_field(build("hires"), formula)

    def test_its_end_from_the_published_start_is_the_published_one(self):
        """The solution at 321.8122 in the test set of Mazzia and Magherini, to the digits printed there."""
        problem = build("hires", batch=1)
        published = [
            0.7371312573325668e-3, 0.1442485726316185e-3, 0.5888729740967575e-4, 0.1175651343283149e-2,
            0.2386356198831331e-2, 0.6238968252742796e-2, 0.2849998395185769e-2, 0.2850001604814231e-2,
        ]  # fmt: skip
        found = solve_ivp(
            lambda t, y: field(problem, y[None])[0], (0, 321.8122), hires.START, "Radau", rtol=1e-8, atol=1e-12
        )
        np.testing.assert_allclose(found.y[:, -1], published, rtol=1e-5)

    def test_the_amount_of_its_binding_pair_is_conserved(self):
        ys = odeint(*of(build("hires", end=2.0)), rtol=1e-9, atol=1e-11)
        pair = ys[:, :, 6] + ys[:, :, 7]
        torch.testing.assert_close(pair, pair[:1].expand_as(pair), rtol=1e-11, atol=0)


def of(problem):
    return problem.func, problem.y0.detach(), problem.t


class TestBrusselator:
    def test_its_field_is_reaction_and_a_matrix(self):
        problem = build("brusselator", points=12)
        L = periodic_laplacian(12, brusselator.WIDTH)

        def formula(y):
            u, v = y[:12], y[12:]
            return np.concatenate([1 + u * u * v - 4 * u + L @ u / 50, 3 * u - u * u * v + L @ v / 50])

        assert_is_field(problem, formula)

    def test_in_two_dimensions_its_laplacian_is_a_kronecker_sum(self):
        problem = build("brusselator_2d", points=5)
        L = periodic_laplacian(5, 1.0)
        whole = np.kron(L, np.eye(5)) + np.kron(np.eye(5), L)

        def formula(y):
            u, v = y[:25], y[25:]
            return np.concatenate([1 + u * u * v - 4.4 * u + 0.1 * whole @ u, 3.4 * u - u * u * v + 0.1 * whole @ v])

        assert_is_field(problem, formula)

    @pytest.mark.parametrize(("name", "steady"), [("brusselator", (1.0, 3.0)), ("brusselator_2d", (1.0, 3.4))])
    def test_u_is_a_and_v_is_b_over_a_at_rest(self, name, steady):
        problem = build(name)
        half = problem.y0.shape[1] // 2
        y = torch.tensor(steady, dtype=torch.float64).repeat_interleave(half).expand_as(problem.y0)
        assert np.abs(field(problem, y)).max() < ROUNDING

    def test_its_state_starts_as_published(self):
        y = torch.arange(8, dtype=torch.float64) / 8
        u, v = build("brusselator_2d", batch=200).y0.detach().mean(dim=0).reshape(2, 8, 8)
        # 22 y (1 - y)^(3/2) is u's, of the second coordinate; noise of 0.01 over 200 samples
        torch.testing.assert_close(u[3], 22 * y * (1 - y) ** 1.5, rtol=0, atol=0.004)
        torch.testing.assert_close(v[:, 3], 27 * y * (1 - y) ** 1.5, rtol=0, atol=0.004)


class TestAllenCahn:
    def test_its_field_is_reaction_and_a_matrix(self):
        L = periodic_laplacian(10, allen_cahn.WIDTH)
        assert_is_field(build("allen_cahn", points=10), lambda u: u - u**3 + 0.01 * L @ u)

    def test_its_energy_decreases(self):
        """F = sum of (u^2 - 1)^2 / 4 + gamma (u_{i+1} - u_i)^2 / (2 dx^2), whose gradient flow it is."""
        ys = odeint(*of(build("allen_cahn")), rtol=1e-9, atol=1e-9)
        rise = (ys.roll(-1, dims=2) - ys) * ys.shape[2]
        energy = ((ys.square() - 1).square() / 4 + 0.01 * rise.square() / 2).sum(dim=2)
        assert bool((energy.diff(dim=0) < 0).all())


class TestStiffSpiral:
    def test_its_field_is_the_spiral_and_the_lag(self):
        problem = build("stiff_spiral", width=5, rate=30.0)
        A, _, W, b, V, c = (p.detach().numpy() for p in problem.parameters)

        def formula(y):
            return np.concatenate([A @ y[:2] ** 3 + y[2:], 30 * (V @ np.tanh(W @ y[:2] + b) + c - y[2:])])

        assert_is_field(problem, formula)

    def test_its_fast_part_settles_on_the_network(self):
        """To first order in the lag, 1 / rate times the speed of the network's value."""
        problem = build("stiff_spiral", rate=1000.0, end=0.1, outputs=1)
        y, z = odeint(*of(problem), rtol=1e-7, atol=1e-9)[-1].chunk(2, dim=1)
        assert float((problem.func.implicit.net(y) - z).detach().abs().max()) < 0.02
        _, z0 = problem.y0.detach().chunk(2, dim=1)
        assert float((z0 - z).detach().abs().max()) > 0.1


class TestPharmacokinetics:
    def test_its_field_is_that_of_its_reactions(self):
        """By a table of reactions: what each takes and makes, and its rate."""
        problem = build("pharmacokinetics", width=4)
        _, W, b, V, c = (p.detach().numpy() for p in problem.parameters)
        patients = iter(problem.func.covariates.numpy())
        dose = problem.func.doses.numpy()[:, 0]
        changes = np.array([
            [-1, 0, 0, 0],  # clearance
            [-1, 1, 0, 0], [1, -1, 0, 0],  # to and from tissue
            [-1, 0, -1, 1], [1, 0, 1, -1],  # binding and unbinding
            [0, 0, 0, -1],  # loss of the complex
            [0, 0, 1, 0], [0, 0, -1, 0],  # target made and lost
        ])  # fmt: skip

        def formula(y):
            C, T, R, P = y
            clearance = np.exp(V @ np.tanh(W @ [C, *next(patients)] + b) + c)[0]
            rates = [clearance * C, 2 * C, 1 * T, 500 * C * R, 5 * P, 1 * P, 0.5, 0.5 * R]
            return rates @ changes

        assert_is_field(problem, formula, t=0.0)
        infused = field(problem, problem.y0.detach(), problem.jumps[0]) - field(problem, problem.y0.detach(), 0.0)
        np.testing.assert_allclose(infused[:, 0], dose, rtol=1e-12)
        assert not infused[:, 1:].any()

    def test_it_infuses_between_its_jumps_in_pairs(self):
        problem = build("pharmacokinetics", doses=2, end=4.0)
        y = problem.y0.detach()
        outside = field(problem, y, 0.0)
        for begin, end in zip(problem.jumps[::2], problem.jumps[1::2], strict=True):
            assert end - begin == pytest.approx(pharmacokinetics.INFUSION * 2.0, rel=1e-6)
            running = [field(problem, y, t) for t in (begin, (begin + end) / 2, np.nextafter(end, 0))]
            assert all((one[:, 0] > outside[:, 0] + 1).all() for one in running)
            around = [field(problem, y, t) for t in (np.nextafter(begin, 0), end)]
            assert all(np.array_equal(one, outside) for one in around)

    def test_jumps_are_inside_and_not_at_outputs(self):
        problem = build("pharmacokinetics", doses=3, end=5.0)
        assert len(problem.jumps) == 6 and sorted(problem.jumps) == list(problem.jumps)
        assert all(0 < s < 5 for s in problem.jumps) and not set(problem.jumps) & set(problem.t.tolist())
        assert PROBLEMS["pharmacokinetics"].build({}, 2, "float32").func.switches.double().tolist() == list(
            build("pharmacokinetics").jumps
        )

    @pytest.mark.parametrize("name", ["symplectic", "stages"])
    def test_across_jumps_the_gradient_is_autograds_through_the_steps(self, name):
        problem = build("pharmacokinetics", batch=2, end=1.0, doses=1, outputs=2)
        options = {"jump_t": torch.tensor(problem.jumps, dtype=torch.float64)}
        found = solve(
            problem.func, problem.y0, problem.t, rtol=1e-5, atol=1e-6, method="dopri5", options=options, gradient=name
        )
        problem.loss(found.ys).backward()
        ends = found.grid.t[1:].tolist()
        assert all(min(abs(end - jump) for end in ends) < 1e-12 for jump in problem.jumps)
        twin = problem.to(torch.float64)
        expected = gradient(twin, replay(METHODS["dopri5"], twin, found.grid))
        assert relative_error(problem.gradient(), expected) < 1e-12

    def test_without_infusions_the_drug_is_cleared_and_the_target_returns(self):
        problem = build("pharmacokinetics", end=30.0, outputs=1)
        with torch.no_grad():
            problem.func.doses.zero_()
            ys = odeint(*of(problem), rtol=1e-6, atol=1e-8)
        assert float(ys[-1, :, :2].abs().max()) < 1e-3
        torch.testing.assert_close(ys[-1, :, 2], torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-3)
