"""Pinned images in, a compiled package, its runs and its releases out."""
