"""Features of libraries, each asked by a tiny program whose answer is known."""
