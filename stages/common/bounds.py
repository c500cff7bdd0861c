"""How large a picture may be: known to whoever reads one, with a layout or without."""

from __future__ import annotations

MOST_PIXELS = 64_000_000  # of one image
