"""The commands of `symplectic-bench`, one a file, and what several of them share."""
