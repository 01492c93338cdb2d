"""Copies of this clone's sources, in which faults are planted, and what their gate and their tests say."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.clone import ROOT

SUITE, SCALE = "quick", "smoke"

FOLDERS = ("symplectic_adjoint", "benchmarks", "tests", "docs")
FILES = ("pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "tox.ini")


@dataclass(frozen=True)
class Plant:
    """A text of one file, which occurs there once, and the fault that takes its place."""

    file: str
    sound: str
    faulty: str

    def applied_to(self, folder: Path) -> str:
        """Return the file's text with the fault; raise ValueError if the text has changed."""
        text = (folder / self.file).read_text(encoding="utf-8")
        if text.count(self.sound) != 1:
            raise ValueError(
                f"{self.file} has changed, so plant the fault anew: {text.count(self.sound)} x {self.sound!r}"
            )
        return text.replace(self.sound, self.faulty)


@dataclass(frozen=True)
class Copy:
    """A copy of the sources and tests, which are run in the place of the real ones."""

    folder: Path

    def __post_init__(self) -> None:
        for name in FOLDERS:
            shutil.copytree(ROOT / name, self.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in FILES:
            shutil.copy(ROOT / name, self.folder / name)

    def plant(self, plant: Plant) -> None:
        (self.folder / plant.file).write_text(plant.applied_to(self.folder), encoding="utf-8")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a module of Python with the copy's packages."""
        path = os.pathsep.join((str(self.folder), str(self.folder / "benchmarks")))
        env = {**os.environ, "PYTHONPATH": path, "PYTEST_ADDOPTS": ""}
        command = [sys.executable, "-m", *arguments]
        return subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, timeout=900)

    def check(self, *, timed: bool = False) -> subprocess.CompletedProcess[str]:
        """Run the suite and compare it with the committed baseline; timed: with the rounds that an interval needs."""
        rounds = () if timed else ("--repeats", "1")
        run = self.run("benchmarks", "run", SUITE, "--scale", SCALE, *rounds)
        assert run.returncode == 0, run.stdout + run.stderr
        baseline = ("--baseline", str(ROOT / "results/baseline"), "--markdown", "summary.md")
        return self.run("benchmarks", "check", SUITE, "--scale", SCALE, *baseline)

    def test(self, tests: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        """Run these tests, one after the other."""
        return self.run("pytest", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:randomly", "-rfE", *tests)
