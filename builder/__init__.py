"""Dockerfiles and lock files in, bit-identical OCI images out; no daemon, no root."""
