"""The options of a run, declared once for every command that measures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from symplectic_bench.run.executors.cluster import ExecutorChoice, Tls
from symplectic_bench.spec.suite import Scale

AtScale = Annotated[
    Scale,
    typer.Option(
        help="Size: the suite's own (cpu), the smallest, in seconds to two minutes (smoke), for a large GPU (gpu), or"
        " the first iterations of that (gpu-first)."
    ),
]
UsersProblemPath = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:FACTORY",
        help="Your own problem: alone, with a small built-in suite, or with a SUITE that names it.",
    ),
]
Results = Annotated[Path, typer.Option(help="Folder of rows and tables.", file_okay=False)]
Plots = Annotated[Path, typer.Option(help="Folder of figures.", file_okay=False)]

RESULTS, PLOTS = Path("results"), Path("plots")


@dataclass(frozen=True)
class RunOptions:
    """The options of a run. Each annotation declares a command-line option, which `with_options` adds to a command.

    Raises ExecutorChoiceError if the options do not say clearly where to measure.
    """

    scale: AtScale = Scale.CPU
    problem: UsersProblemPath = None
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AXIS=VALUE[,VALUE]",
            help="Only cells with one of these values of an axis: problem, gradient, rtol, a size, ... Repeatable.",
        ),
    ] = None
    device: Annotated[str | None, typer.Option(help="Measure on this device (cpu, cuda) instead of the suite's.")] = (
        None
    )
    repeats: Annotated[int | None, typer.Option(min=1, help="Timed runs per cell, instead of the suite's number.")] = (
        None
    )
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Measure finished cells again; the new rows replace the old ones at the end."),
    ] = False
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the published data sets, for suites that train. Stand-ins replace missing ones.",
            file_okay=False,
        ),
    ] = None
    results: Results = RESULTS
    plots: Plots = PLOTS
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Measure on the workers of this Dask scheduler, tcp://... or tls://..."),
    ] = None
    tls_ca: Annotated[
        Path | None, typer.Option(help="Certificate of the authority that signed the scheduler's (PEM).")
    ] = None
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate to present to the scheduler (PEM).")] = None
    tls_key: Annotated[Path | None, typer.Option(help="Key of that certificate (PEM).")] = None
    cluster: Annotated[
        str | None,
        typer.Option(help="Measure in jobs of this queueing system (slurm, pbs, ...), started through dask-jobqueue."),
    ] = None
    cluster_options: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TOML file with jobs, slots and an options table, for --cluster."),
    ] = None

    def __post_init__(self) -> None:
        _ = self.executor_choice  # checked before anything is measured

    @property
    def executor_choice(self) -> ExecutorChoice:
        tls = Tls(self.tls_ca, self.tls_cert, self.tls_key)
        return ExecutorChoice(self.scheduler, tls, self.cluster, self.cluster_options)

    @property
    def cache(self) -> Path:
        """The folder that keeps data and reference gradients between runs."""
        return self.results / ".cache"
