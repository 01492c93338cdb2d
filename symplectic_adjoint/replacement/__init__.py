"""torchdiffeq replaced by this library for code that imports it."""
