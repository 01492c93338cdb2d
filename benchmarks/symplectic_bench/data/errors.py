"""The error raised for unavailable data."""


class MissingData(ValueError):
    """Raised for data that are unknown, not cached, missing on disk, or different from the published ones."""
