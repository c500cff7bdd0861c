"""How much a process in an image may use besides the memory that is set for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from builder.oci.numbers import from_environment

VARIABLES = {
    "processes": "PLATELINE_STEP_PROCESSES",
    "log": "PLATELINE_STEP_LOG",
    "free": "PLATELINE_STEP_FREE",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """`processes` (and threads) at a time, bytes it may print, bytes of disk that stay `free`."""

    processes: int = 2048
    log: int = 1 << 30
    free: int = 256 << 20

    @staticmethod
    def read(environ: Mapping[str, str] = os.environ) -> Limits:
        """Return the limits that the environment sets (docs/environment.md).

        Raises BuilderError for what is not a number.
        """
        return from_environment(Limits(), VARIABLES, environ)
