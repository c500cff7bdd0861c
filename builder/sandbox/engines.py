"""Running an image as a process, by bubblewrap or by a Docker Engine."""

from __future__ import annotations

import os
import sys

from builder.errors import BuilderError
from builder.sandbox.process import Sandbox
from builder.store import Store


def choose(engine: str, store: Store) -> Sandbox:
    """Return the sandbox `engine`: `bubblewrap`, `docker`, or `auto`.

    `auto` is Docker where its socket answers, otherwise bubblewrap. Raises BuilderError where the
    one that was asked for cannot be used.
    """
    from builder.sandbox.bubblewrap import Bubblewrap
    from builder.sandbox.docker import Docker

    if engine == "bubblewrap":
        return Bubblewrap(store)
    if engine == "docker":
        return Docker(store)
    if engine != "auto":
        raise BuilderError(f"unknown engine {engine!r}; there are auto, bubblewrap and docker")
    if os.environ.get("DOCKER_HOST") or os.path.exists("/var/run/docker.sock"):  # noqa: PTH110
        try:
            return Docker(store)
        except BuilderError:
            pass
    if sys.platform != "linux":
        raise BuilderError("without a Docker Engine the images run on Linux only; start Docker")
    return Bubblewrap(store)
