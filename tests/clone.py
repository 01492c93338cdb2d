"""This clone, for tests that start programs of their own."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[1]

PYTHONPATH = os.pathsep.join(map(str, (ROOT, ROOT / "benchmarks")))
"""For programs that must import the packages of this clone, even if others are installed."""
