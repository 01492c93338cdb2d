"""The four examples train, with equal results for either library."""

import ast
import runpy
import sys
from pathlib import Path

import pytest
import torch
import torchdiffeq

import symplectic_adjoint
from symplectic_bench.examples import bouncing_ball, cnf, command_line, latent_ode, ode_demo

EXAMPLES = [ode_demo, cnf, latent_ode, bouncing_ball]
every_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda module: module.__name__.rpartition(".")[2])


class FirstGradient:
    """Records the gradient at the first call of Adam.step, where the weights are the same in every training."""

    def __init__(self, monkeypatch):
        self.gradient = None
        step = torch.optim.Adam.step

        def recording_step(optimizer, *args, **kwargs):
            if self.gradient is None:
                parameters = [p for group in optimizer.param_groups for p in group["params"]]
                self.gradient = torch.cat([p.grad.flatten() for p in parameters])
            return step(optimizer, *args, **kwargs)

        monkeypatch.setattr(torch.optim.Adam, "step", recording_step)

    def of(self, library, example, iterations):
        """Return (losses, first gradient) of a training."""
        self.gradient = None
        return torch.tensor(example.train(library, iterations=iterations)), self.gradient


# Our gradient is exact for the steps taken, torchdiffeq's is that of the continuous problem, by a second solve. Both
# have errors of about rtol, so the first gradients may differ by rtol. (The ball does not reach rtol = 1e-6: float32
# times have errors of 1e-7, and its gradient sums differences of times of 0.1 s that partly cancel, which gives 1e-4.)
# Adam's steps depend only weakly on the gradient: after a few, losses differ by 1e-4 at most (three seeds).
LOSSES_WITHIN = 5e-4


@pytest.mark.parametrize(
    ("example", "iterations", "gradients_within", "fall"),
    [
        pytest.param(ode_demo, 6, 1e-4, 0.5, id="ode_demo"),
        pytest.param(cnf, 10, 1e-4, 0.9, id="cnf"),
        pytest.param(latent_ode, 6, 1e-3, 0.9, id="latent_ode"),
        pytest.param(bouncing_ball, 8, 1e-4, 0.8, id="bouncing_ball"),
    ],
)
def test_a_training_is_the_same_with_either_library(monkeypatch, example, iterations, gradients_within, fall):
    first = FirstGradient(monkeypatch)
    losses, gradient = first.of(symplectic_adjoint, example, iterations)
    theirs, their_gradient = first.of(torchdiffeq, example, iterations)
    assert gradient.norm() > 0
    assert (gradient - their_gradient).norm() < gradients_within * their_gradient.norm()
    torch.testing.assert_close(losses, theirs, rtol=LOSSES_WITHIN, atol=0.0)
    # Single losses vary with their minibatch. The factor is reached in so few iterations, with a margin.
    assert losses[-3:].mean() < fall * losses[0]


def test_the_times_of_the_bounces_determine_the_ball():
    ball = bouncing_ball.Ball(gravity=7.0, restitution=0.9, height=2.6)  # each off by a fifth or more
    bouncing_ball.train(symplectic_adjoint, iterations=30, bounces=2, ball=ball)
    found = torch.stack(list(ball.parameters())).exp()
    truth = torch.tensor([bouncing_ball.GRAVITY, bouncing_ball.RESTITUTION, bouncing_ball.HEIGHT])
    assert (found / truth - 1).abs().max() < 0.1  # not yet converged: Adam still oscillates


def test_the_times_of_the_bounces_agree_with_the_closed_form():
    true_ball = bouncing_ball.Ball(bouncing_ball.GRAVITY, bouncing_ball.RESTITUTION, bouncing_ball.HEIGHT)
    for throw in bouncing_ball.THROWS:
        times = bouncing_ball.bounce_times(symplectic_adjoint, true_ball, throw, 3)
        # A flight starts 1e-5 above the ground, which changes its time by about 1e-6 s; float32 resolves 1e-7 s.
        torch.testing.assert_close(times, bouncing_ball.observe(throw, 3), rtol=0.0, atol=1e-5)


@every_example
def test_an_example_names_no_library(example):
    """Code that depended on the library would have to name one or ask which it was passed."""
    tree = ast.parse(Path(example.__file__).read_text())
    words = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    words |= {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    words |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    words |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert words.isdisjoint(command_line.LIBRARIES) and "__name__" in words


@every_example
def test_a_training_depends_only_on_its_seed(example):
    def losses(seed):
        return example.train(symplectic_adjoint, iterations=2, seed=seed)

    assert losses(3) == losses(3)
    assert losses(3) != losses(4)


def test_the_reported_losses_are_those_returned():
    reported = []
    losses = ode_demo.train(symplectic_adjoint, iterations=3, report=lambda *line: reported.append(line))
    assert reported == list(enumerate(losses, start=1))


@pytest.mark.parametrize(
    ("iterations", "lines"), [(3, [1, 2, 3]), (10, list(range(1, 11))), (25, [*range(3, 26, 3), 25])]
)
def test_about_ten_losses_are_printed_including_the_last(capsys, iterations, lines):
    def train(library, *, iterations, seed, report):
        assert library is torchdiffeq and seed == 5
        for iteration in range(1, iterations + 1):
            report(iteration, 1.0 / iteration)

    arguments = ["--library", "torchdiffeq", "--iterations", str(iterations), "--seed", "5"]
    command_line.run(train, "A training.", iterations=1000, argv=arguments)
    *printed, last = capsys.readouterr().out.splitlines()
    assert printed == [f"iteration {i:5d}  loss {1.0 / i:.6g}" for i in lines]
    assert last.startswith(f"torchdiffeq: {iterations} iterations in ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--library", "diffrax"], "invalid choice: 'diffrax'"), (["--iterations", "0"], "must be at least 1, got 0")],
)
def test_an_impossible_argument_is_bad_usage(capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        command_line.run(ode_demo.train, None, iterations=1, argv=arguments)
    assert message in capsys.readouterr().err


@every_example
def test_an_example_runs_as_a_module(example, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [example.__file__, "--iterations", "1"])
    runpy.run_path(example.__file__, run_name="__main__")
    printed = capsys.readouterr().out
    assert printed.startswith("iteration     1  loss ") and "symplectic_adjoint: 1 iterations in " in printed
