"""python -m benchmarks: the command line of this clone, whether or not the package is installed.

The clone goes to the front of the path, here and in every process started from here, because another version of the
suite or of the library may be installed.
"""

import os
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
CLONE = [str(FOLDER), str(FOLDER.parent)]

if __name__ == "__main__":
    sys.path[:0] = CLONE
    os.environ["PYTHONPATH"] = os.pathsep.join([*CLONE, *filter(None, [os.environ.get("PYTHONPATH")])])

    from symplectic_bench.__main__ import main

    main()
