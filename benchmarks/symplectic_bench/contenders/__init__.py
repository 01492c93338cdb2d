"""The contenders and how they are adapted to the suite.

This file imports nothing: the records must be importable without torch, which every adapter needs.
"""
