"""Memory: watching torch's allocator, byte sizes as text, and where kept tensors are stored."""
