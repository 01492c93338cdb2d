"""Defects found in the published code of the symplectic adjoint method, one test each: this library has none.

The numbers are those of the list in which they were recorded when that code was examined.
"""
