import getpass
import inspect
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from symplectic_bench.rows import environment
from symplectic_bench.rows.environment import capture, describe
from symplectic_bench.rows.store import StoreError, read_environment, write_environment
from tests.clone import PYTHONPATH
from tests.symplectic_bench.sample_rows import an_environment


def test_the_environment_of_an_older_run_can_be_read(tmp_path):
    """Its file lacks the facts that were added since."""
    write_environment(tmp_path, an_environment(), "cpu")
    file = tmp_path / "environment.json"
    facts = json.loads(file.read_text())
    older = {name: value for name, value in facts.items() if name not in ("cpu_kind", "peers", "problems")}
    file.write_text(json.dumps(older))
    assert read_environment(tmp_path) == older
    file.write_text(json.dumps(older | {"cpu_kind": 3}))
    with pytest.raises(StoreError, match="cpu_kind is 3"):
        read_environment(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"cpu": "other"},
        {"cpu_kind": "Some AVX512"},
        {"cores": 4},
        {"torch": "2.14"},
        {"library_sha256": "3" * 64},
        {"gpus": ["H100"]},
        {"peers": {"torchode": "1.0.1"}},
    ],
)
def test_machine_versions_and_library_determine_the_id(change):
    assert an_environment(**change).id != an_environment().id


@pytest.mark.parametrize("change", [{"commit": None}, {"uncommitted_changes": True}, {"suite_sha256": "3" * 64}])
def test_commit_and_suite_do_not_change_the_id(change):
    assert an_environment(**change).id == an_environment().id


def test_the_environment_names_the_machine_but_not_its_user():
    environment = capture()
    assert environment.id == capture().id
    assert environment.python == ".".join(map(str, sys.version_info[:3]))
    assert environment.torch != "not installed"
    written = json.dumps(asdict(environment))
    private = [str(Path.home()), str(Path.cwd()), f'"{socket.gethostname()}"', f"/{getpass.getuser()}/"]
    assert [word for word in private if word in written] == []


def test_the_instructions_that_torch_uses_are_named_and_can_be_limited():
    """As for an imitation of another kind of processor, whose rows must not be taken for this one's."""
    program = (
        "from symplectic_bench.rows.environment import capture; found = capture(); print(found.id, found.cpu_kind)"
    )

    def captured(**variables):
        env = {**os.environ, "PYTHONPATH": PYTHONPATH, **variables}
        done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
        return done.stdout.strip().split(" ", 1)

    own, limited = captured(), captured(ATEN_CPU_CAPABILITY="default")
    if platform.machine() in ("x86_64", "AMD64"):
        assert own[1].split()[-1] == torch.backends.cpu.get_cpu_capability()
    if own[1].split()[-1] != "DEFAULT":
        assert limited[1].endswith(" DEFAULT") and limited[0] != own[0]


def test_peers_that_are_not_installed_are_not_named(monkeypatch):
    monkeypatch.setattr("symplectic_bench.rows.environment.PEERS", ("no_such_package", "torchdiffeq"))
    assert capture().peers == {"torchdiffeq": capture().torchdiffeq}


def test_a_peer_that_is_only_on_the_path_is_named_by_its_source(monkeypatch, tmp_path):
    (tmp_path / "some_peer").mkdir()
    (tmp_path / "some_peer" / "__init__.py").write_text("a = 1")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("symplectic_bench.rows.environment.PEERS", ("some_peer",))
    before = capture().peers["some_peer"]
    (tmp_path / "some_peer" / "__init__.py").write_text("a = 2")
    assert before.startswith("with source ") and capture().peers["some_peer"] != before


def test_the_command_line_does_not_import_torch():
    imported = "import sys, symplectic_bench.commands.app, symplectic_bench.rows.environment as e"
    program = f"{imported}; e.capture(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": PYTHONPATH}, check=True)


