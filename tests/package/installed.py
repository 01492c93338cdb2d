"""Check the packages that are installed, from a folder without the repository: python -I installed.py."""

import subprocess
import sys
from importlib.metadata import metadata, version
from pathlib import Path

import torch

import symplectic_adjoint
import symplectic_bench
from symplectic_bench.spec.suite import SUITES, load_suite, suite_names


def main() -> None:
    """Raise AssertionError for anything that an installation lacks."""
    for package in (symplectic_adjoint, symplectic_bench):
        assert Path(package.__file__ or "").is_relative_to(sys.prefix), f"{package.__file__} is not installed"
    assert (Path(symplectic_adjoint.__file__).parent / "py.typed").exists()
    assert version("symplectic-adjoint") == symplectic_adjoint.__version__
    assert metadata("symplectic-adjoint").get_all("Project-URL"), "no addresses"

    y0 = torch.ones(2, requires_grad=True)
    symplectic_adjoint.odeint(lambda t, y: -y, y0, torch.tensor([0.0, 1.0]))[-1].sum().backward()
    # The default tolerance, 1e-7, in float32.
    torch.testing.assert_close(y0.grad, torch.full((2,), -1.0).exp(), rtol=1e-6, atol=0.0)

    names = suite_names()
    assert "quick" in names and list((SUITES / "paper").glob("*.toml"))
    assert list((Path(symplectic_bench.__file__).parent / "references" / "known").glob("*.npz"))
    for name in names:
        load_suite(name)
    command = ["run", "quick", "--scale", "smoke", "--only", "problem=mlp", "--only", "gradient=symplectic", "--fresh"]
    subprocess.run([Path(sys.executable).parent / "symplectic-bench", *command], check=True)
    assert Path("results/quick-smoke/README.md").exists()


if __name__ == "__main__":
    main()
