"""The suites that put other papers' claims on trial: their size, what they claim, and whom they compare."""

import pytest

from symplectic_bench.analysis.claims import evaluate_claims
from symplectic_bench.contenders.contender_records import contender_record
from symplectic_bench.run.sweep import cells_of_suite
from symplectic_bench.spec.suite import Scale, load_suite, suite_names

SUITES = [name for name in suite_names() if name.startswith("claims-")]

every_suite = pytest.mark.parametrize("name", SUITES)
every_scale = pytest.mark.parametrize("scale", [Scale.SMOKE, Scale.CPU])


def test_there_is_one_for_each_neighbour():
    assert SUITES == [
        "claims-aca",
        "claims-mali",
        "claims-pnode",
        "claims-rampde",
        "claims-reversible",
        "claims-torchode",
    ]


@every_suite
@every_scale
def test_it_expands_within_its_limits(name, scale):
    suite = load_suite(name).at_scale(scale)
    assert len(cells_of_suite(suite)) <= suite.max_cells
    assert suite.budget_s <= (60 if scale is Scale.SMOKE else 900)  # twelve rounds, on a core each


@every_suite
def test_its_smoke_scale_has_cells_for_every_claim_that_needs_no_card(name):
    suite = load_suite(name).at_scale(Scale.SMOKE)
    for result in evaluate_claims(suite.claim, cells_of_suite(suite), []):
        on_card = all(one.criterion.cells.get("device") == ["cuda"] for one in result.criteria)
        cells = [cell for one in result.criteria for found in one.evaluations for cell in found.cells]
        assert bool(cells) != on_card, result.claim.name


@every_suite
def test_on_a_card_every_claim_has_cells(name):
    suite = load_suite(name).at_scale(Scale.GPU)
    for result in evaluate_claims(suite.claim, cells_of_suite(suite), []):
        assert any(found.cells for one in result.criteria for found in one.evaluations), result.claim.name


@every_suite
def test_it_measures_ours_beside_the_neighbours_own_code(name):
    found = {contender for block in load_suite(name).block for contender in block.contenders}
    assert any(contender_record(one).ours for one in found)
    own = {"aca": "torchdiffeqpack", "mali": "torchdiffeqpack", "reversible": "diffrax-reversible"}
    neighbour = name.removeprefix("claims-")
    assert own.get(neighbour, neighbour) in found


@every_suite
def test_claims_are_numbered_in_their_order(name):
    assert [claim.point for claim in load_suite(name).claim] == list(range(1, 1 + len(load_suite(name).claim)))


def test_revolve_has_the_checkpoints_of_the_papers_script():
    """2, 8 and the most, floor(sqrt(2 N + 1 / 4) - 3 / 2) + 1 for N steps; 32 where the steps are adaptive."""
    for block in load_suite("claims-reversible").block:
        slots = {int(one.split("-")[1]) for one in block.contenders["ours"] if one.startswith("revolve")}
        (most,) = {int((2 * n + 0.25) ** 0.5 - 1.5) + 1 for n in block.steps or [560]}
        assert most in slots and slots <= {2, 8, most}
