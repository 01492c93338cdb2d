"""Training networks with each contender's gradient: the same network, data and seeds."""
