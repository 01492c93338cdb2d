"""The environment of a run: machine, versions, source. It contains no host, user or folder name."""

import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RUN_VARIABLES = (
    "OMP_NUM_THREADS",
    "OMP_PROC_BIND",
    "OMP_WAIT_POLICY",
    "KMP_AFFINITY",
    "KMP_BLOCKTIME",
    "MKL_NUM_THREADS",
    "MKL_DYNAMIC",
    "OPENBLAS_NUM_THREADS",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
)
"""Environment variables on which times or rounding depend."""

INSTRUCTIONS = {
    "AVX512": {"avx512vl", "avx512bw", "avx512dq", "fma"},
    "AVX2": {"avx2", "fma"},
    "SVE": {"sve"},
    "DEFAULT": set[str](),
}
"""The instruction sets for which torch has code of its own, and the processor's features that they need."""

PEERS = (
    "torch_symplectic_adjoint",
    "torchdiffeqpack",
    "torchode",
    "rampde",
    "pnode",
    "petsc4py",
    "diffrax",
    "jax",
    "jaxlib",
)


@dataclass(frozen=True)
class Environment:
    """The facts that a measurement depends on. torch_build is "cpu" or the CUDA version that torch was built for.

    cpu_kind is what the last digits of sums depend on: the vendor, by which libraries choose their code, and the
    instructions that torch uses. peers are the installed peers besides torchdiffeq, with their versions. Installing
    another one makes a new environment, in which its cells, skipped before, are measured. problems are the users' own
    problems of the suite, with the digests of their sources.
    """

    system: str
    cpu: str
    cpu_kind: str
    cores: int
    memory_gib: int
    gpus: list[str]
    thread_variables: dict[str, str]
    python: str
    torch: str
    torch_build: str
    torchdiffeq: str
    numpy: str
    peers: dict[str, str]
    library_sha256: str
    suite_sha256: str = field(metadata={"in_id": False})
    commit: str | None = field(metadata={"in_id": False})
    uncommitted_changes: bool | None = field(metadata={"in_id": False})
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """12 hex digits that identify machine, versions and library source; a run resumes only within one id."""
        hidden = {f.name for f in self.__dataclass_fields__.values() if not f.metadata.get("in_id", True)}
        hidden |= set() if self.problems else {"problems"}
        facts = {key: value for key, value in asdict(self).items() if key not in hidden}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]

    def with_problems(self, problems: Mapping[str, str]) -> "Environment":
        """Return this environment with these users' problems, by name, and the digests of their sources."""
        return replace(self, problems=dict(problems))

    @property
    def sources(self) -> tuple[str, str]:
        """SHA-256 digests of the library's and the suite's source."""
        return self.library_sha256, self.suite_sha256


def capture() -> Environment:
    """Return the environment of this process. torch's version is read from its files: importing it takes seconds."""
    suite, library = _package_folder("symplectic_bench"), _package_folder("symplectic_adjoint")
    commit, uncommitted_changes = _git_state(suite, library)
    return Environment(
        system=f"{platform.system()} {platform.machine()}",
        cpu=_cpu_info("model name") or platform.processor() or platform.machine(),
        cpu_kind=f"{_cpu_info('vendor_id') or platform.machine()} {_instructions()}",
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        gpus=_gpus(),
        thread_variables={name: os.environ[name] for name in RUN_VARIABLES if name in os.environ},
        python=platform.python_version(),
        torch=_version("torch"),
        torch_build=_torch_build(),
        torchdiffeq=_version("torchdiffeq"),
        numpy=_version("numpy"),
        peers={name: found for name in PEERS if (found := _peer(name)) is not None},
        library_sha256=_sha256(library),
        suite_sha256=_sha256(suite),
        commit=commit,
        uncommitted_changes=uncommitted_changes,
    )


