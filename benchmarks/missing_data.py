"""The error of data that cannot be had. Standard library only: commands that never import torch tell of it too."""


class MissingData(ValueError):
    """Files that are not there, or hold something else than what was published."""
