"""One step of each kind, and the transpose of a step."""
