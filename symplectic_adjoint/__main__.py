"""python -m symplectic_adjoint: run a script or a module with torchdiffeq replaced by this library."""

import argparse
import os
import runpy
import sys
from collections.abc import Sequence

from symplectic_adjoint.replacement.modules import replace_torchdiffeq

DESCRIPTION = """Run a Python script, or a module with -m, in which torchdiffeq is replaced by symplectic_adjoint.
Whatever imports torchdiffeq gets the exact gradient, without a change to its code."""
EPILOG = """The environment variables SYMPLECTIC_ADJOINT_GRADIENT and SYMPLECTIC_ADJOINT_MEMORY_BUDGET choose the
gradient. Processes that the script spawns import torchdiffeq itself: let the script call replace_torchdiffeq()."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the script or module that the command line names."""
    parser = argparse.ArgumentParser("python -m symplectic_adjoint", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("-m", dest="is_module", action="store_true", help="the target is the name of a module")
    parser.add_argument("target", help="the script to run, or the module")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="the arguments of the script")
    given = parser.parse_args(arguments)
    if not given.is_module and not os.path.exists(given.target):
        parser.error(f"there is no file {given.target!r}")
    replace_torchdiffeq()
    sys.argv[:] = [given.target, *given.arguments]
    if given.is_module:
        runpy.run_module(given.target, run_name="__main__", alter_sys=True)
        return
    if not sys.flags.safe_path and os.path.isfile(given.target):  # as Python does
        sys.path[0] = os.path.dirname(os.path.realpath(given.target))
    runpy.run_path(given.target, run_name="__main__")


if __name__ == "__main__":
    main()
