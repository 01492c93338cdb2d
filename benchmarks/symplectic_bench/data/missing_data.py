"""Data that cannot be had: the error, and what stand-ins are called. Standard library only: read without torch."""

SYNTHETIC = "synthetic-"
"""How the name of a stand-in for a published table begins."""


class MissingData(ValueError):
    """Files that are not there, or hold something else than what was published."""
