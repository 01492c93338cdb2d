"""Train networks with each contender's gradient, from the same weights, data and seeds."""
