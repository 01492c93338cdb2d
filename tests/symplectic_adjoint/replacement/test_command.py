"""python -m symplectic_adjoint: a script or module that imports torchdiffeq gets ours."""

import os
import subprocess
import sys

import pytest

from symplectic_adjoint.__main__ import main
from tests.clone import ROOT

SCRIPT = """
import sys, torchdiffeq, neighbour
print(torchdiffeq.odeint.__module__)
print(__name__, sys.argv[1:], neighbour.word)
sys.exit(3)
"""


@pytest.fixture
def folder(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(SCRIPT)
    (tmp_path / "my script.py").write_text(SCRIPT)
    (tmp_path / "neighbour.py").write_text("word = 'found'")
    return tmp_path


def command(folder, *arguments, **variables):
    environment = {**os.environ, **variables, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "symplectic_adjoint", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("target", "arguments"),
    [
        (["my script.py"], ["--lr", "0.1", "--help", "-m", "x", "--", "y"]),
        (["-m", "package"], ["--lr", "0.1", "-h"]),
        (["my script.py"], []),
    ],
)
def test_the_target_runs_as_main_with_its_arguments_its_folder_and_its_exit_code(folder, target, arguments):
    done = command(folder, *target, *arguments)
    assert done.returncode == 3, done.stderr
    assert done.stdout.splitlines() == ["symplectic_adjoint.replacement.functions", f"__main__ {arguments} found"]


def test_a_script_elsewhere_finds_what_lies_beside_it(folder, tmp_path_factory):
    done = command(tmp_path_factory.mktemp("elsewhere"), str(folder / "my script.py"))
    assert done.returncode == 3 and done.stdout.endswith("found\n"), done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "printed"),
    [(["--help"], 0, "SYMPLECTIC_ADJOINT_GRADIENT"), ([], 2, "required: target"), (["nowhere.py"], 2, "nowhere.py")],
)
def test_help_and_errors(arguments, code, printed, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == code and printed in "".join(capsys.readouterr())


def test_the_environment_chooses_the_gradient(folder):
    (folder / "solve.py").write_text(
        "import torch, torchdiffeq, symplectic_adjoint as sa\n"
        "y0 = torch.ones(1, requires_grad=True)\n"
        "print(sa.solve(lambda t, y: y, y0, torch.tensor([0., 1.])).stats.gradient)\n"
        "print(torchdiffeq.odeint(lambda t, y: y, y0, torch.tensor([0., 1.])).grad_fn.name())"
    )
    done = command(folder, "solve.py", SYMPLECTIC_ADJOINT_GRADIENT="backprop")
    assert done.stdout.splitlines() == ["backprop", "CatBackward0"], done.stderr
