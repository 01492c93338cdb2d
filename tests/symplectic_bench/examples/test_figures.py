"""The examples that end with a figure: each trains, at a small size, and draws."""

import runpy
import sys

import pytest
import torch

from symplectic_bench.examples import classifier, digits_flow, flow_matching, irregular_series, kdv_energy, stiff_fit
from symplectic_bench.examples.figure import Figure

# The fall of the loss is reached in so few iterations, with a margin.
TRAININGS = [
    pytest.param(digits_flow, {"iterations": 3, "batch": 16, "width": 16}, 1.0, id="digits_flow"),
    pytest.param(flow_matching, {"iterations": 60}, 0.9, id="flow_matching"),
    pytest.param(kdv_energy, {"iterations": 6, "batch": 8, "width": 8}, 1.0, id="kdv_energy"),
    pytest.param(irregular_series, {"iterations": 20, "batch": 16}, 0.9, id="irregular_series"),
    pytest.param(stiff_fit, {"iterations": 3, "patients": 2}, 0.9, id="stiff_fit"),
    pytest.param(classifier, {"iterations": 10, "batch": 16, "channels": 8}, 1.0, id="classifier"),
]


@pytest.mark.parametrize(("example", "sizes", "fall"), TRAININGS)
def test_an_example_trains_and_draws_its_result(example, sizes, fall):
    reported = []
    result = example.train(**sizes, report=lambda *line: reported.append(line))
    assert reported == list(enumerate(result.losses, start=1)) and len(reported) == sizes["iterations"]
    assert min(result.losses[-3:]) < fall * result.losses[0]
    figure = Figure()
    example.draw(figure, result)
    lines = [line for axes in figure.axes for line in axes.lines]
    assert any(line.get_ydata().tolist() == result.losses for line in lines)
    assert len(figure.axes) in (2, 25)  # losses, and one picture or 24 images


def test_an_example_writes_its_figure_where_it_is_told(tmp_path, monkeypatch, capsys):
    target = tmp_path / "new" / "matched.svg"
    monkeypatch.setattr(sys, "argv", ["flow_matching", "--iterations", "2", "--figure", str(target)])
    runpy.run_path(flow_matching.__file__, run_name="__main__")
    assert target.read_text().startswith("<?xml") and f"wrote {target}" in capsys.readouterr().out


def test_hutchinsons_estimate_is_right_on_average_and_the_gradient_of_log_prob_is_its_slope():
    torch.manual_seed(0)
    velocity, x = flow_matching.Velocity(8).double(), torch.randn(3, 2, dtype=torch.float64)
    at_axes = flow_matching.log_prob(velocity, x, flow_matching.exact(x).double())
    both = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)[:, None, :].expand(2, 3, 2)
    # In two dimensions the mean over these two of the four vectors of signs is the trace; the tolerance is the solve's.
    torch.testing.assert_close(flow_matching.log_prob(velocity, x, both), at_axes, rtol=0.0, atol=1e-3)
    moved = x.clone().requires_grad_()
    flow_matching.log_prob(velocity, moved, flow_matching.exact(x).double()).sum().backward()
    step = 1e-3 * torch.randn_like(x)
    ends = [flow_matching.log_prob(velocity, x + sign * step, flow_matching.exact(x).double()) for sign in (1, -1)]
    torch.testing.assert_close((moved.grad * step).sum(), (ends[0] - ends[1]).sum() / 2, rtol=1e-2, atol=1e-6)


def test_a_solitary_wave_moves_unchanged_over_the_boundary():
    speeds, places = torch.tensor([[2.0]]), torch.tensor([[19.0]])
    first, later = kdv_energy.waves(speeds, places, torch.tensor([0.0, 4.0]))
    torch.testing.assert_close(later, first.roll(20, dims=1))  # 8 units, 20 points, in float32


def test_the_stiff_fit_needs_few_steps_and_keeps_the_drug():
    body = stiff_fit.Body(torch.tensor([1.2, 0.0 + 1e-12, 600.0], dtype=torch.float64))
    times = torch.tensor([0.0, 24.0], dtype=torch.float64)
    (_, end) = stiff_fit.blood(body, torch.tensor([100.0], dtype=torch.float64), times)
    # Nothing is eliminated: the blood holds BACK / (BACK + k_in) of the dose after a day, to the solve's tolerance.
    torch.testing.assert_close(end.item(), 100.0 * 1000 / 1600, rtol=1e-4, atol=0.0)
