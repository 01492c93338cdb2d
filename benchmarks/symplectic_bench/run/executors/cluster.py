"""The choice of an executor: this machine, a running Dask scheduler, or jobs submitted to a cluster's queue."""

import importlib
import os
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
from symplectic_bench.spec.suggestion import suggestion
from symplectic_bench.spec.validation import sentences

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
"""dask-jobqueue's classes, by the name in --cluster. `local` starts the jobs on this machine, to try out options."""

ADDRESS = re.compile(r"(tcp|tls)://[^/\s]+:\d+")

CONNECT_S = 10.0


class ExecutorChoiceError(ValueError):
    """The options do not say where to measure, or contradict each other."""


@dataclass(frozen=True)
class Tls:
    """The PEM files that Dask needs for TLS."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    @property
    def given(self) -> bool:
        return any((self.ca, self.cert, self.key))


class ClusterOptions(BaseModel):
    """The contents of --cluster-options: the number of jobs, the slots that each job's worker declares, and options.

    `options` are passed to dask-jobqueue's class.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    jobs: Annotated[int, Field(ge=1, strict=True)] = 1
    slots: dict[str, Annotated[int, Field(ge=1, strict=True)]] = {"cpu-slot": 1}
    options: dict[str, Any] = {}


@dataclass(frozen=True)
class ExecutorChoice:
    """Where to measure, as given on the command line: on this machine unless scheduler or cluster is given."""

    scheduler: str | None = None
    tls: Tls = Tls()
    cluster: str | None = None
    cluster_options: Path | None = None

    @property
    def local(self) -> bool:
        """Whether it is this machine."""
        return self.scheduler is None and self.cluster is None

    def __post_init__(self) -> None:
        """Raise ExecutorChoiceError if options contradict each other or have no effect."""
        if self.scheduler is not None and self.cluster is not None:
            raise ExecutorChoiceError(
                "--scheduler names a running scheduler, --cluster starts one: give one of the two"
            )
        if self.scheduler is not None and not ADDRESS.fullmatch(self.scheduler):
            raise ExecutorChoiceError(f"--scheduler {self.scheduler}: give its address, such as tcp://10.0.0.1:8786")
        if (self.scheduler or "").startswith("tls") and self.tls.ca is None:
            raise ExecutorChoiceError("--scheduler tls://... needs --tls-ca, --tls-cert and --tls-key")
        if self.tls.given and self.scheduler is None:
            raise ExecutorChoiceError(
                "--tls-ca, --tls-cert and --tls-key are for --scheduler tls://...: give the scheduler's address too"
            )
        if self.cluster_options is not None and self.cluster is None:
            raise ExecutorChoiceError("--cluster-options needs --cluster, such as slurm: give it too")
        if self.cluster is not None and self.cluster not in CLUSTERS:
            raise ExecutorChoiceError(f"--cluster {self.cluster}: unknown{suggestion(self.cluster, CLUSTERS)}")
        for file in (self.tls.ca, self.tls.cert, self.tls.key, self.cluster_options):
            if file is not None and not os.path.isfile(file):
                raise ExecutorChoiceError(f"no file {file.as_posix()}: check its path")
        self.options()

    def options(self) -> ClusterOptions:
        """Return the contents of the file, or the defaults if there is none."""
        if self.cluster_options is None:
            return ClusterOptions()
        try:
            return ClusterOptions.model_validate(tomllib.loads(self.cluster_options.read_text(encoding="utf-8")))
        except OSError as why:
            raise ExecutorChoiceError(f"{self.cluster_options.name} cannot be read: {why.strerror}") from why
        except ValidationError as why:
            lines = sentences(why, ClusterOptions, {})
            raise ExecutorChoiceError("\n".join(f"{self.cluster_options.name}: {line}" for line in lines)) from why
        except (ValueError, RecursionError) as why:  # TOML's errors and those of UTF-8
            raise ExecutorChoiceError(f"{self.cluster_options.name}: not TOML: {why}") from why


@contextmanager
def open_executor(place: ExecutorChoice, environment: Environment) -> Iterator[Executor]:
    """Open the chosen executor. Raises ExecutorError if Dask is not installed or a cluster cannot be started."""
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
    """Start a cluster by submitting its jobs to the queue, and close it at the end."""
    try:
        module = importlib.import_module(f"dask_jobqueue.{name}")
    except ModuleNotFoundError as why:
        raise ExecutorError(f"{why}: install it with: pip install 'symplectic-adjoint[cluster]'") from why
    declared = ",".join(f"{slot}={number}" for slot, number in chosen.slots.items())
    options = dict(chosen.options)
    extra = list(options.pop("worker_extra_args", ()))
    # No nanny: its worker would be a daemon process, which may not start the processes that measure cells.
    own = {"processes": 1, "nanny": False, "worker_extra_args": ["--resources", declared, *extra]}
    own["scheduler_options"] = {"dashboard_address": ":0"}  # the default port may be taken
    try:
        cluster = getattr(module, CLUSTERS[name])(**{**own, **options})
    except (TypeError, ValueError) as why:
        raise ExecutorError(f"--cluster {name}: {why}") from why
    with cluster:
        cluster.adapt(minimum_jobs=chosen.jobs, maximum_jobs=chosen.jobs)  # resubmits a job that dies
        yield cluster
