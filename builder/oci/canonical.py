"""Canonical JSON: one byte string per value, so that a digest of it means something."""

from __future__ import annotations

import hashlib
import json


def dumps(value: object) -> bytes:
    """Return `value` as UTF-8 JSON with sorted keys, no spaces and no ASCII escapes.

    >>> dumps({"b": 1, "a": "µ"})
    b'{"a":"\\xc2\\xb5","b":1}'
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def sha256(data: bytes) -> str:
    """Return the digest of `data` in OCI notation, `sha256:<64 hex>`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()
