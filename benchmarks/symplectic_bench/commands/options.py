"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from symplectic_bench.commands.exit_codes import Exit, console
from symplectic_bench.run.executors.cluster import Place, PlaceError, Tls
from symplectic_bench.spec.suite import Scale

Suites = Annotated[list[str], typer.Argument(metavar="SUITE", help="Names (see list) or .toml files.")]
AtScale = Annotated[Scale, typer.Option(help="Size: the suite's own (cpu), seconds (smoke), a GPU's (gpu).")]
Results = Annotated[Path, typer.Option(help="Folder of rows and tables.", file_okay=False)]
Plots = Annotated[Path, typer.Option(help="Folder of figures.", file_okay=False)]
EnvironmentId = Annotated[
    str | None, typer.Option(metavar="ID", help="Which environment's rows; by default the newest.")
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        metavar="AXIS=VALUE[,VALUE]",
        help="Only the cells with one of these values of an axis: problem, gradient, rtol, a size, ... Repeatable.",
    ),
]
Device = Annotated[str | None, typer.Option(help="Measure on this device (cpu, cuda), whatever the suite says.")]
Repeats = Annotated[int | None, typer.Option(min=1, help="Timed runs a cell, whatever the suite says.")]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder of the published data sets, for suites that train; else stand-ins.", file_okay=False),
]
Scheduler = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Measure on the workers of this Dask scheduler, tcp://... or tls://..."),
]
TlsCa = Annotated[Path | None, typer.Option(help="The authority that signed the scheduler's certificate (PEM).")]
TlsCert = Annotated[Path | None, typer.Option(help="Our certificate for the scheduler (PEM).")]
TlsKey = Annotated[Path | None, typer.Option(help="Its key (PEM).")]
Cluster = Annotated[
    str | None,
    typer.Option(help="Measure in jobs of this queueing system (slurm, pbs, ...), started through dask-jobqueue."),
]
ClusterFile = Annotated[
    Path | None, typer.Option("--cluster-options", metavar="FILE", help="TOML: jobs, slots and [options] of --cluster.")
]
MixMachines = Annotated[
    bool, typer.Option("--mix-machines", help="Set rows against each other that different machines measured.")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Measure anew; the rows replace the old ones at the end.")]

RESULTS, PLOTS, BASELINE = Path("results"), Path("plots"), Path("results/baseline")


def place_of(scheduler: str | None, tls: Tls, cluster: str | None, cluster_options: Path | None) -> Place:
    """Where to measure. Options that do not go together are bad usage."""
    try:
        return Place(scheduler, tls, cluster, cluster_options)
    except PlaceError as why:
        console.print(f"[red]{escape(str(why))}")
        raise typer.Exit(Exit.USAGE) from why
