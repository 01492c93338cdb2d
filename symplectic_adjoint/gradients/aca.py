"""Adaptive checkpoint adjoint: one step on the graph at a time."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from symplectic_adjoint.backward.checkpoints import StepStarts
from symplectic_adjoint.backward.held_graphs import LinearizingField
from symplectic_adjoint.backward.memory_model import MemoryModel, Prediction
from symplectic_adjoint.backward.strategy import BackwardPass, ForwardPass, Gradients, Strategy
from symplectic_adjoint.backward.sweep import sweep
from symplectic_adjoint.field.linearization import Linearization, Pull
from symplectic_adjoint.steps.output_cotangents import OutputCotangents
from symplectic_adjoint.steps.transpose import StepCotangents, rows_of, transpose_step


@dataclass(frozen=True)
class Aca(Strategy):
    """Keep the state at every step; recompute each step with its f calls on the graph, and transpose it.

    Memory N D + s A; s f calls per step in the backward pass. Zhuang et al. (ICML 2020, arXiv:2006.02493), without the
    step size search and the repeated step of the published code. Each f call has its own graph; the sums between f
    calls are not on a graph, but transposed by transpose_step.
    """

    also_called: ClassVar[tuple[str, ...]] = ("checkpoint", "odeint_checkpoint", "adaptive_checkpoint_adjoint")
    accumulates: ClassVar[bool] = True
    takes_implicit: ClassVar[bool] = True

    def memory_formula(self) -> str:
        return "N D + s A"

    def predicted(self, model: MemoryModel, steps: int) -> Prediction:
        calls = steps * model.stages
        peak = model.peak_bytes(max(0, steps - 1), 1, 0) + model.one_step_on_graph_bytes()
        return Prediction(calls, calls, calls, peak)

    def keeper(self, given: ForwardPass) -> StepStarts:
        del given
        return StepStarts()

    def backward(self, given: BackwardPass) -> Gradients:
        starts, with_time = given.take_starts(), given.t is not None
        problem, plans = given.problem, given.trajectory.plans
        end: Tensor | None = None

        def pull_back(n: int, lam: Tensor, outputs: OutputCotangents, pull: Pull) -> StepCotangents:
            nonlocal end
            graphs: list[Linearization | None] = []

            def record(graph: Linearization, k: Tensor) -> None:
                graph.k = k if with_time else None
                graphs.append(graph)

            f, rows = given.field, rows_of(problem.tableau, outputs)
            implicit = problem.tableau.implicit  # the calls that solve for a stage are not those to transpose
            recording = f if implicit else LinearizingField(f, record, with_time=with_time)
            step = problem.step(recording, plans[n], starts.pop())
            with torch.no_grad():
                step.evaluate(rows)
                for i, k in enumerate(step.ks[:rows] if implicit else ()):
                    with step.evaluating(i):
                        record(f.linearize(step.time(i), step.state(i), with_time=with_time), k)
                if (values := given.values_of_step(n, end=end)) is not None:
                    values.see_end(step)
                    end = step.y
            step.ks.clear()
            one_term = problem.accumulate is None
            return transpose_step(
                given.field, step, lam, outputs, pull, with_time=with_time, graphs=graphs, one_term=one_term
            )

        return sweep(given, pull_back)
