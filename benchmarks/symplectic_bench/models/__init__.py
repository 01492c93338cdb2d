"""The networks of the paper's experiments. Models that contain fields are passed `integrate`, which solves them."""
