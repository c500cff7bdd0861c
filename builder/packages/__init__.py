"""Wheels and Debian packages: their locks, their downloads, and what they put into a layer."""
