"""This clone, for tests that start programs of their own."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[1]

PYTHONPATH = os.pathsep.join(map(str, (ROOT, ROOT / "benchmarks")))
"""Of a program that is to import this clone's packages, whatever is installed."""
