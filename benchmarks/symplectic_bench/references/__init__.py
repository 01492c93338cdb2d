"""Reference gradients of the continuous problem, each with its error bar."""

from symplectic_bench.references.reference import Reference
from symplectic_bench.references.store import compute_reference, load_reference, reference_file

__all__ = ["Reference", "compute_reference", "load_reference", "reference_file"]