def describe(facts: Mapping[str, Any]) -> str:
    """Return the facts of a stored environment.json as a sentence for the end of a caption."""
    machine = [facts["cpu"], f"{facts['cores']} cores", f"{facts['memory_gib']} GiB", *facts["gpus"], facts["system"]]
    torch = f"torch {facts['torch']} (built for {facts['torch_build']})"
    peers = {"torchdiffeq": facts["torchdiffeq"], **facts.get("peers", {})}
    versions = [f"Python {facts['python']}", torch, *(f"{name} {found}" for name, found in peers.items())]
    changed = " with uncommitted changes" if facts["uncommitted_changes"] else ""
    source = f"commit {facts['commit']}{changed}" if facts["commit"] else "no git commit"
    problems = [f"{name} with source {digest}" for name, digest in facts.get("problems", {}).items()]
    run = [source, *problems, f"scale {facts['scale']}", f"environment {facts['id']}"]
    return f"Measured on {', '.join(machine)}; {', '.join(versions)}; {', '.join(run)}."


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _peer(package: str) -> str | None:
    """Return a package's version, or a digest of its source if it is only on the path; None if it is absent."""
    if importlib.util.find_spec(package) is None:
        return None
    found = _version(package)
    return f"with source {_sha256(_package_folder(package))[:12]}" if found == "not installed" else found


def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)  # finds a top-level package without importing it
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            f"package {package!r} is not installed; install this repository with: pip install -e ."
        )
    return Path(spec.origin).parent


def _torch_build() -> str:
    text = (_package_folder("torch") / "version.py").read_text()
    cuda = re.search(r"^cuda\b[^=]*=\s*'([^']+)'", text, re.MULTILINE)
    return f"CUDA {cuda[1]}" if cuda else "cpu"


def _cpu_info(name: str) -> str | None:
    try:
        found = re.search(rf"^{name}\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else None


def _instructions() -> str:
    """Return the instructions for which torch chooses its code, without importing it, which takes seconds.

    As torch.backends.cpu.get_cpu_capability(): ATEN_CPU_CAPABILITY, if given, decides.
    """
    if (given := os.environ.get("ATEN_CPU_CAPABILITY", "").upper()) in INSTRUCTIONS:
        return given
    flags = set(f"{_cpu_info('flags')} {_cpu_info('Features')}".split())  # of x86 and of ARM
    return next((name for name, needed in INSTRUCTIONS.items() if needed <= flags), "DEFAULT")


def _gpus() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):  # a driver that hangs, as one that fails
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()] if answer.returncode == 0 else []


def _git_state(suite: Path, library: Path) -> tuple[str | None, bool | None]:
    """Return the commit that has the suite, and whether suite or library differ from it.

    Return (None, None) without such a commit: an installed suite may lie inside another project's repository, whose
    commit says nothing about it. A library that is not in the same commit counts as a change.
    """
    commit = _git(suite, "rev-parse", "--verify", "HEAD") if _in_commit(suite) else None
    if commit is None:
        return None, None
    top = _git(suite, "rev-parse", "--show-toplevel")
    if not _in_commit(library) or _git(library, "rev-parse", "--show-toplevel") != top:
        return commit[:12], True
    changes = [_git(folder, "status", "--porcelain", "--", ".") for folder in (suite, library)]
    return (None, None) if None in changes else (commit[:12], any(changes))


def _in_commit(package: Path) -> bool:
    """Return whether the package is in the commit that is checked out where it lies."""
    return _git(package, "rev-parse", "--verify", "HEAD:./__init__.py") is not None


ELSEWHERE = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_COMMON_DIR",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
)
"""The variables that name another repository than that of the folder. git sets them for its hooks, for example."""


def without_repository() -> dict[str, str]:
    """Return the environment variables without those that name a repository: git then uses that of its folder."""
    return {name: value for name, value in os.environ.items() if name not in ELSEWHERE}


def _git(folder: Path, *arguments: str) -> str | None:
    """Return git's output about a folder, whatever repository the environment names; None if git fails or is absent."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, env=without_repository(), capture_output=True)
    except OSError:
        return None
    return os.fsdecode(done.stdout).strip() if done.returncode == 0 else None


def _sha256(folder: Path) -> str:
    """Return the digest of the names and contents of all Python files below a folder."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(file.relative_to(folder).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()
