"""What earlier runs left on this machine: read back, listed, and compared two by two."""
