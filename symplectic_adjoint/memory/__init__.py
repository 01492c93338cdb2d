"""Memory: watching torch's allocator, byte sizes as people write them, and where kept tensors are stored."""
