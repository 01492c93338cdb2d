"""compare_gradients: the cost and the error of every gradient of a model."""

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from tests.fields import SmallNet, start
from tests.gradients import EXACT
from tests.stiff_fields import StiffLinear

T = torch.tensor([0.0, 1.0], dtype=torch.float64)
FIXED = {"method": "rk4", "options": {"step_size": 0.1}}


def test_every_gradient_has_a_row_with_its_costs_and_its_error():
    func, y0 = SmallNet(), start()
    found = sa.compare_gradients(func, y0, T, rounds=2, **FIXED)
    assert {row.gradient for row in found.rows} == set(sa.GRADIENTS)
    assert found.steps == 10
    totals = [row.forward_s + row.backward_s for row in found.rows]
    assert totals == sorted(totals) and min(totals) > 0
    by_name = {row.gradient: row for row in found.rows}
    assert all(row.reason is None and row.error < 1e-12 for row in found.rows if row.gradient in EXACT)
    assert by_name["continuous"].error > 1e-12
    assert by_name["symplectic"].f_calls_forward == 40
    assert by_name["symplectic"].f_calls_backward == 10 * 7 - 3
    assert by_name["backprop"].f_calls_backward == 0


def test_the_callers_tensors_are_not_changed():
    func, y0 = SmallNet(), start().requires_grad_()
    func.outer.weight.grad = torch.ones_like(func.outer.weight)
    values = [p.detach().clone() for p in func.parameters()]
    sa.compare_gradients(func, y0, T, rounds=1, **FIXED)
    assert y0.grad is None and func.inner.weight.grad is None
    assert torch.equal(func.outer.weight.grad, torch.ones_like(func.outer.weight))
    assert all(torch.equal(p, value) for p, value in zip(func.parameters(), values, strict=True))


def test_a_gradient_that_fails_is_a_row_with_its_reason():
    class NeedsGrad(nn.Module):
        def forward(self, t, y):
            if not torch.is_grad_enabled():
                raise RuntimeError("only on a graph\nand nowhere else")
            return -y

    found = sa.compare_gradients(NeedsGrad(), start(), T, gradients=["symplectic", "backprop"], **FIXED)
    assert [row.gradient for row in found.rows] == ["backprop", "symplectic"]
    failed = found.rows[1]
    assert failed.reason == "RuntimeError: only on a graph" and failed.forward_s is None and failed.memory is None
    assert "symplectic: RuntimeError: only on a graph" in str(found)


@pytest.mark.parametrize("method", ["kvaerno3", "implicit_euler", "kencarp4"])
def test_a_gradient_that_is_refused_with_the_method_is_a_row_with_its_reason(method):
    func = (SmallNet(), StiffLinear()) if sa.METHODS[method].additive else SmallNet()
    options = {} if sa.METHODS[method].adaptive else {"step_size": 0.2}
    keywords = {"method": method, "rtol": 1e-3, "atol": 1e-3, "options": options}
    found = sa.compare_gradients(func, start(), T, rounds=1, **keywords)
    by_name = {row.gradient: row for row in found.rows}
    assert set(by_name) == set(sa.GRADIENTS)
    refused = by_name["reversible"]
    assert refused.reason.startswith(f"UnsupportedCombination: method={method!r}, which is implicit, does not work")
    assert refused.forward_s is None and refused.f_calls_forward is None and refused.error is None
    assert f"reversible: {refused.reason}" in str(found)
    assert all(by_name[name].reason is None and by_name[name].error < 1e-11 for name in EXACT)
    if method == "kencarp4":  # too stiff to be integrated backwards
        assert by_name["continuous"].reason.startswith("ReversalError")
    else:
        assert by_name["continuous"].error > 1e-11
    assert (by_name["mali"].reason is None) == (method != "kencarp4")  # mali takes its own steps, of one function


def test_rows_of_refusals_alone():
    found = sa.compare_gradients(SmallNet(), start(), T, gradients=["reversible"], rounds=1, method="kvaerno3")
    assert [row.gradient for row in found.rows] == ["reversible"] and "UnsupportedCombination" in found.rows[0].reason
    assert found.steps is None and "reversible: UnsupportedCombination" in str(found)


def test_the_table_shows_every_number():
    found = sa.compare_gradients(
        SmallNet(), start(), T, gradients=["aca", sa.Revolve(3)], rounds=1, check=False, **FIXED
    )
    lines = str(found).splitlines()
    assert lines[0].startswith("10 steps, torch.float64, cpu")
    assert lines[1].split()[0] == "gradient" and len({len(line) for line in lines[1:]}) == 1
    assert any("Revolve(checkpoints=3" in line for line in lines)
    assert all(row.error is None for row in found.rows) and all(line.endswith("-") for line in lines[2:])


def test_structured_states_and_outside_parameters_are_supported():
    rate = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)

    def func(t, y):
        return (-rate * y[0], y[0] * y[1])

    y0 = (start(), start(seed=2))
    found = sa.compare_gradients(func, y0, T, gradients=["symplectic", "revolve"], params=(rate,), rounds=1, **FIXED)
    assert all(row.reason is None and row.error < 1e-12 for row in found.rows)
    assert rate.grad is None


@pytest.mark.parametrize("rounds", [0, True, 1.5, None])
def test_invalid_rounds_are_refused(rounds):
    with pytest.raises(ValueError, match="rounds"):
        sa.compare_gradients(SmallNet(), start(), T, rounds=rounds)


def test_an_unknown_gradient_is_refused_before_work_starts():
    with pytest.raises(ValueError, match="unknown gradient"):
        sa.compare_gradients(SmallNet(), start(), T, gradients=["symplektic"])


def test_a_gradient_object_is_named_by_its_arguments():
    found = sa.compare_gradients(
        SmallNet(), start(), T, gradients=[sa.Symplectic(graphs=5), sa.Auto("1 MiB"), sa.Revolve()], rounds=1, **FIXED
    )
    names = {row.gradient for row in found.rows}
    assert names == {"Symplectic(graphs=5)", "Auto(memory_budget='1 MiB')", "Revolve()"}
