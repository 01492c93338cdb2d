"""Measurements as rows: the record, the files on disk, and the environment they were measured in."""
