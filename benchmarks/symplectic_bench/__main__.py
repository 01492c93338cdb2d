"""The command line: symplectic-bench, or python -m symplectic_bench."""

import os
import sys


def main() -> None:
    """Run the command line."""
    if sys.platform == "win32":
        print("symplectic-bench needs Linux or macOS. symplectic_adjoint itself runs on Windows.", file=sys.stderr)
        sys.exit(2)  # Exit.USAGE: imports fail here
    try:
        os.getcwd()
    except FileNotFoundError:
        print("the current folder has been removed: change to one that exists", file=sys.stderr)
        sys.exit(2)  # Exit.USAGE: imports may fail here
    # Imported here because a measuring process imports this module again as its main module and must never import
    # pandas, which would take seconds and add to the memory that is measured.
    from symplectic_bench.commands.app import app
    from symplectic_bench.commands.exit_codes import Exit
    from symplectic_bench.commands.standard_streams import lasting_streams

    with lasting_streams(failure=Exit.FAILURE):
        app()


if __name__ == "__main__":
    main()
