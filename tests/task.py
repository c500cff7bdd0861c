"""A task in a process of its own, as `./invoke` starts it, in any folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TASK = [sys.executable, "-P", "-m", "cli"]


def environment(**variables: str) -> dict[str, str]:
    """Return the variables of such a process: this one's with `variables`."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **variables}
