"""The adapter of PNODE, with a stand-in for it: PETSc is not installed where these tests run."""

import itertools
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import pytest
import torch

from symplectic_bench.contenders import pnode
from symplectic_bench.contenders.pnode import HOW, OPTIONS, PNODE
from symplectic_bench.contenders.registry import decline, missing
from symplectic_bench.measure.gradient_error import measure_gradient_error
from symplectic_bench.problems import build
from tests.symplectic_bench.contenders.against_ours import ROUNDING, distance, observed
from tests.symplectic_bench.sample_cells import FIXED, make_cell

CELL = make_cell(contender="pnode", gradient="stages", method="euler", **FIXED, steps=12, sizes={"outputs": 3})


class StandIn:
    """The interface of its ODEPetsc with explicit Euler steps. Times are plain numbers, as PETSc's are."""

    calls: ClassVar[list[SimpleNamespace]] = []

    def setupTS(self, u_tensor, func, step_size, method, implicit_form):
        assert not u_tensor.requires_grad, "tensors that require grad cannot be exported by DLPack"
        self.func = func
        self.calls.append(SimpleNamespace(step_size=step_size, method=method, implicit_form=implicit_form))

    def odeint_adjoint(self, y0, t):
        ys = [y0]
        for start, end in itertools.pairwise(t.tolist()):
            ys.append(ys[-1] + (end - start) * self.func(start, ys[-1].flatten()))
        return torch.stack(ys)


@pytest.fixture
def package(monkeypatch):
    """Put the stand-in in the place of petsc4py and pnode. Return the options that PETSc was given."""
    given: list[list[str]] = []
    petsc, package, module = ModuleType("petsc4py"), ModuleType("pnode"), ModuleType("pnode.petsc_adjoint")
    petsc.init = given.append  # type: ignore[attr-defined]
    module.ODEPetsc = StandIn  # type: ignore[attr-defined]
    for one in (petsc, package, module):
        monkeypatch.setitem(sys.modules, one.__name__, one)
    monkeypatch.setattr(StandIn, "calls", [])
    pnode._petsc_adjoint.cache_clear()
    yield given
    pnode._petsc_adjoint.cache_clear()


def test_outputs_and_gradient_are_those_of_its_steps(package, tmp_path):
    assert decline(CELL) is None
    assert distance(observed(CELL, tmp_path), CELL, tmp_path) < ROUNDING
    (call,) = StandIn.calls
    assert (call.method, call.implicit_form) == ("euler", False)
    assert call.step_size == pytest.approx(4 / 12)  # the default end of mlp is 4
    assert package == [["symplectic-bench", *OPTIONS]]


@pytest.mark.parametrize(("method", "theirs"), [("implicit_euler", "beuler"), ("crank_nicolson", "cn")])
def test_implicit_steps_are_asked_for_in_implicit_form(method, theirs, package, tmp_path):
    problem, cell = build(CELL, tmp_path), replace(CELL, method=method)
    assert decline(cell) is None
    PNODE.solve(problem.func, problem, cell)
    assert (StandIn.calls[-1].method, StandIn.calls[-1].implicit_form) == (theirs, True)


@pytest.mark.usefixtures("package")
def test_its_row_says_why_its_steps_are_not_replayed(tmp_path):
    found = {name: value for values in measure_gradient_error(CELL, tmp_path) for name, value in values.items()}
    assert found["error_discrete_reason"] == "pnode solves implicit steps to tolerances of its own"
    assert found["steps_accepted"] == 12 and found["f_calls_forward"] == 12


@pytest.mark.parametrize("absent", ["petsc4py", "pnode"])
def test_where_it_is_absent_its_cells_say_how_to_install_it(absent, monkeypatch):
    monkeypatch.setattr(
        "symplectic_bench.contenders.reasons.find_spec", lambda name: None if name == absent else object()
    )
    assert missing(CELL) == f"{absent} is not installed: {HOW}"
