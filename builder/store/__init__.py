"""The content-addressed folder: blobs, results by action key, named roots, and collection."""

from builder.store.blobs import Store, default_root

__all__ = ["Store", "default_root"]
