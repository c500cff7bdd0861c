"""A workspace's recipes in, images out: plans, keys, and making what is missing."""
