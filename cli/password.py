"""The signing key's password in the environment: taken out before another program can start."""

from __future__ import annotations

import os

VARIABLE = "PLATELINE_SIGNING_PASSWORD"
_held: list[str] = []


def hold() -> None:
    """Take the password out of the environment, which every program started later would get."""
    if given := os.environ.pop(VARIABLE, ""):
        _held[:] = [given]


def take() -> bytes:
    """Return the password that was in the environment and forget it; empty where there is none."""
    hold()
    given = "".join(_held)
    _held.clear()
    return given.encode()
