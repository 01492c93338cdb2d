"""Series of KdV and Cahn-Hilliard: conserved quantities, accuracy, and the same values on all machines."""

from dataclasses import replace

import pytest
import torch

from symplectic_adjoint import odeint
from symplectic_bench.data import series
from symplectic_bench.data.series import SYSTEMS, NoConvergence, cache_series, generate, load_series
from symplectic_bench.problems import PROBLEMS

SMALL = {"series": 4, "points": 24, "steps": 40}

SAMPLED = (slice(0, 100, 33), slice(0, 501, 250), slice(0, 50, 24))
"""Indices of the standard series at which their values are compared."""

# fmt: off
KNOWN = {
    "kdv": (
        0.016087286853, 1.731658571889, 0.029200208328, 5.872162645639, 0.370783495911, 1.626567911392,
        0.077610512545, 8.347150303809, 0.069027073603, 0.006660308852, 5.816373429131, 0.011901911506,
        0.197246995527, 0.784176617147, 0.785700580607, -0.030834478504, 0.627515608528, 0.032238667985,
        2.988235327101, 0.000193816234, 2.379349866665, 1.612033217900, 1.160554147918, 0.981252965904,
        5.803599483876, 0.116759476307, 2.578555740208, 0.040361707417, 0.403938609803, 0.123847236384,
        3.963814267451, 0.703074214279, 3.390454154899, 0.134796354762, -0.022818723859, 0.257993493209,
    ),
    "cahn_hilliard": (
        0.047005300181, -0.027397979706, 0.049726038353, 0.961285274843, -0.307942402486, 0.726717830783,
        0.964674819219, -0.435975823678, 0.753232372364, -0.023266316299, 0.000228394864, 0.013827585924,
        0.937721193983, 0.810960789542, 0.879504936310, 0.938115854999, 0.804567279303, 0.892253358217,
        -0.042668310838, 0.023649736022, 0.030791874741, -0.849687497174, -0.453458976608, -0.906775636743,
        -0.854228792933, -0.299345670596, -0.905873376073, -0.030849657752, -0.031423533315, 0.001141443709,
        -0.834731025650, -0.708243979031, -0.609749907215, -0.816352713803, -0.794872221265, -0.624145399167,
    ),
}
# fmt: on


def energies(name, u, points):
    system = SYSTEMS[name]
    return torch.stack([system.energy(one, system.width / points) for one in u.unbind(1)], dim=1)


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_sum_is_conserved(name):
    u = generate(SYSTEMS[name], **SMALL)
    assert u.shape == (4, 41, 24)
    mass = u.sum(dim=2)
    # Newton's last correction, and rounding, in each of 40 steps of 24 values of up to eight.
    assert float((mass - mass[:, :1]).abs().max()) < 1e-10


def test_kdv_conserves_its_energy_and_cahn_hilliard_dissipates_it():
    u = generate(SYSTEMS["kdv"], **SMALL)
    H = energies("kdv", u, 24)
    assert float(((H - H[:, :1]) / H[:, :1]).abs().max()) < 1e-11
    assert float((u[:, -1] - u[:, 0]).abs().max()) > 0.1  # it moved
    # Waves that decay fast dominate the change of the energy at first, so it decreases from the start.
    H = energies("cahn_hilliard", generate(SYSTEMS["cahn_hilliard"], **SMALL), 24)
    assert bool((H[:, 1:] < H[:, :-1]).all())


@pytest.mark.parametrize(("name", "bound"), [("kdv", 1e-3), ("cahn_hilliard", 1e-3)])
def test_it_solves_the_problem_of_the_same_name_to_second_order(name, bound):
    """That problem's field is written separately and solved by another method."""
    system = SYSTEMS[name]
    problem = PROBLEMS[name].build({"points": 24}, 4, "float64")
    t = torch.tensor([0.0, 40 * system.dt], dtype=torch.float64)
    coarse = generate(system, **SMALL)
    with torch.no_grad():
        truth = odeint(problem.func, coarse[:, 0], t, rtol=1e-11, atol=1e-12, method="dop853")[-1]
    fine = generate(replace(system, dt=system.dt / 2), **{**SMALL, "steps": 80})
    errors = [float((u[:, -1] - truth).abs().max()) for u in (coarse, fine)]
    assert errors[0] < bound * float(truth.abs().max())
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)


def test_equal_seeds_give_equal_bits_and_other_seeds_other_values():
    first, again, other = (generate(SYSTEMS["kdv"], **SMALL, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first[:, 0], other[:, 0])


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_standard_series_are_the_same_on_every_machine(name, tmp_path):
    cache_series(name, tmp_path)
    u = load_series(name, tmp_path)
    assert u.shape == (series.SERIES, series.STEPS + 1, series.POINTS) and u.dtype == torch.float64
    assert bool(u.isfinite().all())
    expected = torch.tensor(KNOWN[name], dtype=torch.float64)
    # Linear algebra rounds differently on other machines, and 500 steps accumulate that: equal to 1e-9, not to the bit.
    torch.testing.assert_close(u[SAMPLED].flatten(), expected, rtol=0, atol=1e-9)


def test_cached_series_are_not_computed_again(tmp_path, monkeypatch):
    monkeypatch.setattr(series, "generate", lambda system: torch.full((1, 2, 3), 7.0, dtype=torch.float64))
    cache_series("kdv", tmp_path)
    monkeypatch.setattr(series, "generate", None)
    cache_series("kdv", tmp_path)
    assert float(load_series("kdv", tmp_path).sum()) == 42.0


def test_a_step_that_does_not_converge_is_an_error():
    with pytest.raises(NoConvergence, match=r"kdv: a step of 1000.0 did not converge in 30 iterations"):
        generate(replace(SYSTEMS["kdv"], dt=1e3), **SMALL)
