"""Where things are kept on this machine; importing it costs nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping


def store(environ: Mapping[str, str] = os.environ) -> str:
    """Return $PLATELINE_STORE, or `plateline/store` under the user's cache folder."""
    if chosen := environ.get("PLATELINE_STORE"):
        return chosen
    cache = environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(cache, "plateline", "store")
