"""The networks of the paper's experiments. Models that contain fields take `integrate`, a solver for them."""
