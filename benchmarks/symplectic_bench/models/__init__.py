"""The networks of the paper's experiments. Whatever has a field in it takes `integrate`, which solves it."""
