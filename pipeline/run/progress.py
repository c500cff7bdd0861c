"""A run as it goes: a live table in a terminal, plain lines in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from pipeline.run.record import Step


def lines(stream: TextIO) -> Callable[[Step], None]:
    """Return a progress callback that prints a line a change of state to `stream`."""
    seen: dict[str, str] = {}

    def show(step: Step) -> None:
        if seen.get(step.name, "waiting") != step.state:
            seen[step.name] = step.state
            took = f" {step.seconds:.1f} s" if step.seconds else ""
            error = f": {step.error}" if step.error else ""
            print(f"{step.title}: {step.state}{took}{error}", file=stream, flush=True)

    return show


@contextmanager
def live(stream: TextIO) -> Iterator[Callable[[Step], None]]:
    """Yield a progress callback: a table that is redrawn in a terminal, else plain lines."""
    if not stream.isatty():
        yield lines(stream)
        return
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    steps: dict[str, Step] = {}

    def table() -> Table:
        made = Table("step", "state", "seconds")
        for step in list(steps.values()):
            running = step.state == "running"
            seconds = time.time() - step.started if running else step.seconds
            made.add_row(step.title, step.state, f"{seconds:.1f}")
        return made

    with Live(get_renderable=table, console=Console(file=stream), refresh_per_second=4):
        yield lambda step: steps.update({step.name: step})
