"""A compiled package: made, read, checked and compared, as data."""
