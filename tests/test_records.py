"""Records are frozen: what one part hands to another is not changed there."""

import ast

from tests.test_layering import PACKAGE, SUITE_PACKAGE, source_files

# What grows or is counted up while something runs.
CHANGED = {
    "autograd_function._Call",
    "field.linearization.Linearization",
    "field.stage_solver.StageWork",
    "field.gate.State",
    "solve.repeated_outputs._Repeats",
    "solve.stats.Captured",
    "solve.stats.Stats",
    "solve.trajectory.Trajectory",
    "steps.transpose.StepCotangents",
    "contenders.gradient_run.SolveRun",
    "contenders.gradient_run.WholeRun",
    "rows.store.Rows",
    "run.card_rounds.Result",
    "run.cells.Row",
    "run.executors.dask.DaskExecutor",
    "run.executors.dask.Job",
    "run.executors.local.Lane",
    "run.processes.CallOutcome",
    "run.processes.Conversation",
    "run.training.checkpoint.Log",
    "run.training.iteration_memory.IterationMemory",
    "run.training.runner.TrainingRun",
}


def not_frozen(package):
    for path in source_files(package):
        module = ".".join(path.relative_to(package).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                made = [ast.unparse(one) for one in node.decorator_list if ast.unparse(one).startswith("dataclass")]
                if made and "frozen=True" not in made[0]:
                    yield f"{module}.{node.name}"


def test_every_dataclass_is_frozen_but_for_those_that_grow():
    assert sorted([*not_frozen(PACKAGE), *not_frozen(SUITE_PACKAGE)]) == sorted(CHANGED)
