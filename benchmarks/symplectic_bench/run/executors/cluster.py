"""Ways to an executor: this machine, a Dask scheduler that runs already, or jobs asked of a cluster's queue."""

import importlib
import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from symplectic_bench.rows.environment import Environment
from symplectic_bench.run.executors.executor import Executor, ExecutorError
from symplectic_bench.run.executors.local import LocalExecutor

CLUSTERS = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "sge": "SGECluster",
    "lsf": "LSFCluster",
    "oar": "OARCluster",
    "moab": "MoabCluster",
    "htcondor": "HTCondorCluster",
    "local": "LocalCluster",
}
"""dask-jobqueue's classes. local starts the jobs on this machine, to try options out."""

ADDRESS = re.compile(r"(tcp|tls)://[^/\s]+:\d+")

CONNECT_S = 10.0


class PlaceError(ValueError):
    """Options that do not say where cells are to be measured."""


@dataclass(frozen=True)
class Tls:
    """Files in PEM format, as Dask takes them."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    @property
    def given(self) -> bool:
        return any((self.ca, self.cert, self.key))


class ClusterOptions(BaseModel):
    """A file of --cluster-options: how many jobs, what the worker of each declares, and dask-jobqueue's own options."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    jobs: Annotated[int, Field(ge=1, strict=True)] = 1
    slots: dict[str, Annotated[int, Field(ge=1, strict=True)]] = {"cpu-slot": 1}
    options: dict[str, Any] = {}


@dataclass(frozen=True)
class Place:
    """Where cells are measured, as the command line says it: here, unless scheduler or cluster is given."""

    scheduler: str | None = None
    tls: Tls = Tls()
    cluster: str | None = None
    cluster_options: Path | None = None

    def __post_init__(self) -> None:
        """Raises PlaceError for options that do not go together, or are of no use."""
        if self.scheduler is not None and self.cluster is not None:
            raise PlaceError("--scheduler is one that runs already, --cluster starts one: give one of the two")
        if self.scheduler is not None and not ADDRESS.fullmatch(self.scheduler):
            raise PlaceError(f"--scheduler {self.scheduler}: give its address, such as tcp://10.0.0.1:8786")
        if (self.scheduler or "").startswith("tls") and self.tls.ca is None:
            raise PlaceError("--scheduler tls://... wants --tls-ca, and --tls-cert and --tls-key too")
        if self.tls.given and self.scheduler is None:
            raise PlaceError("--tls-ca, --tls-cert and --tls-key are for --scheduler tls://...")
        if self.cluster_options is not None and self.cluster is None:
            raise PlaceError("--cluster-options are those of a --cluster, such as slurm")
        if self.cluster is not None and self.cluster not in CLUSTERS:
            raise PlaceError(f"--cluster {self.cluster}: unknown (there are: {', '.join(CLUSTERS)})")
        for file in (self.tls.ca, self.tls.cert, self.tls.key, self.cluster_options):
            if file is not None and not file.is_file():
                raise PlaceError(f"no file {file.name!r}")
        self.options()

    def options(self) -> ClusterOptions:
        """Those in the file, or the defaults."""
        if self.cluster_options is None:
            return ClusterOptions()
        try:
            return ClusterOptions.model_validate(tomllib.loads(self.cluster_options.read_text(encoding="utf-8")))
        except (ValidationError, ValueError) as why:  # TOML's errors and those of UTF-8 are ValueErrors
            raise PlaceError(f"{self.cluster_options.name}: {why}") from why


@contextmanager
def executor_at(place: Place, environment: Environment) -> Iterator[Executor]:
    """Raises ExecutorError where Dask is not installed, or a cluster cannot be started."""
    if place.scheduler is None and place.cluster is None:
        yield LocalExecutor(environment)
        return
    try:
        from distributed import Client
        from distributed.security import Security

        from symplectic_bench.run.executors.dask import DaskExecutor
    except ModuleNotFoundError as why:
        raise ExecutorError(f"{why}: install it with: pip install 'symplectic-adjoint[cluster]'") from why
    if place.cluster is not None:
        with _started(place.cluster, place.options()) as cluster:
            yield DaskExecutor(environment, lambda: Client(cluster, timeout=CONNECT_S))
        return
    tls = {"tls_ca_file": place.tls.ca, "tls_client_cert": place.tls.cert, "tls_client_key": place.tls.key}
    files = {name: str(file) for name, file in tls.items() if file is not None}
    security = Security(**files, require_encryption=True) if files else None
    yield DaskExecutor(environment, lambda: Client(place.scheduler, timeout=CONNECT_S, security=security))


@contextmanager
def _started(name: str, chosen: ClusterOptions) -> Iterator[Any]:
    """A cluster whose queue has been asked for the jobs. It is given back in the end, whatever happens."""
    try:
        module = importlib.import_module(f"dask_jobqueue.{name}")
    except ModuleNotFoundError as why:
        raise ExecutorError(f"{why}: install it with: pip install 'symplectic-adjoint[cluster]'") from why
    declared = ",".join(f"{slot}={number}" for slot, number in chosen.slots.items())
    options = dict(chosen.options)
    extra = list(options.pop("worker_extra_args", ()))
    # No nanny: it makes its worker a daemon, which may not start the processes that cells are measured in.
    own = {"processes": 1, "nanny": False, "worker_extra_args": ["--resources", declared, *extra]}
    own["scheduler_options"] = {"dashboard_address": ":0"}  # the usual port may be somebody else's
    try:
        cluster = getattr(module, CLUSTERS[name])(**{**own, **options})
    except (TypeError, ValueError) as why:
        raise ExecutorError(f"--cluster {name}: {why}") from why
    with cluster:
        cluster.adapt(minimum_jobs=chosen.jobs, maximum_jobs=chosen.jobs)  # a job that dies is asked for again
        yield cluster
