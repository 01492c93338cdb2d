"""The contenders and how they are adapted to the suite.

This file stays empty of imports: the records must be importable without torch, which every adapter needs.
"""
