"""Networks trained by contenders: the same network, data and seeds, one gradient each."""
