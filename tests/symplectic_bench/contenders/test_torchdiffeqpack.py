"""TorchDiffEqPack against ours. Its tests are skipped where it is not installed."""

import pytest

from symplectic_bench.contenders.ours import OURS
from symplectic_bench.contenders.registry import decline
from symplectic_bench.oracles.recorded_grid import relative_error
from symplectic_bench.problems import build
from symplectic_bench.spec.failure import Diverged
from tests.symplectic_bench.contenders.against_ours import (
    installed,
)
from tests.symplectic_bench.sample_cells import FIXED, make_cell


class TestTorchDiffEqPack:
    @pytest.mark.parametrize(
        ("gradient", "how"),
        [("aca", {}), ("mali", {"rtol": 1e-4, "atol": 1e-4}), ("mali", {"steps": 20, **FIXED})],
        ids=["aca", "mali", "mali-steps"],
    )
    def test_its_gradient_is_ours_to_the_tolerance(self, gradient, how, tmp_path):
        theirs = make_cell(contender="torchdiffeqpack", gradient=gradient, **how)
        observation = installed("torchdiffeqpack").observe(build(theirs, tmp_path), theirs)
        ours = make_cell(gradient=gradient, **how)
        expected = OURS.observe(build(ours, tmp_path), ours)
        # Of adaptive steps the tolerance; of equal ones what times in float32 leave of a gradient in float64.
        assert relative_error(observation.gradient, expected.gradient) < (1e-6 if "steps" in how else 1e-3)
        assert observation.counts.f_calls_backward > expected.counts.f_calls_backward

    def test_what_it_has_not_is_declined_or_a_diverged_cell(self, tmp_path):
        cell = make_cell(contender="torchdiffeqpack", gradient="aca", steps=5, **FIXED)
        assert "fails in the backward pass over fixed steps" in decline(cell)
        assert "no method" in decline(make_cell(contender="torchdiffeqpack", gradient="aca", method="dopri8"))
        assert "no gradient" in decline(make_cell(contender="torchdiffeqpack", gradient="symplectic"))
        many = make_cell(contender="torchdiffeqpack", gradient="mali", sizes={"outputs": 3})
        with pytest.raises(Diverged, match="only the state at the last time"):
            installed("torchdiffeqpack").observe(build(many, tmp_path), many)
