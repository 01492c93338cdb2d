"""One quantity a file; each is called in a process of its own."""
