"""The wheel: what it holds, and that it works beside a folder called `benchmarks`, as many projects have one."""

import os
import subprocess
import sys
import zipfile

import pytest

from tests.clone import ROOT

pytestmark = pytest.mark.gate


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, timeout=300)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
    """Return a folder of installed packages that holds only the wheel's."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_it_holds_the_library_and_the_suite_and_nothing_else(site):
    top_level = {path.name for path in site.iterdir()}
    assert {name for name in top_level if not name.endswith(".dist-info")} == {"symplectic_adjoint", "symplectic_bench"}
    assert (site / "symplectic_adjoint" / "py.typed").is_file()
    suites = site / "symplectic_bench" / "suites"
    assert (suites / "quick.toml").is_file() and (suites / "paper" / "table2.toml").is_file()
    assert list(site.glob("symplectic_bench/references/known/*.npz"))


def test_the_command_works_in_an_empty_folder_and_beside_a_folder_called_benchmarks(site, tmp_path):
    (scripts,) = site.glob("*.dist-info/entry_points.txt")
    assert "symplectic-bench = symplectic_bench.__main__:main" in scripts.read_text()
    for beside in ((), ("benchmarks",)):
        for name in beside:
            (tmp_path / name).mkdir()
            (tmp_path / name / "__init__.py").write_text("raise RuntimeError('this is another project')")
        program = (
            "import sys, symplectic_bench\n"
            f"assert symplectic_bench.__file__.startswith({str(site)!r}), symplectic_bench.__file__\n"
            "from symplectic_bench.__main__ import main\n"
            "main()"
        )
        env = {**os.environ, "PYTHONPATH": str(site)}
        done = subprocess.run(
            [sys.executable, "-c", program, "list"],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "quick" in done.stdout and "dopri5" in done.stdout
