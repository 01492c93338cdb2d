import pytest
import torch

from symplectic_adjoint import check_gradient, odeint
from symplectic_bench.models.energy import STRUCTURES, Energy, EnergyField

ROUNDING = 1e-13


@pytest.fixture
def field():
    def build(structure="kdv", width=8):
        torch.manual_seed(0)
        return EnergyField(Energy(width), structure, dx=0.5).double()

    return build


def states(batch=3, points=12):
    return torch.randn(batch, points, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_sum_is_conserved_and_the_energy_is_conserved_or_decreases(field, structure):
    func, u = field(structure), states()
    change = func(torch.tensor(0.0), u).detach()
    slope = torch.autograd.functional.jvp(func.energy, u, change)[1]
    assert float(change.sum(dim=1).abs().max()) < ROUNDING
    if structure == "kdv":
        assert float(slope.abs().max()) < ROUNDING
    else:
        assert float(slope.max()) < 0


def test_the_field_is_translation_invariant(field):
    func, u = field(), states()
    t = torch.tensor(0.0)
    torch.testing.assert_close(func(t, u.roll(5, dims=1)), func(t, u).roll(5, dims=1), rtol=0, atol=ROUNDING)


def test_the_field_is_the_structure_times_the_gradient_of_the_energy(field):
    func, u = field("cahn_hilliard"), states(batch=1)
    slope = torch.autograd.functional.jacobian(lambda x: func.energy(x).sum(), u)
    expected = STRUCTURES["cahn_hilliard"](slope, 0.5)
    torch.testing.assert_close(func(torch.tensor(0.0), u), expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("grad", [True, False])
def test_it_has_a_graph_exactly_in_grad_mode(field, grad):
    func, u = field(), states().requires_grad_()
    with torch.set_grad_enabled(grad):
        assert func(torch.tensor(0.0), u).requires_grad is grad
        assert func(torch.tensor(0.0), u.detach()).requires_grad is grad  # by its parameters


@pytest.mark.parametrize("structure", STRUCTURES)
def test_its_gradients_are_exact(field, structure):
    t = torch.tensor([0.0, 0.05], dtype=torch.float64)
    check = check_gradient(field(structure), states(), t, method="dopri8", options={"step_size": 0.01})
    assert check.ok, str(check)


def test_an_unknown_structure_is_named():
    with pytest.raises(ValueError, match="structure must be one of kdv, cahn_hilliard; got 'heat'"):
        EnergyField(Energy(2), "heat", 0.1)


def test_it_has_the_sizes_of_the_paper():
    """200 channels, three layers: 3 x 200 + 200, 200 x 200 + 200, and 200."""
    assert sum(p.numel() for p in Energy(200).parameters()) == 800 + 40_200 + 200


def test_a_solve_conserves_the_energy(field):
    func, u = field(), states()
    with torch.no_grad():
        after = odeint(func, u, torch.tensor([0.0, 0.2], dtype=torch.float64), rtol=1e-10, atol=1e-10, method="dopri8")[
            -1
        ]
        torch.testing.assert_close(func.energy(after), func.energy(u), rtol=1e-8, atol=1e-8)
        assert float((after - u).abs().max()) > 1e-3