class TestCommit:
    """Return the git facts that capture finds in a process with copies of the packages in folders of its own."""

    @pytest.fixture
    def clone(self, tmp_path):
        """Return a repository that tracks the suite and the library, and its commit."""
        folder = tmp_path / "clone"
        install(folder)
        return folder, commit_all(folder)

    def test_a_clone_is_at_its_commit(self, clone):
        folder, commit = clone
        assert captured_git_state(folder) == [commit, False]

    @pytest.mark.parametrize("package", ["symplectic_bench", "symplectic_adjoint"])
    def test_changes_to_the_suite_or_the_library_are_uncommitted_changes(self, clone, package):
        folder, commit = clone
        (folder / package / "__init__.py").write_text("changed = True")
        assert captured_git_state(folder) == [commit, True]

    def test_changes_elsewhere_in_the_clone_do_not_count(self, clone):
        folder, commit = clone
        (folder / "notes.txt").write_text("untracked")
        assert captured_git_state(folder) == [commit, False]

    def test_a_library_outside_the_clone_counts_as_a_change(self, clone, tmp_path):
        folder, commit = clone
        install(tmp_path / "elsewhere", "symplectic_adjoint")
        assert captured_git_state(tmp_path / "elsewhere", folder) == [commit, True]

    @pytest.mark.parametrize("ignored", [True, False])
    def test_an_installation_inside_another_projects_repository_has_no_commit(self, tmp_path, ignored):
        project = tmp_path / "project"
        project.mkdir()
        (project / ".gitignore").write_text(".venv/" if ignored else "")
        commit_all(project)
        install(project / ".venv" / "site-packages")
        assert captured_git_state(project / ".venv" / "site-packages") == [None, None]

    def test_an_installation_outside_any_repository_has_no_commit(self, tmp_path):
        install(tmp_path)
        assert captured_git_state(tmp_path) == [None, None]

    @pytest.mark.parametrize("staged", [True, False])
    def test_copies_that_another_project_has_not_committed_have_no_commit(self, tmp_path, staged):
        project = tmp_path / "project"
        project.mkdir()
        (project / "notes.txt").write_text("of the project")
        commit_all(project)
        install(project / "vendored")
        if staged:
            git(project, "add", "-A")
        assert captured_git_state(project / "vendored") == [None, None]

    def test_a_library_installed_inside_the_clone_counts_as_a_change(self, clone):
        """It is ignored there, so git says nothing about it."""
        folder, _ = clone
        shutil.rmtree(folder / "symplectic_adjoint")
        (folder / ".gitignore").write_text(".venv/")
        install(folder / ".venv", "symplectic_adjoint")
        commit = commit_all(folder)
        assert captured_git_state(folder, folder / ".venv") == [commit, True]

    def test_packages_below_the_top_of_the_repository_are_at_its_commit(self, tmp_path):
        install(tmp_path / "clone" / "benchmarks", "symplectic_bench")
        install(tmp_path / "clone", "symplectic_adjoint")
        commit = commit_all(tmp_path / "clone")
        assert captured_git_state(tmp_path / "clone" / "benchmarks", tmp_path / "clone") == [commit, False]

    def test_a_submodule_is_at_its_own_commit(self, clone, tmp_path):
        folder, commit = clone
        project = tmp_path / "project"
        project.mkdir()
        commit_all(project, "--allow-empty")
        git(project, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(folder), "theirs")
        assert commit_all(project) != commit
        assert captured_git_state(project / "theirs") == [commit, False]

    def test_a_worktree_is_at_the_commit_that_it_has_checked_out(self, clone, tmp_path):
        folder, commit = clone
        git(folder, "worktree", "add", "--detach", str(tmp_path / "tree"))
        (folder / "symplectic_bench" / "more.py").write_text("")
        assert commit_all(folder) != commit
        assert captured_git_state(tmp_path / "tree") == [commit, False]

    def test_a_link_to_the_packages_is_at_their_commit(self, clone, tmp_path):
        folder, commit = clone
        (tmp_path / "site").mkdir()
        for package in ("symplectic_bench", "symplectic_adjoint"):
            (tmp_path / "site" / package).symlink_to(folder / package)
        assert captured_git_state(tmp_path / "site") == [commit, False]

    def test_variables_that_name_another_repository_are_ignored(self, clone, tmp_path, monkeypatch):
        """A hook of another project's repository has them, and so may its CI."""
        folder, commit = clone
        project = tmp_path / "project"
        install(project)
        (project / "more.txt").write_text("")
        assert commit_all(project) != commit
        monkeypatch.setenv("GIT_DIR", str(project / ".git"))
        monkeypatch.setenv("GIT_WORK_TREE", str(project))
        monkeypatch.setenv("GIT_INDEX_FILE", str(project / ".git" / "index"))
        monkeypatch.setenv("GIT_PREFIX", "deep/")
        assert captured_git_state(folder) == [commit, False]
        install(tmp_path / "site")
        assert captured_git_state(tmp_path / "site") == [None, None]

    def test_without_git_there_is_no_commit(self, clone, tmp_path, monkeypatch):
        folder, _ = clone
        monkeypatch.setenv("PATH", str(tmp_path))
        assert captured_git_state(folder) == [None, None]

    def test_a_repository_that_git_does_not_trust_has_no_commit(self, clone, monkeypatch):
        folder, _ = clone
        monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own tests of safe.directory use it
        assert captured_git_state(folder) == [None, None]

    def test_a_repository_without_a_commit_has_none(self, tmp_path):
        install(tmp_path)
        git(tmp_path, "init", "-q")
        git(tmp_path, "add", "-A")
        assert captured_git_state(tmp_path) == [None, None]

    def test_a_folder_whose_name_is_not_utf8_has_its_commit(self, tmp_path):
        folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
        install(folder)
        commit = commit_all(folder)
        assert captured_git_state(folder) == [commit, False]


