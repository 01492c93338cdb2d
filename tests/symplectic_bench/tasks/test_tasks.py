"""Tasks: batches, and gradients that do not depend on the contender."""

import numpy as np
import pytest
import torch

from symplectic_bench.contenders.registry import TRAINERS
from symplectic_bench.run.training.integrator import Integrator, forward_only
from symplectic_bench.tasks import TASKS
from tests.symplectic_bench.sample_cells import make_cell

ROUNDING = 1e-11
"""Of sums over a few hundred calls in float64, relative."""

SMALL = {
    "density": {"data": "synthetic-power", "components": 2, "width": 8, "layers": 1},
    "images": {"scales": 2, "blocks": 1, "width": 4, "layers": 1},
    "classify": {"channels": 8},
    "physics": {"series": 1, "width": 4, "stride": 5},
    "three_body": {"points": 5},
    "spiral": {"points": 40, "width": 8},
    "robertson": {"end": 1.0},
}

BATCH = {"three_body": 1, "robertson": 1}


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    for name, family in TASKS.items():
        family.prepare({**family.sizes, **SMALL[name]}, folder, None)
    return folder


def cell_of(name, **changes):
    given = {"sizes": SMALL[name], "batch": BATCH.get(name, 6), "rtol": 1e-3, "atol": 1e-3, **changes}
    return make_cell(problem=name, **given)


def gradient(name, cache_dir, **changes):
    cell = cell_of(name, **changes)
    task = TASKS[name].build(cell, cache_dir)
    integrate = Integrator(TRAINERS[cell.contender], cell)
    loss = task.loss(integrate, 0)
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in task.parameters()]), integrate.take_counts()


@pytest.mark.parametrize("name", TASKS)
def test_the_exact_gradient_equals_that_of_backprop(name, cache_dir):
    loss, found, counts = gradient(name, cache_dir)
    same, expected, _ = gradient(name, cache_dir, gradient="backprop")
    assert loss == same
    assert float((found - expected).norm() / expected.norm()) < ROUNDING
    assert counts.steps_accepted and counts.vjps_backward


@pytest.mark.parametrize("contender", ["torchdiffeq", "torchdiffeqpack"])
def test_peers_train_the_same_network(contender, cache_dir):
    """Their steps differ, so the loss is close but not equal."""
    gradients = {"torchdiffeq": "continuous", "torchdiffeqpack": "aca"}
    if TRAINERS[contender].missing():
        pytest.skip(TRAINERS[contender].missing())
    tight = {"rtol": 1e-6, "atol": 1e-6}
    loss, expected, _ = gradient("density", cache_dir, **tight)
    theirs, found, counts = gradient("density", cache_dir, contender=contender, gradient=gradients[contender], **tight)
    assert theirs == pytest.approx(loss, rel=1e-5)
    assert float((found - expected).norm() / expected.norm()) < 1e-4
    assert counts.f_calls_backward and counts.f_calls_forward


@pytest.mark.parametrize("name", TASKS)
def test_metrics_are_finite_numbers(name, cache_dir):
    cell = cell_of(name)
    task = TASKS[name].build(cell, cache_dir)
    task.test_rows = getattr(task, "test_rows", np.empty(0))[:7]
    with torch.no_grad():
        metrics = task.metrics(forward_only(cell))
    assert metrics and all(np.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("name", TASKS)
def test_a_task_depends_only_on_its_seed(name, cache_dir):
    def weights(seed):
        torch.manual_seed(99 + seed)  # earlier draws must not matter
        task = TASKS[name].build(cell_of(name, seed=seed), cache_dir)
        return torch.cat([p.detach().flatten() for p in task.parameters()])

    assert torch.equal(weights(0), weights(0))
    if name != "three_body":  # its masses start at a fixed value
        assert not torch.equal(weights(0), weights(1))


def test_an_epoch_has_every_row_once_and_epochs_differ_in_order(cache_dir):
    task = TASKS["density"].build(cell_of("density"), cache_dir)
    epochs = [np.concatenate([task.batch_indices(24, 4 * epoch + i) for i in range(4)]) for epoch in range(2)]
    assert all(sorted(epoch) == list(range(24)) for epoch in epochs)
    assert epochs[0].tolist() != epochs[1].tolist()


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("physics", {"sizes": {"series": 91}}, "series must be 1 to 90"),
        ("physics", {"sizes": {"stride": 51}}, "10 strides must fit into 500 steps"),
        ("robertson", {"batch": 2}, "batch must be 1; got 2"),
        (
            "density",
            {"sizes": {"data": "synthetic-power", "test_trace": "none"}},
            "test_trace must be exact or estimated",
        ),
    ],
)
def test_impossible_sizes_are_refused(name, changes, words, cache_dir):
    with pytest.raises(ValueError, match=words):
        TASKS[name].build(cell_of(name, **changes), cache_dir)


def test_robertsons_points_conserve_mass_and_are_scaled(cache_dir):
    task = TASKS["robertson"].build(cell_of("robertson", sizes={"end": 100.0}), cache_dir)
    assert task.target.shape == (40, 3)
    assert float(task.target.min()) == 0 and float(task.target.max()) == 1
    assert torch.all(task.target[:, 0].diff() < 0) and torch.all(task.target[:, 2].diff() > 0)


def test_the_true_masses_reproduce_the_trajectories(cache_dir):
    cell = cell_of("three_body", rtol=1e-10, atol=1e-10)
    task = TASKS["three_body"].build(cell, cache_dir)
    with torch.no_grad():
        task.field.masses.copy_(task.true_masses)
        assert float(task.loss(forward_only(cell), 0)) < 1e-18
        assert task.metrics(forward_only(cell))["mass_error"] == 0


@pytest.mark.parametrize("seed", [0, 2**32, 2**63 - 1])
def test_every_seed_that_a_row_can_hold_gives_random_numbers(cache_dir, seed):
    task = TASKS["spiral"].build(make_cell(problem="spiral", sizes=SMALL["spiral"], seed=seed), cache_dir)
    one, other = (torch.rand(3, generator=task.generator(iteration)) for iteration in (0, 1))
    assert not torch.equal(one, other)
