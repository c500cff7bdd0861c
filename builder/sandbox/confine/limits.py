"""How much a process in an image may use besides the memory that is set for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from builder.oci.tree import number


@dataclass(frozen=True, slots=True)
class Limits:
    """`processes` (and threads) at a time, bytes it may print, bytes of disk that stay `free`."""

    processes: int = 2048
    log: int = 1 << 30
    free: int = 256 << 20

    @staticmethod
    def read(environ: Mapping[str, str] = os.environ) -> Limits:
        """Return the limits that PLATELINE_STEP_{PROCESSES,LOG,FREE} set.

        Raises BuilderError for what is not a number.
        """
        found = Limits()
        for field in fields(Limits):
            variable = f"PLATELINE_STEP_{field.name.upper()}"
            if text := environ.get(variable):
                found = replace(found, **{field.name: number(variable, text)})
        return found