def install(folder, *packages):
    """Put packages into a folder: a library that is never imported, and as much of the suite as capture needs."""
    for package in packages or ("symplectic_bench", "symplectic_adjoint"):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text("")
        if package == "symplectic_bench":
            shutil.copytree(Path(inspect.getfile(capture)).parent, folder / package / "rows")


def git(folder, *arguments):
    identity = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit_all(folder, *options):
    """Make the folder a repository with a commit of everything, and return the id that capture gives to it."""
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "Everything", *options)
    return git(folder, "rev-parse", "HEAD")[:12]


PRINT_GIT_STATE = """
import json
from symplectic_bench.rows.environment import capture
environment = capture()
print(json.dumps([environment.commit, environment.uncommitted_changes]))
"""


def captured_git_state(*folders):
    """Return commit and uncommitted_changes as captured by a process that finds its packages in these folders."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders)), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-P", "-c", PRINT_GIT_STATE], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_caption_names_machine_versions_commit_scale_and_id(tmp_path):
    environment = an_environment(gpus=["Some GPU"], uncommitted_changes=True, peers={"torchode": "1.0.1"})
    write_environment(tmp_path, environment, "smoke")
    assert describe(read_environment(tmp_path)) == (
        "Measured on Some CPU, 2 cores, 8 GiB, Some GPU, Linux x86_64; Python 3.11.7, torch 2.13.0 (built for cpu),"
        " torchdiffeq 0.2.5, torchode 1.0.1; commit 0123456789ab with uncommitted changes, scale smoke,"
        f" environment {environment.id}."
    )


@pytest.mark.parametrize(
    "failure", [subprocess.TimeoutExpired("nvidia-smi", 30), PermissionError()], ids=["hangs", "no"]
)
def test_a_driver_that_does_not_answer_has_no_gpus(monkeypatch, failure):
    def run(*args, **kwargs):
        raise failure

    monkeypatch.setattr(environment.shutil, "which", lambda name: name)
    monkeypatch.setattr(environment.subprocess, "run", run)
    assert environment._gpus() == []
