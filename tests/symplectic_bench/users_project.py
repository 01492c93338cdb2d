"""A user's project with a problem of its own, in which commands measure for real."""

import os
import subprocess
import sys
from pathlib import Path

from tests.clone import PYTHONPATH

PROBLEM = "mine.my-fields:pendulum"

FIELDS = """
import torch
from torch import nn
from helpers.scale import SCALE


class Field(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 2))

    def forward(self, t, y):
        return SCALE * self.net(y)


def pendulum(batch, *, width=4, kind="a"):
    return Field(width), torch.randn(batch, 2), torch.linspace(0.0, 1.0, 3), lambda ys: ys[-1].square().mean()
"""


class UsersProject:
    """The folder of a project, and the output of the last command."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.output = folder, ""
        self.write("mine/my-fields.py", FIELDS)
        self.write("helpers/scale.py", "SCALE = 1.0\n")

    def write(self, file: str, text: str) -> None:
        (self.folder / file).parent.mkdir(exist_ok=True)
        (self.folder / file).write_text(text)

    def __call__(self, *arguments: str) -> int:
        """Run a command as the console script does, without the current folder on the path."""
        program = "import sys; sys.path.pop(0); from symplectic_bench.__main__ import main; main()"
        env = {**os.environ, "PYTHONPATH": PYTHONPATH}
        command = [sys.executable, "-c", program, *arguments]
        done = subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, timeout=900)
        self.output = done.stdout + done.stderr
        return done.returncode
