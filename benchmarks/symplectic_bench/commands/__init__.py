"""The commands of `symplectic-bench`, one per file, and what several of them share."""
