"""Files on disk: replaced atomically, and arrays in .npz files."""
