"""A user's own problem: its gate, what check writes, and compare for two revisions of the user's project."""

import json
import subprocess

import pytest

from tests.symplectic_bench.users_project import PROBLEM, UsersProject

pytestmark = pytest.mark.gate


@pytest.fixture
def project(tmp_path):
    return UsersProject(tmp_path)


def test_a_users_problem_has_its_gate(project):
    check = ("check", "--problem", PROBLEM)
    assert project(*check) == 5  # there is no baseline yet
    assert project(*check, "--update") == 0, project.output
    lines = (project.folder / "results/baseline/problem-pendulum.jsonl").read_text().splitlines()
    assert len(lines) == 1 + 7 and json.loads(lines[1])["f_calls_forward"] > 0
    assert project(*check) == 0, project.output
    project.write("helpers/scale.py", "SCALE = 3.0\n")
    assert project(*check) == 3, project.output


def test_check_writes_what_run_writes(project):
    problem = ("--problem", PROBLEM)
    assert project("run", *problem, "--scale", "smoke") == 0, project.output
    files = {path for folder in ("results", "plots") for path in (project.folder / folder).rglob("*.*")}
    written = {path for path in files if path.suffix in (".md", ".csv", ".tex", ".svg", ".png")}
    assert {path.parent.name for path in written} == {"problem-pendulum-smoke", "tables"} and len(written) > 8
    for path in written:
        path.unlink()
    assert project("check", *problem, "--scale", "smoke") == 5
    assert all(path.is_file() for path in written)


def test_two_revisions_of_a_users_project_are_compared(project):
    def git(*arguments):
        author = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", *author, *arguments], cwd=project.folder, check=True, capture_output=True)

    git("init", "-q")
    arguments = ("compare", "HEAD~1", "HEAD", "--problem", PROBLEM, "--rounds", "1")
    git("commit", "-q", "--allow-empty", "-m", "nothing")
    git("add", "mine", "helpers")
    git("commit", "-q", "-m", "first")
    assert project(*arguments) == 1 and "HEAD~1: mine is not there" in project.output
    project.write("helpers/scale.py", "SCALE = 9.0\n")
    git("commit", "-q", "-a", "-m", "second")
    assert project(*arguments) == 3, project.output
    assert "7 cells compared" in project.output and "f_calls_forward was" in project.output
