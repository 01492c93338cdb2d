"""Measurements as rows: the record, the files on disk, and the environment they were made in."""
