"""Dockerfiles: their syntax, and what each instruction means."""
