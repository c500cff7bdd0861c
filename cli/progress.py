"""What is printed on stderr while images are built and pushed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from cli.output import say

_PATIENCE = 2.0  # seconds until something is worth a line although it is not done


def building() -> Callable[[Any], None]:
    """Return a listener of a build: a line for each layer that was made, and for each slow one."""
    waiting: dict[tuple[str, str], threading.Timer] = {}

    def show(event: Any) -> None:
        if event.what.startswith("sha256:"):
            return
        key = (event.target, event.what)
        if event.state == "started":
            waiting[key] = threading.Timer(_PATIENCE, say, [f"  {event.target}: {event.what} …"])
            waiting[key].daemon = True
            waiting[key].start()
        elif event.state == "done":
            if timer := waiting.pop(key, None):
                timer.cancel()
            say(f"  {event.target}: {event.what} ({event.seconds:.1f} s)")

    return show


def pushing() -> Callable[[str, int], None]:
    """Return a listener of a push: a line every other second with what has gone up so far."""
    lock = threading.Lock()
    sent: dict[str, int] = {}
    last = time.monotonic()

    def show(name: str, size: int) -> None:
        nonlocal last
        with lock:
            sent[name] = sent.get(name, 0) + size
            if time.monotonic() - last < _PATIENCE:
                return
            last = time.monotonic()
            say("  pushed " + ", ".join(f"{n} {b / 1e6:.0f} MB" for n, b in sent.items()))

    return show


def moving(total: int) -> Callable[[int], None]:
    """Return a listener of bytes that move: a line every other second, of `total` bytes."""
    lock = threading.Lock()
    done, last = 0, time.monotonic()

    def show(size: int) -> None:
        nonlocal done, last
        with lock:
            done += size
            if time.monotonic() - last >= _PATIENCE:
                last = time.monotonic()
                say(f"  {done / 1e6:.0f} of at most {total / 1e6:.0f} MB")

    return show


def sometimes(say: Callable[[str], object], seconds: float = 10.0) -> Callable[[str], None]:
    """Return a listener that says the first line at once, and then one in so many seconds."""
    last = 0.0

    def show(line: str) -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            last = time.monotonic()
            say(line)

    return show
